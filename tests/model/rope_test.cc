#include "model/rope.h"

#include <gtest/gtest.h>

#include <cmath>

namespace atom::model {
namespace {

// Angles of position 1999 as torch 2 computes them: 1999.0f * (1.0f / 10000 ** (arange(0, 128, 2.0f) / 128)). In
// f64 the first would be 1731.062682, 6.2e-5 less; its cosine differs in the sixth digit.
TEST(Rope, AnglesAreThoseOfTransformers) {
  ModelConfig config;
  config.head_dim = 128;
  config.rope_theta = 10000;
  const RopeTables tables = make_rope_tables(config, 2000);
  const struct {
    int pair;
    double angle;
  } expected[] = {{1, 0x1.b0c404p+10}, {7, 0x1.6cfdd6p+9}, {40, 0x1.9491b6p+2}};
  for (const auto& [pair, angle] : expected) {
    EXPECT_EQ(tables.cos[1999 * 64 + pair], static_cast<float>(std::cos(angle))) << pair;
    EXPECT_EQ(tables.sin[1999 * 64 + pair], static_cast<float>(std::sin(angle))) << pair;
  }
  const double exact = 1999 * std::pow(10000.0, -2.0 / 128);
  EXPECT_NE(tables.cos[1999 * 64 + 1], static_cast<float>(std::cos(exact)));
}

// LLaMA 3.1's numbers: pairs of up to 8192 / 4 positions a turn stay, those of 8192 and more are 8 times slower.
TEST(Rope, Llama3SlowsLowFrequencies) {
  ModelConfig config;
  config.head_dim = 128;
  config.rope_theta = 500000;
  const RopeTables plain = make_rope_tables(config, 9);
  config.rope_scaling = {.kind = RopeScaling::Kind::kLlama3,
                         .factor = 8,
                         .original_positions = 8192,
                         .low_frequency_factor = 1,
                         .high_frequency_factor = 4};
  const RopeTables scaled = make_rope_tables(config, 9);
  const auto at = [&](const RopeTables& tables, int position, int pair) {
    return tables.sin[static_cast<size_t>(position * 64 + pair)];
  };
  EXPECT_EQ(at(plain, 1, 28), at(scaled, 1, 28));  // 2 pi 500000^(28/64) = 1954 positions a turn
  EXPECT_EQ(at(plain, 1, 36), at(scaled, 8, 36));  // 10088
  EXPECT_LT(at(scaled, 1, 32), at(plain, 1, 32));  // 4443: between
  EXPECT_GT(at(scaled, 8, 32), at(plain, 1, 32));
}

TEST(Rope, LinearDividesEveryPosition) {
  ModelConfig config;
  config.head_dim = 16;
  config.rope_theta = 10000;
  const RopeTables plain = make_rope_tables(config, 5);
  config.rope_scaling = {.kind = RopeScaling::Kind::kLinear, .factor = 4};
  const RopeTables scaled = make_rope_tables(config, 17);
  for (size_t p = 0; p < 5; ++p)
    for (size_t i = 0; i < 8; ++i) EXPECT_EQ(plain.sin[p * 8 + i], scaled.sin[4 * p * 8 + i]);
}

// The lowest frequency of transformers' formula becomes factor * L / original - (factor - 1) times slower, the highest
// stays; up to the original length nothing changes.
TEST(Rope, DynamicSlowsTheLowestFrequencyMost) {
  ModelConfig config;
  config.head_dim = 16;
  config.rope_theta = 10000;
  const std::vector<float> plain = rope_frequencies(config);
  config.rope_scaling = {.kind = RopeScaling::Kind::kDynamic,
                         .factor = 4,
                         .original_positions = 64,
                         .dynamic_positions = 64};
  EXPECT_EQ(rope_frequencies(config), plain);
  config.rope_scaling.dynamic_positions = 160;  // 4 * 2.5 - 3 = 7
  const std::vector<float> scaled = rope_frequencies(config);
  EXPECT_EQ(scaled[0], plain[0]);
  EXPECT_FLOAT_EQ(scaled[7] * 7, plain[7]);
  for (size_t i = 1; i < 8; ++i) EXPECT_LT(scaled[i], plain[i]);
}

TEST(Rope, PositionZeroDoesNotTurn) {
  ModelConfig config;
  config.head_dim = 6;
  config.rope_theta = 10000;
  const RopeTables tables = make_rope_tables(config, 1);
  EXPECT_EQ(tables.cos, (std::vector<float>{1, 1, 1}));
  EXPECT_EQ(tables.sin, (std::vector<float>{0, 0, 0}));
}

}  // namespace
}  // namespace atom::model
