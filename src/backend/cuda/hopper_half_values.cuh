// Rows of f32 as those of HalfRows: f16, after a power of two has brought the largest finite magnitude to [2^14, 2^15).
#pragma once

#include <cuda_fp16.h>

#include "backend/cuda/hopper_half_linear.h"

namespace atom::backend::cuda::hopper {

// HalfRows::pitch().
__device__ __forceinline__ int half_pitch(int k) {
  return (k + kHalfSlotInputs - 1) / kHalfSlotInputs * kHalfSlotInputs;
}

// Bits of the larger magnitude, of those that are finite.
__device__ __forceinline__ uint32_t larger_finite(uint32_t most, float x) {
  constexpr uint32_t kInfinity = 0x7f800000u;
  const uint32_t bits = __float_as_uint(x) & 0x7fffffffu;
  return bits < kInfinity ? max(most, bits) : most;
}

// A row's power of two: x = value * factor. It and its inverse are normal numbers.
class HalfFactor {
 public:
  // most: bits of the largest finite magnitude.
  __device__ __forceinline__ explicit HalfFactor(uint32_t most)
      : exponent_(most == 0 ? 127 + 14 : max(most >> 23, 15u)) {}
  __device__ __forceinline__ float value() const { return __uint_as_float((exponent_ - 14) << 23); }
  __device__ __forceinline__ float inverse() const {
    return __uint_as_float((127 + 127 + 14 - exponent_) << 23);
  }

 private:
  uint32_t exponent_;
};

// Four values in f16; scale: a row's HalfFactor::inverse().
__device__ __forceinline__ uint2 scaled_halves(const float (&v)[4], float scale) {
  const __half2 a = __floats2half2_rn(v[0] * scale, v[1] * scale);
  const __half2 b = __floats2half2_rn(v[2] * scale, v[3] * scale);
  return make_uint2(*reinterpret_cast<const uint32_t*>(&a), *reinterpret_cast<const uint32_t*>(&b));
}

}  // namespace atom::backend::cuda::hopper
