// E4M3, E8M0 and E2M1 against their definitions in f64.
#include "format/float8.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/random.h"

namespace atom::format {
namespace {

double e4m3_value(int bits) {
  const int exponent = bits >> 3, mantissa = bits & 7;
  return exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
}

TEST(E4M3, EveryPatternIsItsOwnNearest) {
  for (int bits = 0; bits <= kE4M3Largest; ++bits) {
    const float value = e4m3_to_f32(static_cast<uint8_t>(bits));
    EXPECT_EQ(double{value}, e4m3_value(bits)) << bits;
    EXPECT_EQ(f32_to_e4m3(value), bits);
  }
  EXPECT_EQ(e4m3_to_f32(kE4M3One), 1.0f);
  EXPECT_EQ(e4m3_to_f32(kE4M3Largest), 448.0f);
}

TEST(E4M3, RoundsHalfToEvenAndSaturates) {
  for (int bits = 0; bits < kE4M3Largest; ++bits) {
    // Exact in f32: both have at most four significant bits.
    const float middle = static_cast<float>((e4m3_value(bits) + e4m3_value(bits + 1)) / 2);
    EXPECT_EQ(f32_to_e4m3(middle), bits + bits % 2) << bits;
    EXPECT_EQ(f32_to_e4m3(std::nextafter(middle, 0.0f)), bits);
    EXPECT_EQ(f32_to_e4m3(std::nextafter(middle, 1e9f)), bits + 1);
  }
  for (const float large : {448.1f, 464.0f, 480.0f, 1e30f, INFINITY})
    EXPECT_EQ(f32_to_e4m3(large), kE4M3Largest) << large;
}

TEST(E8M0, IsTheExponentLessTwo) {
  for (int exponent = -126; exponent <= 127; ++exponent)
    for (const double mantissa : {1.0, 1.5, 2.0 - std::ldexp(1.0, -23)}) {
      const auto absmax = static_cast<float>(std::ldexp(mantissa, exponent));
      const uint8_t bits = e8m0_of(absmax);
      const double scale = std::ldexp(1.0, std::max(exponent - 2, -127));
      EXPECT_EQ(double{e8m0_to_f32(bits)}, scale) << absmax;
    }
  EXPECT_EQ(e8m0_of(1e-42f), 0);
  EXPECT_EQ(double{e8m0_to_f32(0)}, std::ldexp(1.0, -127));
  EXPECT_EQ(e8m0_to_f32(kE8M0One), 1.0f);
}

TEST(E2M1, PatternsRoundTrip) {
  const double values[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
  for (int pattern = 0; pattern < 16; ++pattern) {
    const double sign = pattern < 8 ? 1 : -1;
    EXPECT_EQ(kE2M1Codes[pattern], sign * 2 * values[pattern % 8]);
    EXPECT_EQ(e2m1_pattern(kE2M1Codes[pattern]), pattern == 8 ? 0 : pattern);
  }
}

TEST(E2M1, TakesTheNearestValueAndTheEvenPattern) {
  Random random(7);
  for (int i = 0; i < 100000; ++i) {
    // Every fourth lies on a tie or on a value.
    const float x = i % 4 == 0 ? static_cast<float>(static_cast<int>(random.below(61)) - 30) / 2
                               : static_cast<float>(6 * random.normal());
    int best = 0;
    for (int pattern = 1; pattern < 8; ++pattern) {
      const double gain =
          std::abs(std::abs(x) - kE2M1Codes[best]) - std::abs(std::abs(x) - kE2M1Codes[pattern]);
      if (gain > 0 || (gain == 0 && pattern % 2 == 0)) best = pattern;
    }
    ASSERT_EQ(e2m1_code(x), x < 0 ? -kE2M1Codes[best] : kE2M1Codes[best]) << x;
  }
  EXPECT_EQ(e2m1_code(NAN), 0);
  EXPECT_EQ(e2m1_code(INFINITY), 12);
  EXPECT_EQ(e2m1_code(-1e30f), -12);
}

}  // namespace
}  // namespace atom::format
