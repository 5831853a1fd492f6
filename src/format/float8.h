// Floating point of eight and four bits: E4M3 and E8M0, which scale groups, and E2M1, whose values are codes
// (OCP Microscaling Formats 1.0; docs/formats.md). Plain functions, so that they mean the same on every device.
//
//   e4m3_to_f32(f32_to_e4m3(300.0f));   // 288
//   e8m0_to_f32(e8m0_of(5.0f));         // 1: 5 lies in 4 .. 8, and 4 is the largest power of two of E2M1
//   e2m1_code(2.6f);                    // 3: twice 1.5, the value nearest to 2.6 / 2
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>

namespace atom::format {

inline constexpr uint8_t kE4M3One = 0x38, kE4M3Largest = 0x7e;  // 1 and 448
inline constexpr uint8_t kE8M0One = 127, kE8M0NaN = 255;

// Not negative. Bits up to kE4M3Largest; 0x7f is the NaN.
inline float e4m3_to_f32(uint8_t bits) {
  const uint32_t exponent = bits >> 3, mantissa = bits & 7u;
  if (exponent == 0) return static_cast<float>(mantissa) * 0x1p-9f;  // subnormal or zero
  return std::bit_cast<float>(((exponent + 120u) << 23) | (mantissa << 20));
}

// Of a value that is not negative and not NaN: half to even, 448 from there on.
inline uint8_t f32_to_e4m3(float value) {
  const float limited = std::min(value, 448.0f);
  if (limited < 0x1p-6f) return static_cast<uint8_t>(std::nearbyintf(limited * 512.0f));
  const uint32_t bits = std::bit_cast<uint32_t>(limited);
  return static_cast<uint8_t>(((bits + 0x7ffffu + ((bits >> 20) & 1u)) >> 20) - (120u << 3));
}

// 2^(bits - 127), exact; bits up to 254.
inline float e8m0_to_f32(uint8_t bits) {
  return std::bit_cast<float>(bits == 0 ? 0x00400000u : uint32_t{bits} << 23);
}

// floor(log2(absmax)) - 2 with the bias 127, at least 0; absmax is positive and finite.
inline uint8_t e8m0_of(float absmax) {
  const int exponent = static_cast<int>(std::bit_cast<uint32_t>(absmax) >> 23);
  return static_cast<uint8_t>(std::max(exponent - 2, 0));
}

// E2M1 codes are twice the value, so that they are integers: by pattern, sign in bit 3. -0 is 0.
inline constexpr int8_t kE2M1Codes[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// The pattern of a code.
inline uint8_t e2m1_pattern(int code) {
  const int magnitude = std::abs(code);
  const int index = magnitude <= 4 ? magnitude : magnitude / 4 + 4;  // 6, 8, 12: 5, 6, 7
  return static_cast<uint8_t>(index | (code < 0 ? 8 : 0));
}

// The code nearest to `x`, ties to the even pattern, at most 12; 0 for NaN. Codes lie 1 apart below 4, 2 below 8 and
// 4 above; each of these steps rounds half to even, which is half to the even pattern.
inline int e2m1_code(float x) {
  if (std::isnan(x)) return 0;
  const float limited = std::clamp(x, -12.0f, 12.0f), magnitude = std::abs(limited);
  const float step = magnitude < 4.0f ? 1.0f : magnitude < 8.0f ? 2.0f : 4.0f;
  return static_cast<int>(std::nearbyintf(limited / step) * step);
}

}  // namespace atom::format
