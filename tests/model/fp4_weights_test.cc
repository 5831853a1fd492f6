// FP4 weights of a checkpoint: what they mean, and what is refused.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "model/checkpoint_in_parts.h"

namespace atom::model {
namespace {

class Nvfp4Weights : public ::testing::TestWithParam<Damage> {};

TEST_P(Nvfp4Weights, AreRefused) {
  Checkpoint checkpoint;
  checkpoint.make_qkv_nvfp4();
  ASSERT_NO_THROW(load(checkpoint));
  GetParam().apply(checkpoint);
  expect_refused(checkpoint, GetParam());
}

const Damage kNvfp4[] = {
    {"ScaleNan",
     [](Checkpoint& c) { c.set(kQ + ".weight_scale", 31, uint8_t{0x7f}); },
     {"'" + kQ + ".weight_scale' holds the byte 127", "up to 126"}},
    {"ScaleNegative",
     [](Checkpoint& c) { c.set(kK + ".weight_scale", 0, uint8_t{0x80}); },
     {kK + ".weight_scale", "128"}},
    {"ScaleType",
     [](Checkpoint& c) {
       c.bytes(kQ + ".weight_scale", DType::U8, {kHidden, 1}, 0x38);
     },
     {kQ + ".weight_scale", "must be F8_E4M3 and is U8"}},
    {"ScaleShape",
     [](Checkpoint& c) {
       c.bytes(kQ + ".weight_scale", DType::F8_E4M3, {kHidden, 2}, 0x38);
     },
     {kQ + ".weight_scale", "[32, 1]", "[32, 2]"}},
    {"PackedShape",
     [](Checkpoint& c) {
       c.bytes(kQ + ".weight_packed", DType::U8, {kHidden, 7}, 0);
     },
     {kQ + ".weight_packed", "[32, 8]", "[32, 7]"}},
    {"GlobalZero",
     [](Checkpoint& c) { c.set(kV + ".weight_global_scale", 0, 0.0f); },
     {kV + ".weight_global_scale", "positive"}},
    {"GlobalInfinity",
     [](Checkpoint& c) { c.set(kQ + ".weight_global_scale", 0, kInfinity); },
     {kQ + ".weight_global_scale", "finite"}},
    {"GlobalMissing",
     [](Checkpoint& c) { c.erase(kQ + ".weight_global_scale"); },
     {kQ + ".weight_global_scale"}},
    {"OtherInput",
     [](Checkpoint& c) {
       c.group()["input_activations"].erase("scale_dtype");
       c.group()["input_activations"].update({{"strategy", "group"}, {"group_size", 32}});
     },
     {"nvfp4", "e2m1.g32"}},
    {"MxScale",
     [](Checkpoint& c) {
       for (const char* side : {"weights", "input_activations"})
         c.group()[side].update(
             {{"strategy", "group"}, {"group_size", 32}, {"scale_dtype", "torch.uint8"}});
       for (const std::string& module : {kQ, kK, kV})
         c.bytes(module + ".weight_scale", DType::U8, {module == kQ ? kHidden : 16, 1},
                 module == kV ? 255 : 127);
     },
     {"'" + kV + ".weight_scale' holds the byte 255", "up to 254"}},
};

INSTANTIATE_TEST_SUITE_P(Nvfp4, Nvfp4Weights, ::testing::ValuesIn(kNvfp4), kDamageName);

TEST(Weights, Nvfp4ScalesAreDividedByTheGlobalOne) {
  Checkpoint checkpoint;
  checkpoint.make_qkv_nvfp4();
  checkpoint.set(kQ + ".weight_packed", 0, uint8_t{0x83});  // 1.5, then -0
  const TempFolder folder;
  const ModelFiles files = checkpoint.open(folder);
  const ModelConfig config = parse_config(files.config(), "config.json");
  const LayerTensors layer =
      read_layer(files, config, parse_scheme(files.config(), config, format::KvKind::kF32, "c"), 0);
  EXPECT_EQ(layer.q.segments.at[0], (format::Segment{format::kNvfp4, 16}));
  // 16 values as two to a byte, a scale; 16 int8 and a scale; the global one.
  EXPECT_EQ(layer.q.bytes(), kHidden * (8 + 1 + 16 + 4) + 4);
  const std::vector<float> q = to_f32(layer.q);
  EXPECT_EQ(q[0], 1.5f * 3 / 4);
  EXPECT_EQ(q[1], 0.0f);
  EXPECT_FALSE(std::signbit(q[1]));
  EXPECT_EQ(q[2], -6.0f * 3 / 4);
}

}  // namespace
}  // namespace atom::model
