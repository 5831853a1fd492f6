// What Atom writes as compressed-tensors, read by the package of that name (tools/check_compressed_tensors.py): two rows of two
// linears of a checkpoint of w8a8 and of w4a16, and the values that the package decodes them to.
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "checkpoint/packed_model.h"
#include "format/float16.h"
#include "model/scheme.h"
#include "model/tensor_reader.h"

namespace atom::model {
namespace {

using checkpoint::ModelFiles;

class WrittenPacked : public ::testing::TestWithParam<const char*> {
 protected:
  const std::filesystem::path folder_ =
      std::filesystem::path(ATOM_TEST_DATA) / "packed" / GetParam();
  const ModelFiles files_ = ModelFiles::open(folder_);
  const ModelConfig config_ = parse_config(files_.config(), "config.json");
  const Scheme scheme_ =
      parse_scheme(files_.config(), config_, format::KvKind::kF32, "config.json");
};

// The package multiplies in the type of the scales: F32, or F16, to which the exact products are rounded.
std::vector<float> as_the_package(std::vector<float> values, tensor::DType dtype) {
  if (dtype == tensor::DType::F16)
    for (float& value : values) value = format::f16_to_f32(format::f32_to_f16(value));
  return values;
}

TEST_P(WrittenPacked, HasTheValuesThatThePackageDecodes) {
  const TensorReader reader(files_, scheme_);
  const auto packed = files_.read_packed();
  ASSERT_NE(packed, nullptr);
  EXPECT_EQ(packed->weights().size(), 2U);
  for (const auto& [module, weight] : packed->weights()) {
    const tensor::TensorView decoded = files_.tensor(module + ".decoded");
    const std::vector<float> want = tensor::widen(decoded);
    EXPECT_EQ(weight.misfit(), "") << "it is what Atom computes with";
    std::vector<float> by_import(want.size());
    weight.decode(std::as_writable_bytes(std::span(by_import)));
    EXPECT_EQ(as_the_package(by_import, decoded.dtype), want) << module;
    const LinearTensors own = reader.linear(module, 2, config_.hidden);
    EXPECT_EQ(to_f32(own), by_import) << module;
  }
}

// The writer still says the same of such a model.
TEST_P(WrittenPacked, IsDescribedAsThen) {
  EXPECT_EQ(scheme_json(scheme_, config_), files_.config().at("quantization_config"));
}

INSTANTIATE_TEST_SUITE_P(Fixtures, WrittenPacked, ::testing::Values("own-w8a8", "own-w4a16"),
                         [](const auto& info) { return std::string(info.param + 4); });

}  // namespace
}  // namespace atom::model
