// Instructions of sm_90a that CUDA C++ has no words for: barriers in shared memory, copies by the bulk and tensor
// copy engines, warpgroup matrix products with 8-bit operands, thread-block clusters and programmatic dependent
// launch (PTX ISA 8.0). Addresses of shared memory are 32-bit, of the CTA's own window.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace atom::backend::cuda::hopper {

__device__ __forceinline__ uint32_t shared_address(const void* data) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(data));
}

// ---- mbarrier: a phase ends when `count` threads have arrived and the bytes announced have been copied.

__device__ __forceinline__ void barrier_init(uint32_t barrier, uint32_t count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}
// Makes initialized barriers visible to the copy engines and to the cluster.
__device__ __forceinline__ void barrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
// Arrives, and announces `bytes`.
__device__ __forceinline__ void barrier_expect(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void barrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// Of a warp whose lanes have met, one lane arrives for all. compute-sanitizer's racecheck takes only lanes that arrive
// for synchronized, so a build for it lets all of them.
#ifdef ATOM_RACECHECK
inline constexpr int kWarpArrivals = 32;
#else
inline constexpr int kWarpArrivals = 1;
#endif
__device__ __forceinline__ bool arrives_for_warp() {
  return static_cast<int>(threadIdx.x) % 32 < kWarpArrivals;
}
__device__ __forceinline__ void warp_arrive(uint32_t barrier) {
  if (arrives_for_warp()) barrier_arrive(barrier);
}
// Waits for the end of the phase of parity `phase`. A wait for the phase after the one that is open returns at once:
// a thread that leaves out a phase must still wait for it.
__device__ __forceinline__ void barrier_wait(uint32_t barrier, uint32_t phase) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}" ::"r"(barrier),
      "r"(phase)
      : "memory");
}

// ---- copies to shared memory that complete on a barrier

__device__ __forceinline__ uint64_t evict_first_policy() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
// bytes: a multiple of 16; both addresses are multiples of 16.
__device__ __forceinline__ void copy_bulk(uint32_t to, const void* from, uint32_t bytes,
                                          uint32_t barrier, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], "
      "[%1], %2, [%3], %4;" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier), "l"(policy)
      : "memory");
}
// The box of `map` at column x, row y.
__device__ __forceinline__ void copy_box(uint32_t to, const CUtensorMap* map, int x, int y,
                                         uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, "
      "%3}], [%4];" ::"r"(to),
      "l"(map), "r"(x), "r"(y), "r"(barrier)
      : "memory");
}
// The same to the same place of every CTA of the cluster in `ranks` (bits), completing on the barrier of each.
__device__ __forceinline__ void copy_box_to(uint16_t ranks, uint32_t to, const CUtensorMap* map,
                                            int x, int y, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to),
      "l"(map), "r"(x), "r"(y), "r"(barrier), "h"(ranks)
      : "memory");
}
// A box of shared memory to the map's tensor, stored or added (f32); complete when the group it is committed with is.
__device__ __forceinline__ void store_box(const CUtensorMap* map, int x, int y, uint32_t from) {
  asm volatile(
      "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(map),
      "r"(x), "r"(y), "r"(from)
      : "memory");
}
__device__ __forceinline__ void add_box(const CUtensorMap* map, int x, int y, uint32_t from) {
  asm volatile(
      "cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.tile.bulk_group [%0, {%1, %2}], "
      "[%3];" ::"l"(map),
      "r"(x), "r"(y), "r"(from)
      : "memory");
}
// Asks for a box of the map's tensor in the L2 cache.
__device__ __forceinline__ void prefetch_box(const CUtensorMap* map, int x, int y) {
  asm volatile("cp.async.bulk.prefetch.tensor.2d.L2.global [%0, {%1, %2}];" ::"l"(map), "r"(x),
               "r"(y)
               : "memory");
}
__device__ __forceinline__ void boxes_commit() {
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
// Waits until shared memory of all but the last kPending groups has been read.
template <int kPending>
__device__ __forceinline__ void boxes_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kPending) : "memory");
}
// What this thread wrote to shared memory becomes visible to the copy engines.
__device__ __forceinline__ void copy_engine_fence() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
// Barrier `id` (1 .. 15) of 128 threads.
__device__ __forceinline__ void warpgroup_sync(int id) {
  asm volatile("bar.sync %0, 128;" ::"r"(id) : "memory");
}
__device__ __forceinline__ void prefetch_map(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// As copy_bulk, without a hint: for what others read again.
__device__ __forceinline__ void copy_bulk(uint32_t to, const void* from, uint32_t bytes,
                                          uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(to),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
}

// Four or eight bytes of this thread, to shared memory; complete after copies_wait().
__device__ __forceinline__ void copy_word(uint32_t to, const void* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(from) : "memory");
}
__device__ __forceinline__ void copy_pair(uint32_t to, const void* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(to), "l"(from) : "memory");
}
__device__ __forceinline__ void copies_wait() { asm volatile("cp.async.wait_all;" ::: "memory"); }
// Copies of this thread in groups; waits until all but the last kPending groups are complete.
__device__ __forceinline__ void copies_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int kPending>
__device__ __forceinline__ void copies_wait_but() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// ---- additions to global memory that return nothing, so that nobody waits; rounded to nearest as x + y

