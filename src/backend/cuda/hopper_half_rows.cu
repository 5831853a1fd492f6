// Inputs of hopper_half_linear.h: rows of f32 to f16 with a power of two each. A block takes a row: its largest finite
// magnitude, then its values, the first of which have stayed in registers.
#include "backend/cuda/hopper_half_linear.cuh"
#include "backend/cuda/hopper_half_values.cuh"
#include "backend/cuda/hopper_launch.h"

namespace atom::backend::cuda::hopper {
namespace {

constexpr int kThreads = 512, kWarps = kThreads / 32;
constexpr int kHeld = 4;  // quads of a thread in registers

// Values 4 quad .. of a row; zeros behind its end.
__device__ __forceinline__ float4 quad_of(const float* x, int k, int quad) {
  const int first = 4 * quad;
  if (first >= k) return {0, 0, 0, 0};
  float4 v = __ldcg(reinterpret_cast<const float4*>(x) + quad);  // records end at multiples of 16
  if (first + 1 >= k) v.y = 0;
  if (first + 2 >= k) v.z = 0;
  if (first + 3 >= k) v.w = 0;
  return v;
}

__device__ __forceinline__ uint32_t largest(uint32_t most, const float4& v) {
  return larger_finite(larger_finite(larger_finite(larger_finite(most, v.x), v.y), v.z), v.w);
}
__device__ __forceinline__ uint32_t largest_of_block(uint32_t most, uint32_t* of_warps) {
  most = __reduce_max_sync(0xffffffffu, most);
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = most;
  __syncthreads();
  return __reduce_max_sync(0xffffffffu, of_warps[threadIdx.x % kWarps]);
}

__device__ __forceinline__ void store_quad(uint16_t* to, int quad, const float4& v, float scale) {
  reinterpret_cast<uint2*>(to)[quad] = scaled_halves({v.x, v.y, v.z, v.w}, scale);
}

__global__ void __launch_bounds__(kThreads) half_rows_kernel(HalfRowsTask t) {
  __shared__ uint32_t of_warps[kWarps];
  const int row = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  launch_dependents();
  wait_for_previous_grid();
  if (t.count != nullptr && row >= __ldcg(t.count)) return;
  const int record = t.row_index != nullptr ? __ldcg(t.row_index + row) : row;
  const InputSegment& s = t.x.at[t.segment];
  const auto* x =
      reinterpret_cast<const float*>(t.x.data + int64_t{record} * t.x.row_bytes + s.values_at);
  const int k = t.to.k, pitch = slots_along(k) * kHalfSlotInputs, quads = pitch / 4;
  float4 held[kHeld];
  uint32_t most = 0;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) held[i] = quad_of(x, k, thread + i * kThreads);
#pragma unroll
  for (int i = 0; i < kHeld; ++i) most = largest(most, held[i]);
#pragma unroll 4
  for (int quad = thread + kHeld * kThreads; quad < quads; quad += kThreads)
    most = largest(most, quad_of(x, k, quad));
  most = largest_of_block(most, of_warps);
  const HalfFactor factor(most);
  const float scale = factor.inverse();
  uint16_t* to = t.to.values + int64_t{row} * pitch;
#pragma unroll
  for (int i = 0; i < kHeld; ++i)
    if (thread + i * kThreads < quads) store_quad(to, thread + i * kThreads, held[i], scale);
#pragma unroll 4
  for (int quad = thread + kHeld * kThreads; quad < quads; quad += kThreads)
    store_quad(to, quad, quad_of(x, k, quad), scale);
  if (thread == 0) t.to.factors[row] = factor.value();
}

}  // namespace

Status launch_half_rows(const HalfRowsTask& t, Stream stream) {
  if (t.to.rows == 0) return cudaSuccess;
  return launch_kernel(half_rows_kernel, {dim3(t.to.rows), kThreads, 0, 1, t.dependent != 0},
                       stream, t);
}

}  // namespace atom::backend::cuda::hopper
