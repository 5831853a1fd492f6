// Checkpoints of GPTQ, AWQ and compressed-tensors (tools/make_packed_fixtures.py): what is computed with as stored, what in
// F32, and that both give the logits of the same weights in a plain folder.
#include "model/packed_files.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "base/file.h"
#include "base/log.h"
#include "base/sha256.h"
#include "checkpoint/packed_model.h"
#include "checkpoint/safetensors.h"
#include "quantizer/model_logits.h"
#include "testing/expect_error.h"
#include "testing/temp_folder.h"

namespace atom::model {
namespace {

using atom::testing::logits;
using atom::testing::TempFolder;
using checkpoint::ModelFiles;

const std::vector<int32_t> kIds = {1, 7, 9, 12, 12, 3, 5, 0, 15};

std::filesystem::path fixture(const std::string& name) {
  return std::filesystem::path(ATOM_TEST_DATA) / "packed" / name;
}

// Warnings of one scope.
class Warnings {
 public:
  Warnings() {
    set_log_sink([this](LogLevel level, const std::string& line) {
      if (level == LogLevel::kWarning) text += line + "\n";
    });
  }
  ~Warnings() { set_log_sink({}); }
  Warnings(const Warnings&) = delete;
  Warnings& operator=(const Warnings&) = delete;
  std::string text;
};

struct PackedCase {
  const char* name;
  const char* stored;  // weights that are computed with as stored, or nullptr: F32
  const char* note;    // what is said of it
};

void PrintTo(const PackedCase& it, std::ostream* out) { *out << it.name; }

class PackedFiles : public ::testing::TestWithParam<PackedCase> {};

// Every tensor of the files, as a plain folder.
void write_plain(const ModelFiles& files, const std::filesystem::path& folder) {
  std::filesystem::create_directory(folder);
  write_file_atomically(folder / "config.json", files.config().dump());
  std::vector<checkpoint::TensorInfo> infos;
  for (const std::string& name : files.tensor_names())
    infos.push_back({name, files.header(name).dtype, files.header(name).shape});
  checkpoint::SafetensorsWriter writer(folder / "model.safetensors", infos);
  for (const auto& info : infos) writer.write(info.name, files.tensor(info.name).bytes);
  writer.commit();
}

TEST_P(PackedFiles, HoldTheValuesThatAreMeant) {
  const ModelFiles files = open_files(fixture(GetParam().name), Weights::kFloats);
  EXPECT_FALSE(files.config().contains("quantization_config"));
  const Json expected = parse_json(read_file(fixture(GetParam().name) / "expected.json"));
  EXPECT_EQ(expected.size(), 7U);
  EXPECT_EQ(files.tensor_names().size(), 11U);
  for (const auto& [name, sha256] : expected.items()) {
    ASSERT_TRUE(files.has(name)) << name;
    EXPECT_EQ(files.header(name).dtype, tensor::DType::F32);
    const tensor::TensorView view = files.tensor(name);
    EXPECT_EQ(sha256_hex(view.bytes), sha256.get<std::string>()) << name;
    EXPECT_EQ(view.shape, files.header(name).shape);
    files.release(name);
    EXPECT_EQ(sha256_hex(files.tensor(name).bytes), sha256.get<std::string>()) << "read again";
  }
}

TEST_P(PackedFiles, GiveTheLogitsOfAPlainFolder) {
  const TempFolder folder(TempFolder::memory());
  Warnings warnings;
  const ModelFiles files = open_files(fixture(GetParam().name));
  write_plain(open_files(fixture(GetParam().name), Weights::kFloats), folder / "plain");
  EXPECT_NE(files.packed_note().find(GetParam().note), std::string::npos) << files.packed_note();
  EXPECT_EQ(warnings.text.find(GetParam().note) != std::string::npos, GetParam().stored == nullptr);
  const std::vector<float> got = logits(files, kIds), want = logits(folder / "plain", kIds);
  if (GetParam().stored == nullptr) {
    EXPECT_EQ(got, want);
    return;
  }
  const ModelConfig config = parse_config(files.config(), "config.json");
  const Scheme scheme = parse_scheme(files.config(), config, format::KvKind::kF32, "config.json");
  EXPECT_EQ(format::name(scheme.find("model.layers.0.mlp.up_proj")->weight), GetParam().stored);
  // Products of int4 and F32 differ by roundings of 2^-24 at most. Inputs of int8 have steps of 1/127 of the largest value:
  // errors of 1/254 in each of four linears that follow each other.
  const double bound = std::string_view(GetParam().stored) == "int8" ? 0.05 : 1e-5;
  double largest = 0, difference = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    largest = std::max(largest, std::abs(double{want[i]}));
    difference = std::max(difference, std::abs(double{got[i]} - want[i]));
  }
  EXPECT_LT(difference, bound * largest);
  EXPECT_EQ(got != want || bound < 1e-4, true) << "inputs are rounded";
  // What is seen is what Atom would have stored.
  write_plain(files, folder / "stored");
  EXPECT_EQ(logits(folder / "stored", kIds), got);
}

INSTANTIATE_TEST_SUITE_P(
    Fixtures, PackedFiles,
    ::testing::Values(
        PackedCase{"gptq4", "int4.g32", "GPTQ, gptq4 in groups of 32; computed with as stored"},
        PackedCase{"gptq4-order", nullptr, "follow an order of the inputs"},
        PackedCase{"gptq8-row", nullptr, "zeros other than the middle"},
        PackedCase{"gptq3", nullptr, "zeros other than the middle"},
        PackedCase{"awq", nullptr, "AWQ, awq4 in groups of 16; read as F32"},
        PackedCase{"awq-middle", "int4.g32", "AWQ, awq4 in groups of 32; computed with as stored"},
        PackedCase{"pack", "int4.g32", "int4 in groups of 32; computed with as stored"},
        PackedCase{"pack-zeros", nullptr, "zeros other than the middle"},
        PackedCase{"pack-order", nullptr, "follow an order of the inputs"},
        PackedCase{"int8", "int8", "int8 in rows; computed with as stored"},
        PackedCase{"fp8-rows", nullptr, "weights in f8_e4m3 are not computed with"},
        PackedCase{"mixed", nullptr, "f8_e4m3 in blocks of 24 x 20"}),
    [](const auto& info) {
      std::string name = info.param.name;
      std::replace(name.begin(), name.end(), '-', '_');
      return name;
    });

// A copy of a fixture with another config.json.
class ChangedFixture {
 public:
  explicit ChangedFixture(const char* name) : name_(name) {
    config = parse_json(read_file(fixture(name) / "config.json"));
  }
  std::filesystem::path write() {
    write_file_atomically(folder_ / "config.json", config.dump());
    std::filesystem::copy_file(fixture(name_) / "model.safetensors", folder_ / "model.safetensors",
                               std::filesystem::copy_options::overwrite_existing);
    return folder_.path();
  }
  Json config;
  const TempFolder& folder() const { return folder_; }