__device__ __forceinline__ void add_to(float* at, float value) {
  asm volatile("red.relaxed.gpu.global.add.f32 [%0], %1;" ::"l"(at), "f"(value) : "memory");
}
__device__ __forceinline__ void add_to(float4* at, const float4& v) {
  asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(at), "f"(v.x),
               "f"(v.y), "f"(v.z), "f"(v.w)
               : "memory");
}

// ---- results in f16: rounded to nearest; a finite one beyond the range becomes the largest of its sign, NaN stays

__device__ __forceinline__ uint32_t to_halves(float low, float high) {
  uint32_t both;
  asm("cvt.rn.satfinite.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
}
__device__ __forceinline__ uint16_t to_half(float value) {
  return static_cast<uint16_t>(to_halves(value, 0.0f));
}
// Four 8 x 8 tiles of f16, of which lane t has values (2 (t % 4), t / 4), low, and (2 (t % 4) + 1, t / 4) in a word each, become rows of
// 16 bytes: row t % 8 of tile t / 8 at lane t's address.
__device__ __forceinline__ void store_tiles(uint32_t at, uint32_t a, uint32_t b, uint32_t c,
                                            uint32_t d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(at),
               "r"(a), "r"(b), "r"(c), "r"(d)
               : "memory");
}

// ---- clusters, dependent launch, registers

__device__ __forceinline__ void cluster_arrive() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
__device__ __forceinline__ void cluster_wait() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
// The same by a thread whose warp does not meet it together.
__device__ __forceinline__ void cluster_wait_alone() {
  asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
}
// The address of `address` in the CTA of that rank.
__device__ __forceinline__ uint32_t of_rank(uint32_t address, uint32_t rank) {
  uint32_t result;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(result) : "r"(address), "r"(rank));
  return result;
}
__device__ __forceinline__ int4 load_of_cluster(uint32_t address) {
  int4 v;
  asm volatile("ld.shared::cluster.v4.s32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(address)
               : "memory");
  return v;
}
__device__ __forceinline__ void store_to_cluster(uint32_t address, const int4& v) {
  asm volatile("st.shared::cluster.v4.s32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(v.x),
               "r"(v.y), "r"(v.z), "r"(v.w)
               : "memory");
}
// Arrives at a barrier of another CTA: products and copies have read what it says is free.
__device__ __forceinline__ void barrier_arrive_at(uint32_t barrier_of_rank) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier_of_rank) : "memory");
}
// The same after stores that the waiter then reads.
__device__ __forceinline__ void barrier_release_at(uint32_t barrier_of_rank) {
  asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(barrier_of_rank)
               : "memory");
}
__device__ __forceinline__ void barrier_acquire(uint32_t barrier, uint32_t phase) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}" ::"r"(barrier),
      "r"(phase)
      : "memory");
}
__device__ __forceinline__ void launch_dependents() {
  asm volatile("griddepcontrol.launch_dependents;");
}
__device__ __forceinline__ void wait_for_previous_grid() {
  asm volatile("griddepcontrol.wait;" ::: "memory");
}
template <int kRegisters>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// The larger and the smaller one; NaN where either is.
__device__ __forceinline__ float max_or_nan(float a, float b) {
  float result;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
  return result;
}
__device__ __forceinline__ float min_or_nan(float a, float b) {
  float result;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
  return result;
}

// About 1 / x: a relative error below 2^-18, x normal and 1 / x too.
__device__ __forceinline__ double reciprocal_seed(double x) {
  double result;
  asm("rcp.approx.ftz.f64 %0, %1;" : "=d"(result) : "d"(x));
  return result;
}

// ---- warpgroup products

// A tile of rows of 128 bytes, K-major, stored with the 128-byte swizzle; its address is a multiple of 1024. 32
// bytes further along k: + 2.
__device__ __forceinline__ uint64_t swizzled_tile(uint32_t address) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  constexpr uint64_t kEightRows = uint64_t{1024 / 16} << 32;  // from 8 rows to the next 8
  return kSwizzle128 | kEightRows | (uint64_t{1} << 16) | ((address & 0x3ffff) >> 4);
}

__device__ __forceinline__ void products_begin() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void products_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kPending>
__device__ __forceinline__ void products_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// Keeps the compiler from moving uses of the registers across this point.
template <typename T, int kCount>
__device__ __forceinline__ void pin(T (&registers)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+r"(registers[i])::"memory");
}

