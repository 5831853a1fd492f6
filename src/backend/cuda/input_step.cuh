// From the values of a group to its step and codes: what every kernel that quantizes a linear's input shares. The
// bits are those of format/quantize.h (docs/formats.md, section 2).
#pragma once

#include "backend/cuda/numbers.cuh"

namespace atom::backend::cuda {

// A value as a number that orders by magnitude, then positive before negative: of a group, the largest key is that of
// the value that an int4 step with a sign follows from, and its upper 31 bits are the largest magnitude.
__device__ inline uint32_t extreme_key(float x) {
  const uint32_t bits = __float_as_uint(x) ^ 0x80000000u;
  return bits << 1 | bits >> 31;
}
// NaN when any value of the group was NaN or infinite.
__device__ inline float absmax_of_key(uint32_t key) {
  return key >> 1 >= kInfinityBits ? quiet_nan() : __uint_as_float(key >> 1);
}

// What divides the scales of an nvfp4 row of that absmax.
__device__ inline float nvfp4_global(float absmax) {
  if (isnan(absmax)) return absmax;
  return absmax == 0.0f ? 1.0f : 2688.0f / fmaxf(absmax, 0x1p-114f);
}

// format::input_step; not of kInt4Signed.
__device__ inline float input_step(Scaling scaling, float absmax, float clip, float global) {
  if (isnan(absmax) || isnan(global)) return quiet_nan();
  switch (scaling) {
    case Scaling::kInt8:
      return absmax == 0.0f ? 1.0f : absmax / 127.0f;
    case Scaling::kE2M1:
      return absmax == 0.0f ? 0.5f : absmax * (clip / 12.0f);
    case Scaling::kMxfp4:
      return absmax == 0.0f ? 0.5f : 0.5f * mxfp4_scale(absmax);
    case Scaling::kNvfp4: {
      constexpr uint32_t kOne = 0x38;
      const uint32_t bits = absmax == 0.0f ? kOne : max(f32_to_e4m3(absmax / 6.0f * global), 1u);
      return 0.5f * e4m3_to_f32(bits) / global;
    }
    case Scaling::kInt4:
    case Scaling::kInt4Signed:
      break;
  }
  return absmax == 0.0f ? 1.0f : absmax * (clip / 7.0f);
}
// Of kInt4Signed: `value` is the one of largest magnitude.
__device__ inline float signed_step(float value, float clip) {
  return value == 0.0f ? 1.0f : value * (clip / -8.0f);
}

__device__ inline int input_code(Scaling scaling, float x, float inv) {
  switch (scaling) {
    case Scaling::kInt8:
      return clamped_code(x, inv, -127.0f, 127.0f);
    case Scaling::kInt4:
    case Scaling::kInt4Signed:
      return clamped_code(x, inv, -8.0f, 7.0f);
    default:
      return e2m1_code(x * inv);
  }
}

}  // namespace atom::backend::cuda