 private:
  const char* name_;
  TempFolder folder_{TempFolder::memory()};
};

// Programs of 2023 wrote quantize_config.json beside a plain config.json.
TEST(PackedFilesTest, ReadTheOlderFilesBesideTheConfig) {
  for (const auto& [name, file] :
       {std::pair("gptq4", "quantize_config.json"), std::pair("awq-middle", "quant_config.json")}) {
    ChangedFixture changed(name);
    Json beside = changed.config["quantization_config"];
    beside.erase("quant_method");
    if (std::string_view(name) == "awq-middle") {
      beside = {{"w_bit", 4}, {"q_group_size", 32}, {"zero_point", true}, {"version", "GEMM"}};
    }
    changed.config.erase("quantization_config");
    write_file_atomically(changed.folder() / file, beside.dump());
    const ModelFiles files = open_files(changed.write());
    EXPECT_TRUE(files.has("model.layers.0.mlp.up_proj.weight_packed")) << name;
  }
}

TEST(PackedFilesTest, LeavePlainWeightsBesideSuchAFileAlone) {
  const TempFolder folder(TempFolder::memory());
  write_plain(open_files(fixture("gptq4"), Weights::kFloats), folder / "plain");
  write_file_atomically(folder / "plain" / "quantize_config.json", R"({"bits":4})");
  EXPECT_EQ(open_files(folder / "plain").packed_note(), "");
}

TEST(PackedFilesTest, SayWhyWhatFitsAloneIsReadAsF32) {
  ChangedFixture changed("int8");
  Warnings warnings;
  changed.config["quantization_config"]["config_groups"]["group_0"]["input_activations"] = nullptr;
  const ModelFiles files = open_files(changed.write());
  EXPECT_NE(warnings.text.find("int8 weights need inputs in int8"), std::string::npos);
  EXPECT_EQ(files.tensor("model.layers.0.mlp.up_proj.weight").dtype, tensor::DType::F32);
}

TEST(PackedFilesTest, RefuseTensorsThatNoGroupNames) {
  ChangedFixture changed("pack");
  changed.config["quantization_config"]["config_groups"]["group_0"]["targets"] = {"re:.*mlp.*"};
  const auto folder = changed.write();
  atom::testing::expect_error([&] { open_files(folder); },
                              {"self_attn.k_proj.weight_packed", "no group", "config.json"});
}

}  // namespace
}  // namespace atom::model
