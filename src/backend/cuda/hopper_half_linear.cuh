// What the kernels of hopper_half_linear.h share: int4 codes to operand registers, boxes of inputs, rows of an expert.
#pragma once

#include "backend/cuda/hopper_half_linear.h"
#include "backend/cuda/hopper_half_product.cuh"

namespace atom::backend::cuda::hopper {

// The box of a map of three dimensions: columns from 0, rows from `row`, panels from `panel`.
__device__ __forceinline__ void copy_panels(uint32_t to, const CUtensorMap* map, int row, int panel,
                                            uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, "
      "%3, %4}], [%5];" ::"r"(to),
      "l"(map), "r"(0), "r"(row), "r"(panel), "r"(barrier)
      : "memory");
}

__device__ __forceinline__ int slots_along(int k) {
  return (k + kHalfSlotInputs - 1) / kHalfSlotInputs;
}

struct HalfSpan {
  int begin, end;
};
__device__ __forceinline__ HalfSpan rows_of(const HalfTask& t) {
  if (t.row_ends == nullptr) return {0, t.x.rows};
  return {t.expert == 0 ? 0 : __ldcg(t.row_ends + t.expert - 1), __ldcg(t.row_ends + t.expert)};
}

// Where a thread of a warpgroup finds its part of an int4 slot, and its first output; the other is 8 further.
struct HalfLane {
  int code_at;   // of the first 64 inputs
  int steps_at;  // of both outputs, two f16
  int output;

  __device__ explicit HalfLane(int thread)
      : code_at(thread * 16),
        steps_at(thread / 32 * 32 + thread % 32 / 4 * 4),
        output(thread / 32 * 16 + thread % 32 / 4) {}
};

__device__ __forceinline__ uint32_t fma_halves(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t d;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}
__device__ __forceinline__ uint32_t multiply_halves(uint32_t a, uint32_t b) {
  uint32_t c;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(c) : "r"(a), "r"(b));
  return c;
}

// Nibbles u = code + 8 at bits 0 and 16 of a word are the f16 u * 2^-24, at bits 4 and 20 u * 2^-20, both subnormal. One
// fused multiply-add makes the f16 nearest to code * step * 2^-24 of it: u * step - 8 * step. Nibbles of a thread's first
// output are the lower ones, of its second the upper ones.
struct HalfSteps {
  uint32_t step[2], offset[2];  // of both outputs, each twice; step[1] times 2^-4

  __device__ __forceinline__ void load(const uint8_t* steps, const HalfLane& lane) {
    constexpr uint32_t kMinus2ToMinus21 = 0x80088008u, k2ToMinus4 = 0x2c002c00u;
    const uint32_t both = *reinterpret_cast<const uint32_t*>(steps + lane.steps_at);
    const uint32_t first = __byte_perm(both, 0, 0x1010), second = __byte_perm(both, 0, 0x3232);
    step[0] = first;
    step[1] = multiply_halves(second, k2ToMinus4);
    offset[0] = multiply_halves(first, kMinus2ToMinus21);
    offset[1] = multiply_halves(second, kMinus2ToMinus21);
  }
};

// 64 inputs of an int4 slot: four steps of 16.
struct HalfOperand {
  uint32_t step[4][4];

  __device__ __forceinline__ void load(const uint8_t* codes, const HalfLane& lane,
                                       const HalfSteps& steps) {
    const uint4 u = *reinterpret_cast<const uint4*>(codes + lane.code_at);
    const uint32_t words[4] = {u.x, u.y, u.z, u.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t low = words[i], high = words[i] >> 8;
      step[i][0] = fma_halves(low & 0x000f000fu, steps.step[0], steps.offset[0]);
      step[i][1] = fma_halves(low & 0x00f000f0u, steps.step[1], steps.offset[1]);
      step[i][2] = fma_halves(high & 0x000f000fu, steps.step[0], steps.offset[0]);
      step[i][3] = fma_halves(high & 0x00f000f0u, steps.step[1], steps.offset[1]);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) pin(step[i]);  // widen here, not between two products
  }
  template <int kN>
  __device__ __forceinline__ void multiply(float (&sums)[kN / 2], uint64_t panel) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) HalfProduct<kN>::add(sums, step[i], panel + 2 * i);
  }
};

}  // namespace atom::backend::cuda::hopper
