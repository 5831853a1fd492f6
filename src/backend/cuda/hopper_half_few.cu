// The linear of hopper_half_linear.h for few rows: a decoding step, bound by the stream of weights. A CTA has 64 * kBlocks
// outputs; its kGroups groups of warpgroups take turns along k, and the CTAs of a cluster share k. One warp asks for
// slots and inputs, through a ring in shared memory; f16 weights are multiplied from there. Sums of groups and CTAs meet
// in shared memory, in their order.
//
// Weights are asked for before the kernel waits for the one before it (programmatic dependent launch).
// docs/kernels/half.md has the figures.
#include "backend/cuda/hopper_half_few.cuh"
#include "backend/cuda/hopper_half_launch.h"
#include "backend/cuda/hopper_results.cuh"

namespace atom::backend::cuda::hopper {
namespace half_few {

// Sums to the group's plane [rows, kPitch].
template <typename S>
__device__ __forceinline__ void store_sums(const float (&sums)[S::kRows / 2], uint8_t* shared,
                                           int warp, int valid) {
  const int thread = static_cast<int>(threadIdx.x) % kWarpgroup;
  float* plane = reinterpret_cast<float*>(shared) + warp / (4 * S::kBlocks) * S::kPlane +
                 warp / 4 % S::kBlocks * kBlockOutputs + HalfLane(thread).output;
#pragma unroll
  for (int j = 0; j < S::kRows / 8; ++j)
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int row = j * 8 + thread % 4 * 2 + e;
      if (row >= valid) continue;
      plane[row * S::kPitch] = sums[4 * j + e];
      plane[row * S::kPitch + 8] = sums[4 * j + 2 + e];
    }
}

__device__ __forceinline__ float4 sum_of(const float4& a, const int4& b) {
  return {a.x + __int_as_float(b.x), a.y + __int_as_float(b.y), a.z + __int_as_float(b.z),
          a.w + __int_as_float(b.w)};
}

// Four outputs' sums of all groups and CTAs, `at` bytes from the beginning of a plane.
template <typename S, int kCluster>
__device__ __forceinline__ float4 sum_up(uint32_t planes, int at) {
  int4 parts[kCluster * S::kGroups];  // all on their way before the first is added
#pragma unroll
  for (int i = 0; i < kCluster * S::kGroups; ++i)
    parts[i] = load_of_cluster(of_rank(planes + at, static_cast<uint32_t>(i / S::kGroups)) +
                               i % S::kGroups * S::kPlane * 4);
  float4 sum = {0, 0, 0, 0};
#pragma unroll
  for (int i = 0; i < kCluster * S::kGroups; ++i) sum = sum_of(sum, parts[i]);
  return sum;
}

__device__ __forceinline__ float4 result_of(const float4& sum, const float4& factor, float of_row,
                                            const float4& bias) {
  return {sum.x * factor.x * of_row + bias.x, sum.y * factor.y * of_row + bias.y,
          sum.z * factor.z * of_row + bias.z, sum.w * factor.w * of_row + bias.w};
}

// Results of the CTA's share: every kCluster-th quad.
template <typename S, int kCluster>
__device__ __forceinline__ void finish(const HalfTask& t, const uint8_t* shared, int rank,
                                       int first_row, int valid, int first_output) {
  constexpr int kQuads = S::kOutputs / 4;
  const auto* outputs = reinterpret_cast<const float4*>(shared + S::kOutputsAt);
  const auto* rows = reinterpret_cast<const float*>(shared + S::kRowsAt);
  const uint32_t planes = shared_address(shared);
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x) * kCluster + rank; i < valid * kQuads;
       i += S::kThreads * kCluster) {
    const int row = i / kQuads, quad = i % kQuads;
    const float4 sum = sum_up<S, kCluster>(planes, (row * S::kPitch + quad * 4) * 4);
    store_four(t, first_row + row, first_output + quad * 4,
               result_of(sum, outputs[quad], rows[row], outputs[kQuads + quad]));
  }
}

// When all sums are in shared memory.
template <typename S>
__device__ __forceinline__ void meet(const HalfTask& t, const uint8_t* shared, int rank,
                                     int cluster, int first_row, int valid, int first_output) {
  if (cluster == 1) {
    __syncthreads();
    finish<S, 1>(t, shared, rank, first_row, valid, first_output);
    return;
  }
  cluster_arrive();
  cluster_wait();
  if (cluster == 2)
    finish<S, 2>(t, shared, rank, first_row, valid, first_output);
  else
    finish<S, 4>(t, shared, rank, first_row, valid, first_output);
  cluster_arrive();
  cluster_wait();  // peers read this CTA's sums
}

