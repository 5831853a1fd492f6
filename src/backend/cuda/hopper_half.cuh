// Warpgroup matrix products of f16 with sums in f32 (wgmma of sm_90a): 64 rows of A by a B of 64 or 96 columns and 16 deep.
// products_begin(), products_commit() and products_wait() of hopper.cuh order them.
#pragma once

#include <cstdint>

namespace atom::backend::cuda::hopper {

// Where B has its 16 x 64 values: kRows: 64 rows of 16 (one a column of B), kColumns: 16 rows of 64. Both lie in a panel of
// 64 rows of 128 bytes with the 128-byte swizzle: swizzled_tile(panel) + 2 k takes columns 16 k .. of the panel's rows,
// swizzled_tile(panel) + 128 k its rows 16 k ..
enum class Panel { kRows, kColumns };

#define ATOM_FLOATS_8(d, i)                                                                   \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define ATOM_FLOATS_32(d) \
  ATOM_FLOATS_8(d, 0), ATOM_FLOATS_8(d, 8), ATOM_FLOATS_8(d, 16), ATOM_FLOATS_8(d, 24)
#define ATOM_FLOATS_48(d) ATOM_FLOATS_32(d), ATOM_FLOATS_8(d, 32), ATOM_FLOATS_8(d, 40)
#define ATOM_FLOAT_NAMES_32                                                                     \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, " \
  "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}"
#define ATOM_FLOAT_NAMES_48                                                                     \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, " \
  "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, "  \
  "%38, %39, %40, %41, %42, %43, %44, %45, %46, %47}"

// d = A * B, or d += A * B with `add`. Thread t of the warpgroup, g = t % 32 / 4, c = t % 4, holds d[4 j + 2 h + e] = row
// t / 32 * 16 + g + 8 h, column 8 j + 2 c + e, and A as Halves16 does: a[0], a[1] have columns 2 c, 2 c + 1 of rows g and
// g + 8, a[2], a[3] the columns 8 further.
template <Panel kPanel>
__device__ __forceinline__ void multiply_halves(float (&d)[32], const uint32_t (&a)[4], uint64_t b,
                                                bool add) {
  asm volatile(
      "{\n.reg .pred add;\nsetp.ne.b32 add, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 " ATOM_FLOAT_NAMES_32
      ", {%32, %33, %34, %35}, %36, add, 1, 1, %38;\n}"
      : ATOM_FLOATS_32(d)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)),
        "n"(kPanel == Panel::kColumns ? 1 : 0));
}
// The same with A in a panel: 64 rows of 16.
template <Panel kPanel>
__device__ __forceinline__ void multiply_halves(float (&d)[32], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{\n.reg .pred add;\nsetp.ne.b32 add, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 " ATOM_FLOAT_NAMES_32
      ", %32, %33, add, 1, 1, 0, %35;\n}"
      : ATOM_FLOATS_32(d)
      : "l"(a), "l"(b), "r"(static_cast<int>(add)), "n"(kPanel == Panel::kColumns ? 1 : 0));
}
// The same of 96 columns; b has two panels, one behind the other, of the second the first half.
template <Panel kPanel>
__device__ __forceinline__ void multiply_halves(float (&d)[48], const uint32_t (&a)[4], uint64_t b,
                                                bool add) {
  static_assert(kPanel == Panel::kColumns, "64 rows are 64 columns of B");
  constexpr uint64_t kNextPanel = uint64_t{64 * 128 / 16 - 1} << 16;  // instead of 1
  asm volatile(
      "{\n.reg .pred add;\nsetp.ne.b32 add, %53, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n96k16.f32.f16.f16 " ATOM_FLOAT_NAMES_48
      ", {%48, %49, %50, %51}, %52, add, 1, 1, 1;\n}"
      : ATOM_FLOATS_48(d)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b + kNextPanel),
        "r"(static_cast<int>(add)));
}
#undef ATOM_FLOATS_8
#undef ATOM_FLOATS_32
#undef ATOM_FLOATS_48
#undef ATOM_FLOAT_NAMES_32
#undef ATOM_FLOAT_NAMES_48

// Keeps the compiler from moving uses of the sums across this point.
__device__ __forceinline__ void pin(float (&sums)[32]) {
#pragma unroll
  for (float& sum : sums) asm volatile("" : "+f"(sum)::"memory");
}

// (x & kMask) | bits in one operation: the compiler makes two of two constants.
template <uint32_t kMask>
__device__ __forceinline__ uint32_t masked_or(uint32_t x, uint32_t bits) {
  uint32_t y;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(y) : "r"(x), "n"(kMask), "r"(bits));
  return y;
}

}  // namespace atom::backend::cuda::hopper
