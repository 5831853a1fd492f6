// Instructions of one warp that CUDA C++ has no words for, or that must stay where they are written: reads of shared
// memory that the copy engines fill, f16 matrix products and what moves their operands (PTX ISA 8.0). Addresses of
// shared memory are 32-bit.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

namespace atom::backend::cuda::hopper {

// ---- shared memory. Volatile: reads stay behind the wait for the copy, writes before what follows.

__device__ __forceinline__ uint32_t load_word(uint32_t at) {
  uint32_t x;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(x) : "r"(at) : "memory");
  return x;
}
// 1, 2 or 4 words; `at` is a multiple of their size.
template <int kWords>
__device__ __forceinline__ void load_words(uint32_t (&w)[kWords], uint32_t at) {
  static_assert(kWords == 1 || kWords == 2 || kWords == 4);
  if constexpr (kWords == 1)
    w[0] = load_word(at);
  else if constexpr (kWords == 2)
    asm volatile("ld.shared.v2.u32 {%0,%1}, [%2];" : "=r"(w[0]), "=r"(w[1]) : "r"(at) : "memory");
  else
    asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(w[0]), "=r"(w[1]), "=r"(w[2]), "=r"(w[3])
                 : "r"(at)
                 : "memory");
}
__device__ __forceinline__ int4 load_quad(uint32_t at) {
  int4 v;
  asm volatile("ld.shared.v4.s32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(at)
               : "memory");
  return v;
}
__device__ __forceinline__ void store_word(uint32_t at, uint32_t x) {
  asm volatile("st.shared.u32 [%0], %1;" ::"r"(at), "r"(x) : "memory");
}
__device__ __forceinline__ void clear_words(uint32_t at) {  // four
  asm volatile("st.shared.v4.u32 [%0], {%1,%1,%1,%1};" ::"r"(at), "r"(0) : "memory");
}
// Four tiles of 8 x 8 halves, transposed; lane 8 i + r has the address of row r of tile i.
__device__ __forceinline__ void load_transposed(uint32_t (&w)[4], uint32_t at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(w[0]), "=r"(w[1]), "=r"(w[2]), "=r"(w[3])
               : "r"(at)
               : "memory");
}
// Two of them, 8 i + r for i below 2.
__device__ __forceinline__ void load_transposed(uint32_t (&w)[2], uint32_t at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
               : "=r"(w[0]), "=r"(w[1])
               : "r"(at)
               : "memory");
}
// Sixteen bytes of this thread, to shared memory; complete after copies_wait().
__device__ __forceinline__ void copy_quad(uint32_t to, const void* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

// The same past the L1 cache, for what nobody reads again.
__device__ __forceinline__ void copy_quad_past(uint32_t to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

// ---- global memory that other blocks write while this one runs

__device__ __forceinline__ float2 load_relaxed2(const float* from) {
  float2 v;
  asm volatile("ld.relaxed.gpu.global.v2.f32 {%0,%1}, [%2];"
               : "=f"(v.x), "=f"(v.y)
               : "l"(from)
               : "memory");
  return v;
}
__device__ __forceinline__ float4 load_relaxed4(const float* from) {
  float4 v;
  asm volatile("ld.relaxed.gpu.global.v4.f32 {%0,%1,%2,%3}, [%4];"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
               : "l"(from)
               : "memory");
  return v;
}

// ---- registers

// Operand A of multiply(): 16 x 16 halves. Lane 4 g + c has columns 2 c, 2 c + 1 of row g (a0) and of row g + 8 (a1),
// and the columns 8 further (a2, a3).
struct Halves16 {
  uint32_t a0, a1, a2, a3;
};
// d += A * B, 16 x 8 sums in f32: d[2 r + j] is row g + 8 r, column 2 c + j. B: b0 has rows 2 c, 2 c + 1 of column g,
// b1 the rows 8 further.
__device__ __forceinline__ void multiply(float (&d)[4], const Halves16& a, uint32_t b0,
                                         uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a.a0), "r"(a.a1), "r"(a.a2), "r"(a.a3), "r"(b0), "r"(b1));
}
__device__ __forceinline__ uint32_t transpose_tile(uint32_t x) {  // 8 x 8 halves across the warp
  uint32_t y;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace atom::backend::cuda::hopper
