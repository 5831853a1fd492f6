// Warpgroup matrix products of f16 with sums in f32 (wgmma of sm_90a) for linears: 64 rows of A, in registers or in shared
// memory, by a B of kN rows (one a column of the product), 16 deep. products_begin(), products_commit() and
// products_wait() of hopper.cuh order them.
#pragma once

#include "backend/cuda/hopper.cuh"

namespace atom::backend::cuda::hopper {

// d += A * B^T. Thread t of the warpgroup, g = t % 32 / 4, c = t % 4, holds d[4 j + 2 h + e] = row t / 32 * 16 + g + 8 h of A
// and row 8 j + 2 c + e of B. A in registers: a[0], a[1] have columns 2 c, 2 c + 1 of rows g and g + 8, a[2], a[3] the
// columns 8 further. In shared memory A and B are panels of rows of 128 bytes (swizzled_tile); 16 columns further: + 2.
template <int kN>
struct HalfProduct;

#define ATOM_SUMS_4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define ATOM_SUMS_8(d, i) ATOM_SUMS_4(d, i), ATOM_SUMS_4(d, i + 4)
#define ATOM_SUMS_16(d, i) ATOM_SUMS_8(d, i), ATOM_SUMS_8(d, i + 8)
#define ATOM_SUMS_32(d, i) ATOM_SUMS_16(d, i), ATOM_SUMS_16(d, i + 16)
#define ATOM_SUMS_64(d, i) ATOM_SUMS_32(d, i), ATOM_SUMS_32(d, i + 32)
#define ATOM_SUMS_128(d, i) ATOM_SUMS_64(d, i), ATOM_SUMS_64(d, i + 64)

// kN columns, their sums' count and the numbers of the operands behind them.
#define ATOM_HALF_PRODUCT(N, COUNT, O0, O1, O2, O3, O4)                                          \
  template <>                                                                                    \
  struct HalfProduct<N> {                                                                        \
    static __device__ __forceinline__ void add(float (&d)[COUNT], const uint32_t (&a)[4],        \
                                               uint64_t b) {                                     \
      asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.f16.f16 {" ATOM_NAMES_##COUNT \
                   "}, {%" #O0 ", %" #O1 ", %" #O2 ", %" #O3 "}, %" #O4 ", 1, 1, 1, 0;"          \
                   : ATOM_SUMS_##COUNT(d, 0)                                                     \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                        \
    }                                                                                            \
    static __device__ __forceinline__ void add(float (&d)[COUNT], uint64_t a, uint64_t b) {      \
      asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.f16.f16 {" ATOM_NAMES_##COUNT \
                   "}, %" #O0 ", %" #O1 ", 1, 1, 1, 0, 0;"                                       \
                   : ATOM_SUMS_##COUNT(d, 0)                                                     \
                   : "l"(a), "l"(b));                                                            \
    }                                                                                            \
  };
ATOM_HALF_PRODUCT(8, 4, 4, 5, 6, 7, 8)
ATOM_HALF_PRODUCT(16, 8, 8, 9, 10, 11, 12)
ATOM_HALF_PRODUCT(32, 16, 16, 17, 18, 19, 20)
ATOM_HALF_PRODUCT(64, 32, 32, 33, 34, 35, 36)
ATOM_HALF_PRODUCT(128, 64, 64, 65, 66, 67, 68)
ATOM_HALF_PRODUCT(256, 128, 128, 129, 130, 131, 132)
#undef ATOM_HALF_PRODUCT
#undef ATOM_SUMS_4
#undef ATOM_SUMS_8
#undef ATOM_SUMS_16
#undef ATOM_SUMS_32
#undef ATOM_SUMS_64
#undef ATOM_SUMS_128

// Keeps the compiler from moving uses of the sums across this point.
template <int kCount>
__device__ __forceinline__ void pin_sums(float (&sums)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(sums[i])::"memory");
}

}  // namespace atom::backend::cuda::hopper