template <typename S>
__device__ __forceinline__ void fetch_outputs(const HalfWeight& w, uint8_t* shared, int first) {
  auto* to = reinterpret_cast<float*>(shared + S::kOutputsAt);
  for (int i = static_cast<int>(threadIdx.x); i < S::kOutputs; i += S::kThreads) {
    to[i] = w.factors[first + i];
    to[S::kOutputs + i] = w.bias != nullptr && first + i < w.n ? w.bias[first + i] : 0.0f;
  }
}

// Of the tile's rows, by one warp.
template <typename S>
struct RowFactors {
  static constexpr int kEach = (S::kRows + 31) / 32;  // of a lane
  float at[kEach];

  __device__ __forceinline__ void load(const float* factors, int lane, int valid) {
#pragma unroll
    for (int i = 0; i < kEach; ++i) at[i] = lane + 32 * i < valid ? factors[lane + 32 * i] : 0.0f;
  }
  __device__ __forceinline__ void store(uint8_t* shared, int lane, int valid) const {
    auto* to = reinterpret_cast<float*>(shared + S::kRowsAt);
#pragma unroll
    for (int i = 0; i < kEach; ++i)
      if (lane + 32 * i < valid) to[lane + 32 * i] = at[i];
  }
};

template <typename S>
__global__ void __launch_bounds__(S::kThreads, S::kCtas)
    half_few_kernel(const __grid_constant__ CUtensorMap map, const __grid_constant__ HalfTask t,
                    int cluster) {
  extern __shared__ __align__(1024) uint8_t shared[];
  const int warp = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 32, 0);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int tile = static_cast<int>(blockIdx.x) / cluster;
  const int rank = static_cast<int>(blockIdx.x) % cluster;
  const int slots = slots_along(t.w.k);
  launch_dependents();
  if (t.row_ends != nullptr) wait_for_previous_grid();
  const HalfSpan rows = rows_of(t);
  const int first_row = rows.begin + static_cast<int>(blockIdx.y) * S::kRows;
  const int valid = min(S::kRows, rows.end - first_row);
  if (valid <= 0) return;
  const uint32_t barriers = shared_address(shared + S::kBarriersAt);
  const int64_t block_bytes = int64_t{slots} * S::kSlot;
  const int first = rank * slots / cluster;
  const Ring<S> ring{shared_address(shared),
                     barriers,
                     barriers + 8 * S::kStages,
                     t.w.slots + tile * S::kBlocks * block_bytes,
                     block_bytes,
                     first,
                     (rank + 1) * slots / cluster - first,
                     &map,
                     first_row};
  const bool asks = warp == S::kConsumers / 32;
  if (asks) {
    if (lane < S::kStages) ring.init(lane);
    __syncwarp();
    if (lane < min(S::kStages, ring.count)) ring.ask_slots(lane, lane);
  }
  fetch_outputs<S>(t.w, shared, tile * S::kOutputs);
  __syncthreads();
  if (t.row_ends == nullptr)
    wait_for_previous_grid();  // all threads: they read and write what it may touch
  float sums[S::kRows / 2] = {};
  if (asks) {
    if (lane < min(S::kStages, ring.count)) ring.ask_inputs(lane, lane);
    RowFactors<S> factors;
    factors.load(t.x.factors + first_row, lane, valid);
    if (lane == 0) ring.refill();
    __syncwarp();
    factors.store(shared, lane, valid);
  } else {
    Walk<S> walk(ring, shared, warp);
    if constexpr (S::kKind == HalfKind::kF16)
      walk.run_f16(sums);
    else
      walk.run_int4(sums);
  }
  __syncthreads();  // the stages are empty
  if (!asks) store_sums<S>(sums, shared, warp, valid);
  meet<S>(t, shared, rank, cluster, first_row, valid, tile * S::kOutputs);
}

template <typename S>
Status launch(const HalfTask& t, int cluster, Stream stream) {
  const auto kernel = half_few_kernel<S>;
  static const Status allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::kBytes);
  if (allowed != 0) return allowed;
  CUtensorMap map;
  if (const Status status = make_half_input_map(t.x, S::kRows, 2, map); status != 0) return status;
  const int tiles = (t.w.n + S::kOutputs - 1) / S::kOutputs;
  const dim3 grid(tiles * cluster, (t.x.rows + S::kRows - 1) / S::kRows);
  return launch_kernel(kernel, {grid, S::kThreads, S::kBytes, cluster, t.dependent != 0}, stream,
                       map, t, cluster);
}

constexpr HalfKind kF16 = HalfKind::kF16, kInt4 = HalfKind::kInt4;

