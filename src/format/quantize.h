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
#include "format/float8.h"
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

// With signed scales the value of largest magnitude (of two, the positive one) goes towards code -8, the one end of the
// codes that is longer: 16 steps instead of 15 span the group. `extreme` is that value; NaN as for absmax.
inline float extreme(std::span<const float> values) {
  const float largest = absmax(values);
  for (const float v : values)
    if (v == largest) return largest;
  return -largest;
}
inline float signed_int4_scale(float extreme, float clip) {
  return extreme == 0.0f ? 1.0f : extreme * (clip / -8.0f);
}

// A weight's group scale as stored: f16, at least 2^-24 in magnitude so that it never vanishes.
// `scale` is what the solver asks for; overflow beyond f16 is the caller's error (isinf after
// widening).
inline uint16_t weight_scale_bits(float scale) {
  const uint16_t bits = f32_to_f16(scale);
  return (bits & 0x7fffu) == 0 ? bits | 1u : bits;
}

// FP4. The global scale of nvfp4 divides: 6 * 448 / absmax of a weight's or an input's segment.
inline float nvfp4_global(float absmax) {
  return absmax == 0.0f ? 1.0f : 2688.0f / std::max(absmax, 0x1p-114f);  // finite; NaN stays
}

// The scale of an FP4 weight group as stored, for a magnitude `absmax` that shall become 6 / clip. A group of zeros
// has scale 1. e2m1: f16, at least 2^-24; overflow is the caller's error. mxfp4: no clip. nvfp4: at least 2^-9.
template <typename Element>
typename Element::Scale fp4_scale_bits(float absmax, float clip, float global) {
  if constexpr (Element::kGlobal)
    return absmax == 0.0f ? kE4M3One
                          : std::max<uint8_t>(f32_to_e4m3(absmax * clip / 6.0f * global), 1);
  else if constexpr (Element::kWeightScaleBytes == 1)
    return absmax == 0.0f ? kE8M0One : e8m0_of(absmax);
  else
    return weight_scale_bits(absmax == 0.0f ? 1.0f : absmax * (clip / 6.0f));
}

// How a group's scale is stored, and the value of one code.
struct GroupScale {
  uint16_t bits = 0;  // f16, or a byte
  float step = 0;
};
// Of an FP4 format known at run time.
inline GroupScale fp4_scale(Format format, float absmax, float clip, float global) {
  return visit(format, [&](auto f) -> GroupScale {
    using F = decltype(f);
    if constexpr (F::kInteger) {
      if constexpr (F::kE2M1) {
        const typename F::Scale bits = fp4_scale_bits<F>(absmax, clip, global);
        return {bits, F::step(bits) / global};
      }
    }
    return {};
  });
}

// The step of an input's group: half the scale of FP4, which e2m1 does not round to f16. `global` is the segment's.
template <typename Element>
float input_step(float absmax, float clip, float global) {
  if (!Element::kGlobal && absmax == 0.0f) return Element::kE2M1 ? 0.5f : 1.0f;
  if constexpr (!Element::kE2M1)
    return Element::kBits == 4 ? int4_scale(absmax, clip) : int8_scale(absmax);
  else if (std::isnan(absmax) || (Element::kGlobal && std::isnan(global)))
    return std::numeric_limits<float>::quiet_NaN();
  else if constexpr (Element::kWeightScaleBytes == 2)
    return absmax * (clip / 12.0f);
  else
    return Element::step(fp4_scale_bits<Element>(absmax, 1.0f, global)) /
           (Element::kGlobal ? global : 1.0f);
}

// Progressive int4: the row's scale, f32 of at least 2^-126 so that its inverse is finite, and each
// group's multiplier; the codes of a group are rounded with row scale * multiplier. What the solver
// asks for a group is absmax * (clip / 7), 0 where the group is all zeros; `largest` is the row's.
inline float progressive_row_scale(float largest) {
  return largest == 0.0f ? 1.0f : std::max(largest / 15.0f, 0x1p-126f);
}
inline int8_t progressive_multiplier(float group_scale, float row_scale) {
  const float magnitude =
      std::clamp(std::nearbyintf(std::abs(group_scale) / row_scale), 1.0f, 15.0f);
  return static_cast<int8_t>(group_scale < 0 ? -magnitude : magnitude);
}

