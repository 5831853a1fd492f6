// Checkpoints that break a rule, one at a time: each is refused with a sentence that names the
// tensor. The unbroken ones load.
#include "model/weights.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "model/checkpoint_in_parts.h"

namespace atom::model {
namespace {

class PlainWeights : public ::testing::TestWithParam<Damage> {};
class QuantizedWeights : public ::testing::TestWithParam<Damage> {};
class ProgressiveWeights : public ::testing::TestWithParam<Damage> {};

TEST_P(PlainWeights, AreRefused) {
  Checkpoint checkpoint;
  ASSERT_NO_THROW(load(checkpoint));
  GetParam().apply(checkpoint);
  expect_refused(checkpoint, GetParam());
}

TEST_P(QuantizedWeights, AreRefused) {
  Checkpoint checkpoint;
  checkpoint.quantize_qkv();
  ASSERT_NO_THROW(load(checkpoint));
  GetParam().apply(checkpoint);
  expect_refused(checkpoint, GetParam());
}

TEST_P(ProgressiveWeights, AreRefused) {
  Checkpoint checkpoint;
  checkpoint.make_qkv_progressive();
  ASSERT_NO_THROW(load(checkpoint));
  GetParam().apply(checkpoint);
  expect_refused(checkpoint, GetParam());
}

const Damage kPlain[] = {
    {"Shape",
     [](Checkpoint& c) {
       c.floats(kQ + ".weight", {kHidden, 31}, 0);
     },
     {kQ + ".weight", "[32, 32]", "[32, 31]"}},
    {"Type",
     [](Checkpoint& c) {
       c.integers(kQ + ".weight", {kHidden, kHidden}, std::vector<int32_t>(kHidden * kHidden));
     },
     {kQ + ".weight", "must be F32, F16 or BF16 and is I32"}},
    {"Nan", [](Checkpoint& c) { c.set(kV + ".weight", 77, kNan); }, {kV + ".weight", "nan"}},
    {"NormInfinity",
     [](Checkpoint& c) { c.set("model.norm.weight", 31, -kInfinity); },
     {"model.norm.weight", "-inf"}},
    {"EmbeddingNan", [](Checkpoint& c) { c.set(kEmbedding, 0, kNan); }, {kEmbedding, "nan"}},
    {"BiasShape",
     [](Checkpoint& c) { c.floats(kK + ".bias", {17}, 0); },
     {kK + ".bias", "[16]", "[17]"}},
    {"Missing", [](Checkpoint& c) { c.erase(kK + ".weight"); }, {kK + ".weight"}},
    {"MissingNorm",
     [](Checkpoint& c) { c.erase("model.layers.0.post_attention_layernorm.weight"); },
     {"model.layers.0.post_attention_layernorm.weight"}},
    {"MissingHead",
     [](Checkpoint& c) { c.erase("lm_head.weight"); },
     {"lm_head.weight", "tie_word_embeddings is false"}},
};

const Damage kQuantized[] = {
    {"Code",
     [](Checkpoint& c) { c.set(kQ + ".weight", 511, int8_t{-128}); },
     {"'" + kQ + ".weight' holds the code -128, which is outside -127..127"}},
    {"KeptCode",
     [](Checkpoint& c) { c.set(kV + ".kept_weight", 0, int8_t{-128}); },
     {"'" + kV + ".kept_weight' holds the code -128, which is outside -127..127"}},
    {"CodeType",
     [](Checkpoint& c) {
       c.floats(kQ + ".weight", {kHidden, kHidden - kKept}, 0);
     },
     {kQ + ".weight", "must be I8 and is F32"}},
    {"KeptShape",
     [](Checkpoint& c) {
       c.codes(kQ + ".kept_weight", {kHidden, 15}, 0);
     },
     {kQ + ".kept_weight", "[32, 16]", "[32, 15]"}},
    {"KeptBeyondInputs",
     [](Checkpoint& c) { c.group()["kept_channels"] = 33; },
     {kQ, "kept_channels 33", "32 inputs"}},
    {"ScaleNan",
     [](Checkpoint& c) { c.set(kK + ".weight_scale", 3, kNan); },
     {kK + ".weight_scale", "nan"}},
    {"KeptScaleInfinity",
     [](Checkpoint& c) { c.set(kK + ".kept_scale", 15, kInfinity); },
     {kK + ".kept_scale", "inf"}},
    {"ScaleMissing", [](Checkpoint& c) { c.erase(kV + ".weight_scale"); }, {kV + ".weight_scale"}},
    {"OrderTwice",
     [](Checkpoint& c) { c.set(kOrder, 1, int32_t{31}); },
     {kOrder, "permutation of 0..31", "holds 31 at 1"}},
    {"OrderNegative", [](Checkpoint& c) { c.set(kOrder, 5, int32_t{-1}); }, {kOrder, "-1 at 5"}},
    {"OrderBeyond", [](Checkpoint& c) { c.set(kOrder, 5, int32_t{32}); }, {kOrder, "32 at 5"}},
    {"OrderShape",
     [](Checkpoint& c) {
       c.integers(kOrder, {2}, {1, 0});
     },
     {kOrder, "[32]", "[2]"}},
    {"InputsDisagree",
     [](Checkpoint& c) {
       Json other = c.group();
       c.group()["targets"] = {kQ, kK};
       other["targets"] = {kV};
       other["kept_input_activations"] = nullptr;
       c.config["quantization_config"]["config_groups"]["group_1"] = other;
     },
     {kQ, kV, "share the input 'model.layers.0.self_attn.qkv_input'"}},
};

const Damage kProgressive[] = {
    {"MultiplierZero",
     [](Checkpoint& c) { c.set(kQ + ".weight_multiplier", 31, int8_t{0}); },
     {"'" + kQ + ".weight_multiplier' holds the multiplier 0, which is outside 1..15"}},
    {"MultiplierBeyond",
     [](Checkpoint& c) { c.set(kV + ".weight_multiplier", 0, int8_t{-16}); },
     {"'" + kV +
      ".weight_multiplier' holds the multiplier -16, which is outside 1..15 and -15..-1"}},
    {"MultiplierType",
     [](Checkpoint& c) {
       c.erase(kQ + ".weight_multiplier");
       c.bytes(kQ + ".weight_multiplier", {kHidden, 1}, 3);
     },
     {kQ + ".weight_multiplier", "must be I8 and is U8"}},
    {"MultiplierMissing",
     [](Checkpoint& c) { c.erase(kK + ".weight_multiplier"); },
     {kK + ".weight_multiplier"}},
    {"RowScaleNan",
     [](Checkpoint& c) { c.set(kK + ".weight_row_scale", 3, kNan); },
     {kK + ".weight_row_scale", "nan"}},
    {"RowScaleInfinity",
     [](Checkpoint& c) { c.set(kK + ".weight_row_scale", 3, kInfinity); },
     {kK + ".weight_row_scale", "inf"}},
    {"RowScaleZero",
     [](Checkpoint& c) { c.set(kQ + ".weight_row_scale", 31, 0.0f); },
     {kQ + ".weight_row_scale", "holds 0", "positive"}},
    {"RowScaleNegative",
     [](Checkpoint& c) { c.set(kQ + ".weight_row_scale", 0, -0.5f); },
     {kQ + ".weight_row_scale", "holds -0.5", "positive"}},
    {"RowScaleShape",
     [](Checkpoint& c) {
       c.floats(kQ + ".weight_row_scale", {kHidden, 1}, 1);
     },
     {kQ + ".weight_row_scale", "[32]", "[32, 1]"}},
    {"Int4Input",
     [](Checkpoint& c) {
       c.group()["input_activations"].update(
           {{"num_bits", 4}, {"strategy", "group"}, {"group_size", 32}});
     },
     {"int4.g32.p", "int4.g32"}},
};

INSTANTIATE_TEST_SUITE_P(Progressive, ProgressiveWeights, ::testing::ValuesIn(kProgressive),
                         kDamageName);
INSTANTIATE_TEST_SUITE_P(Plain, PlainWeights, ::testing::ValuesIn(kPlain), kDamageName);
INSTANTIATE_TEST_SUITE_P(Quantized, QuantizedWeights, ::testing::ValuesIn(kQuantized), kDamageName);

TEST(Weights, TheTensorsDecideTheTypeNotTheConfig) {
  for (const char* key : {"torch_dtype", "dtype"}) {
    Checkpoint checkpoint;
    checkpoint.config[key] = "float16";
    const TempFolder folder;
    const ModelFiles files = checkpoint.open(folder);
    const ModelConfig config = parse_config(files.config(), "config.json");
    const LayerTensors layer = read_layer(
        files, config, parse_scheme(files.config(), config, format::KvKind::kF32, "c"), 0);
    EXPECT_EQ(layer.q.segments, format::whole(format::kF32, kHidden)) << key;
    EXPECT_EQ(to_f32(layer.q), std::vector<float>(kHidden * kHidden, 0.5f)) << key;
  }
}

TEST(Weights, MultipliersScaleTheirGroups) {
  Checkpoint checkpoint;
  checkpoint.make_qkv_progressive();
  checkpoint.set(kQ + ".weight_multiplier", 1, int8_t{-15});
  checkpoint.set(kQ + ".weight_row_scale", 2, 3.0f);
  const TempFolder folder;
  const ModelFiles files = checkpoint.open(folder);
  const ModelConfig config = parse_config(files.config(), "config.json");
  const LayerTensors layer =
      read_layer(files, config, parse_scheme(files.config(), config, format::KvKind::kF32, "c"), 0);
  EXPECT_EQ(layer.q.segments.at[0], (format::Segment{format::int4_progressive(32), 16}));
  // 16 values as eight to a word, a multiplier, a row scale; 16 int8 and a scale.
  EXPECT_EQ(layer.q.bytes(), kHidden * (8 + 1 + 4 + 16 + 4));
  const std::vector<float> q = to_f32(layer.q);
  EXPECT_EQ(q[0], 0.25f * 3 * -8);
  EXPECT_EQ(q[kHidden], 0.25f * -15 * -8);
  EXPECT_EQ(q[2 * kHidden + 15], 3.0f * 3 * -8);
  EXPECT_EQ(q[2 * kHidden + 16], 0.02f * 127);
}

TEST(Weights, LinearsThatShareAnInputMayHaveDifferentTypes) {
  Checkpoint checkpoint;
  checkpoint.halves(kV + ".weight", {16, kHidden}, 0.5f);
  checkpoint.halves("model.layers.0.mlp.gate_proj.weight", {kHidden, kHidden}, 0.5f);
  EXPECT_NO_THROW(load(checkpoint));
}

TEST(Weights, ATiedHeadIsTheEmbedding) {
  Checkpoint checkpoint;  // holds both, with different values
  EXPECT_EQ(to_f32(head(checkpoint)).at(0), 0.75f);
  checkpoint.config["tie_word_embeddings"] = true;
  EXPECT_EQ(to_f32(head(checkpoint)).at(0), 0.25f);
  EXPECT_EQ(head(checkpoint).name, "lm_head");
}

TEST(Weights, ATiedPairMayBeStoredUnderEitherName) {
  Checkpoint checkpoint;
  checkpoint.config["tie_word_embeddings"] = true;
  checkpoint.erase(kEmbedding);
  EXPECT_EQ(to_f32(head(checkpoint)).at(0), 0.75f);
  EXPECT_NO_THROW(load(checkpoint));
}

TEST(Weights, AQuantizedHeadIsItsOwnThoughTied) {
  Checkpoint checkpoint;
  checkpoint.config["tie_word_embeddings"] = true;
  checkpoint.quantize_qkv();
  Json other{{"targets", {"lm_head"}}, {"weights", checkpoint.group()["weights"]}};
  checkpoint.config["quantization_config"]["config_groups"]["group_1"] = other;
  checkpoint.codes("lm_head.weight", {kVocabulary, kHidden}, 3);
  checkpoint.floats("lm_head.weight_scale", {kVocabulary, 1}, 2.0f);
  EXPECT_EQ(to_f32(head(checkpoint)), std::vector<float>(kVocabulary * kHidden, 6.0f));
  EXPECT_NO_THROW(load(checkpoint));
}

}  // namespace
}  // namespace atom::model
