// Parameters and codes of a KV vector with the bits of kv_params() and clamped_code(), without divisions.
#pragma once

#include "backend/cuda/numbers.cuh"

namespace atom::backend::cuda::hopper {

// The bits of kv_params. An estimate corrected once is the quotient (Markstein 1990): 1 / high is rounded to nearest, and
// what becomes subnormal on the way is 0 in f16. Beyond 1e30 it is infinite in f16.
__device__ __forceinline__ KvParams quick_params(float least, float most, bool finite, float high,
                                                 float clip) {
  const float per_high = high > 15.0f ? 1.0f / 255.0f : 1.0f / 15.0f;
  const float width = most - least, clipped = fminf(width * clip, 1e30f);
  const float estimate = clipped * per_high;
  const uint16_t step = f32_to_f16(fmaf(fmaf(-high, estimate, clipped), per_high, estimate));
  const uint16_t lo = f32_to_f16(least + width * ((1.0f - clip) / 2.0f));
  if (!finite) return {0x7e00, 0x7e00};
  return {lo, step == 0 ? uint16_t{0x3c00} : step};
}
// 1 / step has its bits for every finite step in f16. Others, NaN here, give codes 0 as their reciprocals would.
__device__ __forceinline__ float quick_reciprocal(float step) {
  float seed;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(seed) : "f"(step));
  return fmaf(seed, fmaf(-step, seed, 1.0f), seed);
}
// A code in the low bits of 0x4b400000; 0 of NaN, as clamped_code() has it.
__device__ __forceinline__ uint32_t quick_code(float x, float inv, float high) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23
  return __float_as_uint(fminf(fmaxf(x * inv, 0.0f), high) + kRound);
}

}  // namespace atom::backend::cuda::hopper
