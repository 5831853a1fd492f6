// The definition of every quantizer, one group at a time, in scalar code (docs/formats.md).
// `reference` and the solver call these functions; faster backends must give the same codes and
// scale bits.
//
//   const float s = int4_scale(absmax(x), clip);      // activation group
//   quantize_group(x, s, Int4{}, codes);
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>

#include "format/float16.h"
#include "format/list.h"

namespace atom::format {

// Largest magnitude. A NaN or an infinity anywhere gives NaN (nothing is dropped silently).
inline float absmax(std::span<const float> values) {
  uint32_t largest =
      0;  // magnitudes of floats order like their bit patterns; NaN and infinity are on top
  for (const float v : values)
    largest = std::max(largest, std::bit_cast<uint32_t>(v) & 0x7fffffffu);
  return largest >= 0x7f800000u ? std::numeric_limits<float>::quiet_NaN()
                                : std::bit_cast<float>(largest);
}

// Scale of a symmetric group. An all-zero group has scale 1; a NaN absmax gives a NaN scale.
inline float int8_scale(float absmax) { return absmax == 0.0f ? 1.0f : absmax / 127.0f; }
inline float int4_scale(float absmax, float clip) {
  return absmax == 0.0f ? 1.0f : absmax * (clip / 7.0f);
}

// A weight's group scale as stored: f16, at least 2^-24 so that it never vanishes.
// `scale` is what the solver asks for; overflow beyond f16 is the caller's error (isinf after
// widening).
inline uint16_t weight_scale_bits(float scale) { return std::max<uint16_t>(f32_to_f16(scale), 1); }

// Progressive int4: the row's scale, f32 of at least 2^-126 so that its inverse is finite, and each
// group's multiplier; the codes of a group are rounded with row scale * multiplier. What the solver
// asks for a group is absmax * (clip / 7), 0 where the group is all zeros; `largest` is the row's.
inline float progressive_row_scale(float largest) {
  return largest == 0.0f ? 1.0f : std::max(largest / 15.0f, 0x1p-126f);
}
inline uint8_t progressive_multiplier(float group_scale, float row_scale) {
  return static_cast<uint8_t>(std::clamp(std::nearbyintf(group_scale / row_scale), 1.0f, 15.0f));
}

// q = clamp(rne(x * inv), low, high), inv = 1 / s in f32. A NaN scale gives codes 0.
inline int quantize_code(float x, float inv, int low, int high) {
  const float r = std::nearbyintf(x * inv);  // default rounding mode: half to even
  return std::isnan(r)
             ? 0
             : static_cast<int>(std::clamp(r, static_cast<float>(low), static_cast<float>(high)));
}

template <typename Element>
void quantize_group(std::span<const float> x, float scale, Element, int8_t* codes) {
  const float inv = 1.0f / scale;
  for (size_t i = 0; i < x.size(); ++i)
    codes[i] = static_cast<int8_t>(quantize_code(x[i], inv, Element::kLow, Element::kHigh));
}

// KV-cache parameters of one vector: x = lo + step * q, q in 0..high, both f16.
struct KvParams {
  uint16_t lo = 0;    // f16 bits of the minimum
  uint16_t step = 0;  // f16 bits of (max - min) / high; 1.0 when all values are equal
};

inline KvParams kv_params(std::span<const float> x, int high) {
  float lo = x[0], hi = x[0];
  bool finite = true;
  for (const float v : x) {
    finite = finite && std::isfinite(v);
    lo = std::min(lo, v);
    hi = std::max(hi, v);
  }
  constexpr uint16_t kNaN = 0x7e00, kOne = 0x3c00;
  if (!finite) return {kNaN, kNaN};
  const uint16_t step = f32_to_f16((hi - lo) / static_cast<float>(high));
  return {f32_to_f16(lo), step == 0 ? kOne : step};
}

inline int kv_code(float x, float lo, float inv_step, int high) {
  return quantize_code(x - lo, inv_step, 0, high);
}

// int4 packing of the checkpoint: code + 8 in nibble i % 8 of word i / 8, low nibble first.
inline int unpack_int4(const uint32_t* words, int64_t i) {
  return static_cast<int>((words[i / 8] >> (4 * (i % 8))) & 15u) - 8;
}
inline void pack_int4(std::span<const int8_t> codes, uint32_t* words) {
  for (size_t w = 0; w * 8 < codes.size(); ++w) {
    uint32_t word = 0;
    for (size_t i = w * 8; i < std::min(codes.size(), w * 8 + 8); ++i)
      word |= static_cast<uint32_t>(codes[i] + 8) << (4 * (i % 8));
    words[w] = word;
  }
}

}  // namespace atom::format
