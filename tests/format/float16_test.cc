#include "format/float16.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "base/random.h"

namespace atom::format {
namespace {

TEST(Float16, EveryHalfSurvivesTheRoundTrip) {
  for (uint32_t half = 0; half <= 0xffff; ++half) {
    const float wide = f16_to_f32(static_cast<uint16_t>(half));
    const uint16_t back = f32_to_f16(wide);
    if (std::isnan(wide))
      EXPECT_EQ(back, half | 0x200u);  // NaN becomes quiet and keeps sign and payload
    else
      EXPECT_EQ(back, half);
  }
}

TEST(Float16, EveryBrainFloatSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const float wide = bf16_to_f32(static_cast<uint16_t>(bits));
    const uint16_t back = f32_to_bf16(wide);
    if (std::isnan(wide))
      EXPECT_EQ(back, bits | 0x40u);
    else
      EXPECT_EQ(back, bits);
  }
}

TEST(Float16, WidensByTheDefinition) {
  for (uint32_t half = 0; half < 0x7c00; ++half) {
    const int exponent = static_cast<int>(half >> 10);
    const int mantissa = static_cast<int>(half & 0x3ff);
    const double value =
        exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
    EXPECT_EQ(double{f16_to_f32(static_cast<uint16_t>(half))}, value);
    EXPECT_EQ(double{f16_to_f32(static_cast<uint16_t>(half | 0x8000))}, -value);
  }
}

// The format with `fraction` bits and exponents from `lowest` to `highest`, rounded to half-even in
// f64: value / ulp is exact, because ulp is a power of two, and nearbyint does the rounding.
struct Narrow {
  int fraction, lowest, highest;

  double round(double value) const {
    int exponent = 0;
    std::frexp(value, &exponent);  // value = m * 2^exponent, 0.5 <= m < 1
    const double ulp = std::ldexp(1.0, std::max(exponent - 1, lowest) - fraction);
    const double rounded = std::nearbyint(value / ulp) * ulp;
    const double largest = std::ldexp(2.0, highest) - std::ldexp(1.0, highest - fraction);
    return std::abs(rounded) > largest ? std::copysign(INFINITY, value) : rounded;
  }
};

// Random bit patterns, and among them ties, neighbours of ties and the ends of the range.
float pattern(Random& random, int dropped_bits) {
  uint32_t bits = static_cast<uint32_t>(random.next());
  const uint64_t kind = random.below(4);
  if (kind == 0) {
    const uint32_t low = (1u << dropped_bits) - 1;
    const uint32_t half = 1u << (dropped_bits - 1);
    bits = (bits & ~low) | (half + static_cast<uint32_t>(random.below(3)) - 1);
  } else if (kind == 1) {  // exponents that f16 has, subnormals and overflow included
    const uint32_t exponent = 127 - 27 + static_cast<uint32_t>(random.below(44));
    bits = (bits & 0x807fffffu) | (exponent << 23);
  }
  return std::bit_cast<float>(bits);
}

TEST(Float16, RoundsHalfToEven) {
  constexpr Narrow kHalf{10, -14, 15}, kBrain{7, -126, 127};
  Random random(11);
  for (int i = 0; i < 1000000; ++i) {
    const float x = pattern(random, 13);
    if (!std::isfinite(x)) continue;
    const float got = f16_to_f32(f32_to_f16(x));
    ASSERT_EQ(double{got}, kHalf.round(double{x})) << x;
    ASSERT_EQ(std::signbit(got), std::signbit(x)) << x;
  }
  for (int i = 0; i < 1000000; ++i) {
    const float x = pattern(random, 16);
    if (!std::isfinite(x)) continue;
    const float got = bf16_to_f32(f32_to_bf16(x));
    ASSERT_EQ(double{got}, kBrain.round(double{x})) << x;
    ASSERT_EQ(std::signbit(got), std::signbit(x)) << x;
  }
}

TEST(Float16, KeepsInfinityAndNaN) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(f32_to_f16(kInfinity), 0x7c00);
  EXPECT_EQ(f32_to_f16(-kInfinity), 0xfc00);
  EXPECT_EQ(f32_to_bf16(kInfinity), 0x7f80);
  EXPECT_EQ(f32_to_bf16(-kInfinity), 0xff80);
  EXPECT_EQ(f32_to_f16(65519.996f), 0x7bff);
  EXPECT_EQ(f32_to_f16(65520.0f), 0x7c00);
  // A NaN whose payload lies in the dropped bits must not become an infinity.
  for (const uint32_t bits : {0x7f800001u, 0xff800001u, 0x7fffffffu, 0xffffffffu}) {
    const float nan = std::bit_cast<float>(bits);
    EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(nan))));
    EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(nan))));
  }
}

}  // namespace
}  // namespace atom::format