// q = clamp(rne(x * inv), low, high), inv = 1 / s in f32. A NaN scale gives codes 0.
inline int quantize_code(float x, float inv, int low, int high) {
  const float r = std::nearbyintf(x * inv);  // default rounding mode: half to even
  return std::isnan(r)
             ? 0
             : static_cast<int>(std::clamp(r, static_cast<float>(low), static_cast<float>(high)));
}

template <typename Element>
int code_of(float x, float inv) {
  if constexpr (Element::kE2M1)
    return e2m1_code(x * inv);
  else
    return quantize_code(x, inv, Element::kLow, Element::kHigh);
}

// `scale` is that of one code: half the scale of FP4.
template <typename Element>
void quantize_group(std::span<const float> x, float scale, Element, int8_t* codes) {
  const float inv = 1.0f / scale;
  for (size_t i = 0; i < x.size(); ++i) codes[i] = static_cast<int8_t>(code_of<Element>(x[i], inv));
}

// Of a group's codes at either end of their range, all but one: that of the largest value, which the scale puts there. The
// others are values that a clip or a rounded scale cut, or that round to the end.
template <typename Element>
int saturated_codes(std::span<const int8_t> codes, Element) {
  int at_ends = 0;
  for (const int8_t code : codes)
    at_ends += static_cast<int>(code == Element::kLow) + static_cast<int>(code == Element::kHigh);
  return std::max(at_ends - 1, 0);
}

// Of all groups of one row's segment; 0 of a floating-point one.
inline int64_t saturated_in_segment(std::span<const int8_t> codes, Format format) {
  const auto group = static_cast<size_t>(group_size(format, static_cast<int>(codes.size())));
  return visit(format, [&](auto f) {
    int64_t count = 0;
    if constexpr (decltype(f)::kInteger)
      for (size_t at = 0; at < codes.size(); at += group)
        count += saturated_codes(codes.subspan(at, std::min(group, codes.size() - at)), f);
    return count;
  });
}

// KV-cache parameters of one vector: x = lo + step * q, q in 0..high, both f16. A clip c < 1 shortens the range around
// its middle: lo = min + (max - min) * ((1 - c) / 2), step = (max - min) * c / high.
struct KvParams {
  uint16_t lo = 0;    // f16 bits
  uint16_t step = 0;  // f16 bits; 1.0 when all values are equal
};

inline KvParams kv_params(std::span<const float> x, int high, float clip = 1.0f) {
  float lo = x[0], hi = x[0];
  bool finite = true;
  for (const float v : x) {
    finite = finite && std::isfinite(v);
    lo = std::min(lo, v);
    hi = std::max(hi, v);
  }
  constexpr uint16_t kNaN = 0x7e00, kOne = 0x3c00;
  if (!finite) return {kNaN, kNaN};
  const float range = hi - lo;
  const uint16_t step = f32_to_f16(range * clip / static_cast<float>(high));
  return {f32_to_f16(lo + range * ((1.0f - clip) / 2.0f)), step == 0 ? kOne : step};
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

// FP4: two patterns a byte, the even index in the low nibble; an odd row ends with a zero.
inline int unpack_e2m1(const uint8_t* bytes, int64_t i) {
  return kE2M1Codes[(bytes[i / 2] >> (4 * (i % 2))) & 15];
}
inline void pack_e2m1(std::span<const int8_t> codes, uint8_t* bytes) {
  for (size_t i = 0; i < codes.size(); i += 2) {
    const int next = i + 1 < codes.size() ? codes[i + 1] : 0;
    bytes[i / 2] = static_cast<uint8_t>(e2m1_pattern(codes[i]) | e2m1_pattern(next) << 4);
  }
}

// Of any integer element.
template <typename Element>
int unpack_code(const typename Element::Storage* stored, int64_t i) {
  if constexpr (Element::kE2M1)
    return unpack_e2m1(stored, i);
  else if constexpr (Element::kBits == 4)
    return unpack_int4(stored, i);
  else
    return stored[i];
}
template <typename Element>
void pack_codes(std::span<const int8_t> codes, typename Element::Storage* stored) {
  if constexpr (Element::kE2M1)
    pack_e2m1(codes, stored);
  else if constexpr (Element::kBits == 4)
    pack_int4(codes, stored);
  else
    std::copy(codes.begin(), codes.end(), stored);
}

}  // namespace atom::format