// Of the shape with these rows, blocks, groups; as many stages and CTAs as shared memory and registers hold.
Status launch_f16(const HalfTask& t, const Plan& p, Stream stream) {
  switch (p.rows * 100 + p.blocks * 10 + p.groups) {
    case 811:
      return launch<Shape<kF16, 8, 1, 1, 4, 3>>(t, p.cluster, stream);
    case 821:
      return launch<Shape<kF16, 8, 2, 1, 3, 2>>(t, p.cluster, stream);
    case 822:
      return launch<Shape<kF16, 8, 2, 2, 6, 1>>(t, p.cluster, stream);
    case 1611:
      return launch<Shape<kF16, 16, 1, 1, 3, 3>>(t, p.cluster, stream);
    case 1621:
      return launch<Shape<kF16, 16, 2, 1, 3, 2>>(t, p.cluster, stream);
    case 3211:
      return launch<Shape<kF16, 32, 1, 1, 3, 3>>(t, p.cluster, stream);
    case 3221:
      return launch<Shape<kF16, 32, 2, 1, 2, 2>>(t, p.cluster, stream);
    case 3222:
      return launch<Shape<kF16, 32, 2, 2, 4, 1>>(t, p.cluster, stream);
    case 6411:
      return launch<Shape<kF16, 64, 1, 1, 3, 2>>(t, p.cluster, stream);
    case 6421:
      return launch<Shape<kF16, 64, 2, 1, 4, 1>>(t, p.cluster, stream);
    case 6422:
      return launch<Shape<kF16, 64, 2, 2, 4, 1>>(t, p.cluster, stream);
    case 12811:
      return launch<Shape<kF16, 128, 1, 1, 2, 2>>(t, p.cluster, stream);
    case 12821:
      return launch<Shape<kF16, 128, 2, 1, 3, 1>>(t, p.cluster, stream);
    default:
      return cudaErrorInvalidValue;
  }
}
Status launch_int4(const HalfTask& t, const Plan& p, Stream stream) {
  switch (p.rows * 100 + p.blocks * 10 + p.groups) {
    case 811:
      return launch<Shape<kInt4, 8, 1, 1, 8, 4>>(t, p.cluster, stream);
    case 812:
      return launch<Shape<kInt4, 8, 1, 2, 10, 3>>(t, p.cluster, stream);
    case 813:
      return launch<Shape<kInt4, 8, 1, 3, 12, 2>>(t, p.cluster, stream);
    case 816:
      return launch<Shape<kInt4, 8, 1, 6, 30, 1>>(t, p.cluster, stream);
    case 821:
      return launch<Shape<kInt4, 8, 2, 1, 6, 3>>(t, p.cluster, stream);
    case 823:
      return launch<Shape<kInt4, 8, 2, 3, 18, 1>>(t, p.cluster, stream);
    case 1611:
      return launch<Shape<kInt4, 16, 1, 1, 6, 4>>(t, p.cluster, stream);
    case 1612:
      return launch<Shape<kInt4, 16, 1, 2, 8, 3>>(t, p.cluster, stream);
    case 1613:
      return launch<Shape<kInt4, 16, 1, 3, 12, 2>>(t, p.cluster, stream);
    case 1616:
      return launch<Shape<kInt4, 16, 1, 6, 24, 1>>(t, p.cluster, stream);
    case 1621:
      return launch<Shape<kInt4, 16, 2, 1, 5, 3>>(t, p.cluster, stream);
    case 1623:
      return launch<Shape<kInt4, 16, 2, 3, 15, 1>>(t, p.cluster, stream);
    case 3212:
      return launch<Shape<kInt4, 32, 1, 2, 8, 2>>(t, p.cluster, stream);
    case 3214:
      return launch<Shape<kInt4, 32, 1, 4, 16, 1>>(t, p.cluster, stream);
    case 3221:
      return launch<Shape<kInt4, 32, 2, 1, 6, 2>>(t, p.cluster, stream);
    case 3222:
      return launch<Shape<kInt4, 32, 2, 2, 12, 1>>(t, p.cluster, stream);
    case 3241:
      return launch<Shape<kInt4, 32, 4, 1, 8, 1>>(t, p.cluster, stream);
    case 6412:
      return launch<Shape<kInt4, 64, 1, 2, 4, 2>>(t, p.cluster, stream);
    case 6421:
      return launch<Shape<kInt4, 64, 2, 1, 4, 2>>(t, p.cluster, stream);
    case 6422:
      return launch<Shape<kInt4, 64, 2, 2, 8, 1>>(t, p.cluster, stream);
    case 6441:
      return launch<Shape<kInt4, 64, 4, 1, 6, 1>>(t, p.cluster, stream);
    case 12821:
      return launch<Shape<kInt4, 128, 2, 1, 5, 1>>(t, p.cluster, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace half_few

Status launch_half_few_rows(const HalfTask& t, const Plan& p, Stream stream) {
  return t.w.kind == HalfKind::kF16 ? half_few::launch_f16(t, p, stream)
                                    : half_few::launch_int4(t, p, stream);
}

}  // namespace atom::backend::cuda::hopper
