// Quantizing a checkpoint of GPTQ gives the bytes that quantizing its values gives (tools/make_packed_fixtures.py).
#include <gtest/gtest.h>

#include "base/file.h"
#include "checkpoint/safetensors.h"
#include "model/open_files.h"
#include "quantizer/quantize_job.h"
#include "testing/temp_folder.h"

namespace atom::quantizer {
namespace {

TEST(QuantizePacked, EqualsTheValues) {
  const atom::testing::TempFolder folder(atom::testing::TempFolder::memory());
  const auto packed = std::filesystem::path(ATOM_TEST_DATA) / "packed" / "gptq4-order";
  const auto files = model::open_files(packed, model::Weights::kFloats);
  std::filesystem::create_directory(folder / "plain");
  write_file_atomically(folder / "plain" / "config.json", files.config().dump());
  std::vector<checkpoint::TensorInfo> infos;
  for (const std::string& name : files.tensor_names())
    infos.push_back({name, files.header(name).dtype, files.header(name).shape});
  checkpoint::SafetensorsWriter writer(folder / "plain" / "model.safetensors", infos);
  for (const auto& info : infos) writer.write(info.name, files.tensor(info.name).bytes);
  writer.commit();
  atom::testing::Job job;
  job.ids = atom::testing::random_ids(300, 16);
  job.run(folder / "plain", folder / "a");
  job.run(model::open_files(packed, model::Weights::kFloats), folder / "b");
  EXPECT_EQ(read_file(folder / "a" / "model.safetensors"),
            read_file(folder / "b" / "model.safetensors"));
  EXPECT_EQ(read_file(folder / "a" / "config.json"), read_file(folder / "b" / "config.json"));
}

}  // namespace
}  // namespace atom::quantizer