template <int kCount>
__device__ __forceinline__ void pin(float (&registers)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(registers[i])::"memory");
}

// Four registers of A: 64 rows x 32 bytes. Thread t of the warpgroup holds rows r = t / 32 * 16 + t % 32 / 4 (at 0 and 2) and r + 8
// (at 1 and 3), bytes t % 4 * 4 .. + 3 (at 0 and 1) and 16 more (at 2 and 3).
struct Fragment {
  uint32_t at[4];
};

// add: d += A * B^T, start: d = A * B^T; 64 x kN sums in s32, of A in registers (signed or not) and of the signed tile b
// [kN, 32]. A thread holds d[4 j + 2 h + e] = sum of row r + 8 h and row 8 j + t % 4 * 2 + e of b.
template <int kN, bool kUnsigned>
struct Product;

#define ATOM_REGISTERS_4(d, i) "+r"(d[i]), "+r"(d[i + 1]), "+r"(d[i + 2]), "+r"(d[i + 3])
#define ATOM_REGISTERS_8(d, i) ATOM_REGISTERS_4(d, i), ATOM_REGISTERS_4(d, i + 4)
#define ATOM_REGISTERS_16(d, i) ATOM_REGISTERS_8(d, i), ATOM_REGISTERS_8(d, i + 8)
#define ATOM_REGISTERS_32(d, i) ATOM_REGISTERS_16(d, i), ATOM_REGISTERS_16(d, i + 16)
#define ATOM_REGISTERS_64(d, i) ATOM_REGISTERS_32(d, i), ATOM_REGISTERS_32(d, i + 32)
#define ATOM_REGISTERS_128(d, i) ATOM_REGISTERS_64(d, i), ATOM_REGISTERS_64(d, i + 64)

#define ATOM_NAMES_4 "%0, %1, %2, %3"
#define ATOM_NAMES_8 ATOM_NAMES_4 ", %4, %5, %6, %7"
#define ATOM_NAMES_16 ATOM_NAMES_8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define ATOM_NAMES_32                                                        \
  ATOM_NAMES_16                                                              \
  ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, " \
  "%30, %31"
#define ATOM_NAMES_64                                                                            \
  ATOM_NAMES_32                                                                                  \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, " \
  "%50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define ATOM_NAMES_128                                                                           \
  ATOM_NAMES_64                                                                                  \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, " \
  "%82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, "   \
  "%100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, "   \
  "%115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

// kN tokens, their sums' count and the numbers of the operands behind them.
#define ATOM_PRODUCT_CALL(NAME, KEEP, N, COUNT, TYPE, A0, A1, A2, A3, B)                           \
  static __device__ __forceinline__ void NAME(int(&d)[COUNT], const Fragment& a, uint64_t b) {     \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k32.s32." TYPE ".s8 {" ATOM_NAMES_##COUNT \
                 "}, {%" #A0 ", %" #A1 ", %" #A2 ", %" #A3 "}, %" #B ", " KEEP ";"                 \
                 : ATOM_REGISTERS_##COUNT(d, 0)                                                    \
                 : "r"(a.at[0]), "r"(a.at[1]), "r"(a.at[2]), "r"(a.at[3]), "l"(b));                \
  }
#define ATOM_PRODUCT(N, COUNT, TYPE, UNSIGNED, A0, A1, A2, A3, B)    \
  template <>                                                        \
  struct Product<N, UNSIGNED> {                                      \
    ATOM_PRODUCT_CALL(add, "1", N, COUNT, TYPE, A0, A1, A2, A3, B)   \
    ATOM_PRODUCT_CALL(start, "0", N, COUNT, TYPE, A0, A1, A2, A3, B) \
  };
#define ATOM_PRODUCTS(TYPE, UNSIGNED)                       \
  ATOM_PRODUCT(8, 4, TYPE, UNSIGNED, 4, 5, 6, 7, 8)         \
  ATOM_PRODUCT(16, 8, TYPE, UNSIGNED, 8, 9, 10, 11, 12)     \
  ATOM_PRODUCT(32, 16, TYPE, UNSIGNED, 16, 17, 18, 19, 20)  \
  ATOM_PRODUCT(64, 32, TYPE, UNSIGNED, 32, 33, 34, 35, 36)  \
  ATOM_PRODUCT(128, 64, TYPE, UNSIGNED, 64, 65, 66, 67, 68) \
  ATOM_PRODUCT(256, 128, TYPE, UNSIGNED, 128, 129, 130, 131, 132)
ATOM_PRODUCTS("u8", true)
ATOM_PRODUCTS("s8", false)
#undef ATOM_PRODUCTS
#undef ATOM_PRODUCT
#undef ATOM_PRODUCT_CALL

}  // namespace atom::backend::cuda::hopper
