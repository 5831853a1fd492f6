// The numbers of docs/formats.md on the device; each function gives the bits of its namesake in src/format. The
// files that include this are compiled with -fmad=false: a product and a sum are two roundings unless fmaf says
// otherwise. Division, square root and subnormals are IEEE.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "backend/cuda/tasks.h"

namespace atom::backend::cuda {

inline constexpr uint32_t kInfinityBits = 0x7f800000u;

__device__ inline float quiet_nan() { return __uint_as_float(0x7fc00000u); }
__device__ inline uint32_t magnitude_bits(float x) { return __float_as_uint(x) & 0x7fffffffu; }

__device__ inline float bf16_to_f32(uint16_t bits) { return __uint_as_float(uint32_t{bits} << 16); }
__device__ inline float f16_to_f32(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }
// Every NaN becomes 0x7e00.
__device__ inline uint16_t f32_to_f16(float x) {
  return isnan(x) ? uint16_t{0x7e00} : __half_as_ushort(__float2half_rn(x));
}
// The same, but finite values beyond the range, and infinities, become the largest of their sign.
__device__ inline uint16_t f32_to_f16_saturated(float x) {
  constexpr float kMost = 65504.0f;
  return f32_to_f16(isnan(x) ? x : fminf(fmaxf(x, -kMost), kMost));
}

// Bytes at any address.
__device__ inline uint16_t load_u16(const uint8_t* from) {
  return static_cast<uint16_t>(from[0] | (from[1] << 8));
}
__device__ inline void store_u16(uint8_t* to, uint16_t value) {
  to[0] = static_cast<uint8_t>(value);
  to[1] = static_cast<uint8_t>(value >> 8);
}

// E4M3 without sign: up to 0x7e, which is 448.
__device__ inline float e4m3_to_f32(uint32_t bits) {
  const uint32_t exponent = bits >> 3, mantissa = bits & 7u;
  if (exponent == 0) return static_cast<float>(mantissa) * (1.0f / 512.0f);
  return __uint_as_float(((exponent + 120u) << 23) | (mantissa << 20));
}
__device__ inline uint32_t f32_to_e4m3(float value) {
  const float limited = fminf(value, 448.0f);
  if (limited < 1.0f / 64.0f) return static_cast<uint32_t>(rintf(limited * 512.0f));
  const uint32_t bits = __float_as_uint(limited);
  return ((bits + 0x7ffffu + ((bits >> 20) & 1u)) >> 20) - (120u << 3);
}
// The power of two of OCP Microscaling: 2^(floor(log2(absmax)) - 2), absmax positive and finite.
__device__ inline float mxfp4_scale(float absmax) {
  const int exponent = static_cast<int>(__float_as_uint(absmax) >> 23);
  const int bits = max(exponent - 2, 0);
  return __uint_as_float(bits == 0 ? 0x00400000u : static_cast<uint32_t>(bits) << 23);
}

__device__ inline int clamped_code(float x, float inv, float low, float high) {
  const float r = rintf(x * inv);
  return isnan(r) ? 0 : static_cast<int>(fminf(fmaxf(r, low), high));
}
__device__ inline int e2m1_code(float x) {
  if (isnan(x)) return 0;
  const float limited = fminf(fmaxf(x, -12.0f), 12.0f), magnitude = fabsf(limited);
  const float step = magnitude < 4.0f ? 1.0f : magnitude < 8.0f ? 2.0f : 4.0f;
  const float per_step = magnitude < 4.0f ? 1.0f : magnitude < 8.0f ? 0.5f : 0.25f;
  return static_cast<int>(rintf(limited * per_step) * step);
}

// Two words of four s8 codes each from one word of eight nibbles, the first code in the lowest byte.
struct EightCodes {
  int first, second;
};
// Nibbles are code + 8.
__device__ inline EightCodes widen_int4(uint32_t word) {
  const uint32_t even = word & 0x0f0f0f0fu, odd = (word >> 4) & 0x0f0f0f0fu;
  return {static_cast<int>(__vsub4(__byte_perm(even, odd, 0x5140), 0x08080808u)),
          static_cast<int>(__vsub4(__byte_perm(even, odd, 0x7362), 0x08080808u))};
}
// Four E2M1 patterns to twice their values: magnitudes are looked up, then negated where bit 3 is set.
__device__ inline int widen_e2m1(uint32_t patterns) {
  const uint32_t magnitudes = __byte_perm(0x03020100u, 0x0c080604u, patterns & 0x7777u);
  const uint32_t negative = __byte_perm(0x0000ff00u, 0u, (patterns >> 3) & 0x1111u);
  return static_cast<int>(__vsub4(magnitudes ^ negative, negative));
}
__device__ inline EightCodes widen_nibbles(uint32_t word, Element element) {
  if (element == Element::kInt4) return widen_int4(word);
  return {widen_e2m1(word & 0xffffu), widen_e2m1(word >> 16)};
}

// One code of a row.
__device__ inline int code_at(const uint8_t* codes, int i, Element element) {
  if (element == Element::kInt8) return static_cast<int8_t>(codes[i]);
  const uint32_t nibble = (codes[i / 2] >> (4 * (i & 1))) & 15u;
  if (element == Element::kInt4) return static_cast<int>(nibble) - 8;
  const int magnitude = (0xc8643210u >> (4 * (nibble & 7u))) & 15u;
  return nibble & 8u ? -magnitude : magnitude;
}
// One value of a row of floats.
__device__ inline float value_at(const void* values, int64_t i, Element element) {
  if (element == Element::kF32) return static_cast<const float*>(values)[i];
  const uint16_t bits = static_cast<const uint16_t*>(values)[i];
  return element == Element::kF16 ? f16_to_f32(bits) : bf16_to_f32(bits);
}

// {lo, step} of one KV vector (format::kv_params).
struct KvParams {
  uint16_t lo, step;
};
__device__ inline KvParams kv_params(float lo, float hi, bool finite, float high, float clip) {
  if (!finite) return {0x7e00, 0x7e00};
  const float range = hi - lo;
  const uint16_t step = f32_to_f16(range * clip / high);
  return {f32_to_f16(lo + range * ((1.0f - clip) / 2.0f)), step == 0 ? uint16_t{0x3c00} : step};
}

}  // namespace atom::backend::cuda
