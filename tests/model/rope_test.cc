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
