#include <gtest/gtest.h>

#include "quantizer/quantize_job.h"
#include "quantizer/random_checkpoint.h"
#include "testing/expect_error.h"
#include "testing/file_size_limit.h"
#include "testing/temp_folder.h"

namespace atom::quantizer {
namespace {

namespace fs = std::filesystem;
using atom::testing::contents;
using atom::testing::expect_error;
using atom::testing::Job;
using atom::testing::random_ids;
using atom::testing::TempFolder;
using atom::testing::write_random_checkpoint;

TEST(Quantize, BadInputIsOneSentence) {
  const TempFolder folder;
  write_random_checkpoint(folder / "in", {});
  const Job job;
  fs::create_directories(folder / "taken");
  write_file_atomically(folder / "taken" / "x", "x");
  expect_error([&] { job.run(folder / "in", folder / "taken"); }, {"taken", "not empty"});
  expect_error([&] { job.run(folder / "in", folder / "in" / "out"); }, {"input folder"});
  expect_error([&] { job.run(folder / "in", folder / "in"); }, {"input folder"});

  Job few = job;
  few.ids.resize(23);
  expect_error([&] { few.run(folder / "in", folder / "out"); }, {"ids.txt", "23", "24"});
  few.ids = random_ids(24, 61);
  EXPECT_NO_THROW(few.run(folder / "in", folder / "exactly"));
  few.ids[5] = 61;
  expect_error([&] { few.run(folder / "in", folder / "out"); }, {"61", "vocabulary"});
  few.sequence = 1 << 20;
  expect_error([&] { few.run(folder / "in", folder / "out"); }, {"256"});

  expect_error([&] { job.run(folder / "exactly", folder / "out"); }, {"already quantized"});

  for (const char* name :
       {"model.layers.1.mlp.up_proj.weight", "model.embed_tokens.weight", "model.norm.weight"}) {
    fs::remove_all(folder / "nan");
    write_random_checkpoint(folder / "nan", {.tied = false, .nan_tensor = name});
    Job nan = job;
    nan.recipe = preset("w8a8");
    expect_error([&] { nan.run(folder / "nan", folder / "out"); }, {name, "nan"});
  }
  EXPECT_FALSE(fs::exists(folder / "out"));
}

TEST(Quantize, ABrokenLastLayerIsFoundBeforeAnyWork) {
  const TempFolder folder;
  write_random_checkpoint(folder / "in", {.layers = 3, .tied = false});
  Job job;
  job.progress = [](const Progress&) { FAIL() << "work has begun"; };
  for (const auto& [tensor, shape] :
       std::map<std::string, tensor::Shape>{{"model.layers.2.mlp.down_proj.weight", {64, 95}},
                                            {"model.layers.2.input_layernorm.weight", {63}},
                                            {"model.layers.2.self_attn.o_proj.weight", {65, 64}},
                                            {"lm_head.weight", {61, 63}}}) {
    fs::remove_all(folder / "broken");
    write_random_checkpoint(folder / "broken",
                            {.layers = 3, .tied = false, .reshaped = tensor, .new_shape = shape});
    expect_error([&] { job.run(folder / "broken", folder / "out"); },
                 {tensor, shape.to_string(), "config.json"});
  }
  EXPECT_FALSE(fs::exists(folder / "out"));
}

TEST(Quantize, OrdersOfAnEarlierRunGiveItsBytesWithoutItsPass) {
  const TempFolder folder;
  write_random_checkpoint(folder / "in", {.layers = 3});
  Job job;
  const QuantizeReport first = job.run(folder / "in", folder / "first");
  ASSERT_EQ(first.orders.size(), 3u);
  job.orders = first.orders;
  job.progress = [](const Progress& progress) { EXPECT_NE(progress.phase, "calibrate"); };
  job.run(folder / "in", folder / "second");
  EXPECT_EQ(contents(folder / "second"), contents(folder / "first"));
}

TEST(Quantize, FullDiskLeavesNothingBehind) {
  const TempFolder folder;
  write_random_checkpoint(folder / "in", {});
  const Job job;
  {
    const atom::testing::FileSizeLimit limit(30000);
    expect_error([&] { job.run(folder / "in", folder / "out"); }, {"model.safetensors"});
  }
  EXPECT_EQ(folder.names(), std::vector<std::string>{"in"});
}

}  // namespace
}  // namespace atom::quantizer
