// Quantizing a GGUF file gives the bytes that quantizing its folder gives (tools/make_gguf_fixtures.py).
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/json.h"
#include "quantizer/quantize_job.h"
#include "testing/temp_folder.h"

namespace atom::quantizer {
namespace {

TEST(QuantizeGguf, EqualsTheFolder) {
  const atom::testing::TempFolder folder(atom::testing::TempFolder::memory());
  const std::filesystem::path data = std::filesystem::path(ATOM_TEST_DATA) / "gguf";
  atom::testing::Job job;
  job.ids = atom::testing::random_ids(300, 40);
  job.run(data / "llama", folder / "a");
  job.run(data / "llama-bf16.gguf", folder / "b");
  EXPECT_EQ(read_file(folder / "a" / "model.safetensors"),
            read_file(folder / "b" / "model.safetensors"));
  const auto config = [&](const char* name) {
    return parse_json(read_file(folder / name / "config.json"));
  };
  EXPECT_EQ(config("a").at("quantization_config"), config("b").at("quantization_config"));
  EXPECT_EQ(config("a").at("hidden_size"), config("b").at("hidden_size"));
}

TEST(QuantizeGguf, OfQ4_0GivesAFolderThatOpens) {
  const atom::testing::TempFolder folder(atom::testing::TempFolder::memory());
  const std::filesystem::path data = std::filesystem::path(ATOM_TEST_DATA) / "gguf";
  atom::testing::Job job;
  job.ids = atom::testing::random_ids(300, 40);
  const auto files = checkpoint::ModelFiles::open(data / "llama-q4_0.gguf");
  EXPECT_EQ(files.small_file("tokenizer_config.json", 0), std::nullopt);
  job.run(data / "llama-q4_0.gguf", folder / "out");
  EXPECT_FALSE(std::filesystem::exists(folder / "out" / "tokenizer.json"));
  EXPECT_TRUE(std::filesystem::exists(folder / "out" / "config.json"));
  // What was written opens, and is not quantized twice.
  EXPECT_THROW(job.run(folder / "out", folder / "again"), Error);
}

}  // namespace
}  // namespace atom::quantizer
