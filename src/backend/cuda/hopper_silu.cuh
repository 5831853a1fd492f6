// silu(x) = x / (1 + exp(-x)) with one rounding from f64, as the plain gate computes it and with the same bits, at
// about half the instructions.
#pragma once

#include "backend/cuda/hopper.cuh"
#include "backend/cuda/numbers.cuh"

namespace atom::backend::cuda {

// The definition.
__device__ __forceinline__ float silu_of_f64(float x) {
  const double gate = x;
  return static_cast<float>(gate / (1.0 + exp(-gate)));
}

// Operands of f64 operations come from constant memory: as literals each would take two moves.
static __constant__ double silu_constants[] = {
    -1.4426950408889634,    // -log2(e)
    6755399441055744.0,     // 1.5 * 2^52: a sum's low word is the rounded integer
    0x1.63d136366db24p-20,  // of 2^f, from f^8 down
    0x1.00dc4a532fb8ep-16, 0x1.4308ac85aa947p-13, 0x1.5d8745a728441p-10, 0x1.3b2ab7181b755p-7,
    0x1.c6b08dd6fd234p-5,  0x1.ebfbdff823cedp-3,  0x1.62e42fef84cf0p-1,  1.0};

// x / (1 + exp(-x)) with a relative error below 2^-39, where |x| is at most 64: 2^y = 2^n 2^f, |f| <= 1/2, a
// polynomial of degree 8 in f (error 2^-39.7), a reciprocal by one step of third order from 20 bits.
__device__ __forceinline__ double silu_estimate(double x) {
  constexpr int kDegree = 8;
  const double* constants = silu_constants;
  const double shifted = fma(x, constants[0], constants[1]);
  const double f = fma(x, constants[0], constants[1] - shifted);
  double p = constants[2];
#pragma unroll
  for (int i = 0; i < kDegree; ++i) p = fma(p, f, constants[3 + i]);
  const double power =
      __hiloint2double(__double2hiint(p) + (__double2loint(shifted) << 20), __double2loint(p));
  const double below = 1.0 + power;
  const double seed = hopper::reciprocal_seed(below);
  const double off = fma(-below, seed, 1.0), near = x * seed;
  return fma(near, fma(off, off, off), near);
}

// Whether f32 may round the estimate otherwise than the exact value: it lies near the middle of two numbers. One in
// 4096 does.
__device__ __forceinline__ bool is_unsure(double estimate) {
  constexpr uint32_t kHalf = 1u << 28;    // half an ulp of f32, in ulps of f64
  constexpr uint32_t kUnsure = 1u << 16;  // 2^-37 or more of the value
  const uint32_t rest = static_cast<uint32_t>(__double2loint(estimate));
  return rest * 8 - (kHalf - kUnsure) * 8 <= 2 * kUnsure * 8;
}

// v becomes silu(v), but for the values of the mask that is returned, bit 4 i + j for v[i][j]: those the definition has
// to compute.
template <int kFours>
__device__ __forceinline__ uint32_t silu_but(float (&v)[kFours][4]) {
  constexpr float kMost = 64.0f;
  uint32_t unsure = 0;
  float most = 0;
#pragma unroll
  for (int i = 0; i < 4 * kFours; ++i) {
    float& x = v[i / 4][i % 4];
    const double estimate = silu_estimate(x);
    most = hopper::max_or_nan(most, fabsf(x));
    if (is_unsure(estimate)) unsure |= 1u << i;
    x = static_cast<float>(estimate);
  }
  return most <= kMost ? unsure : (2u << (4 * kFours - 1)) - 1;  // seldom: all of them
}

// ---- of f16

// An estimate in f32 that every call gives alike, a few ulps from silu(x), 50 near -60; the table says how many.
__device__ __forceinline__ float silu_near(float x) {
  float power, result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x * -1.442695041f));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(1.0f + power));
  return x * result;
}
// silu(x) of the f16 `bits`, of which the table has the offset.
__device__ __forceinline__ float silu_by_offset(float x, int offset) {
  return __int_as_float(__float_as_int(silu_near(x)) + offset);
}

}  // namespace atom::backend::cuda
