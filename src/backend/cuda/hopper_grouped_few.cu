// The linear of hopper_linear.h with scales a group on both sides, for few rows. As hopper_linear_few.cu, weights stream
// through a ring in shared memory, groups of warpgroups take turns along k, and a cluster of two may share k. A
// warpgroup scales the exact sums of a group and adds them in f32, in the order of its slots; at the end the parts of the
// results are added in the order of the warpgroups, then of the cluster's CTAs. So a result depends on the plan's
// `groups` and `cluster`, but not on its `rows` and `blocks`, nor on the other rows.
#include "backend/cuda/hopper_grouped_few.cuh"
#include "backend/cuda/hopper_launch.h"
#include "backend/cuda/hopper_results.cuh"

namespace atom::backend::cuda::hopper {
namespace grouped_few {

// The ring's first stages: every warp asks for its share, one thread would take half a microsecond for twenty copies.
template <typename S>
__device__ __forceinline__ void init_stages(const Ring<S>& ring, int warp) {
  if (threadIdx.x % 32 != 0) return;
#pragma unroll 1
  for (int i = warp; i < S::kStages; i += S::kThreads / 32) {
    barrier_init(ring.full + 8 * i, 1);
    barrier_init(ring.empty + 8 * i, 4 * S::kBlocks * kWarpArrivals);
  }
  barrier_init_fence();
#pragma unroll 1
  for (int i = warp; i < min(ring.count, S::kStages); i += S::kThreads / 32) ring.ask_slots(i, i);
}

// A warpgroup's part of the results, four of a thread together: [kRows / 8, kWarpgroup]. It lies where inputs of its
// group's own stages were.
template <typename S>
__device__ __forceinline__ float4* part_of(uint8_t* shared, int group, int block) {
  return reinterpret_cast<float4*>(shared + (group + block * S::kGroups) * S::kInputBytes);
}
template <typename S>
__device__ __forceinline__ void store_part(uint8_t* shared, int warp,
                                           const float (&results)[S::kRows / 2]) {
  const int group = warp / (S::kGroupThreads / 32);
  asm volatile("bar.sync %0, %1;" ::"r"(group + 1), "n"(S::kGroupThreads) : "memory");
  float4* part =
      part_of<S>(shared, group, warp / 4 % S::kBlocks) + static_cast<int>(threadIdx.x) % kWarpgroup;
#pragma unroll
  for (int j = 0; j < S::kRows / 8; ++j)
    part[j * kWarpgroup] = {results[4 * j], results[4 * j + 1], results[4 * j + 2],
                            results[4 * j + 3]};
}

__device__ __forceinline__ float4 sum_of(const float4& a, const float4& b) {
  return {a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w};
}

// Four results of a thread: rows `row` and the next, outputs `output` and the eighth from it. steps: of its outputs.
__device__ __forceinline__ void store_results(const Task& t, int row, int end, int output,
                                              const float4& v, const float (&bias)[2]) {
  const float values[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int e = i % 2, h = i / 2;
    if (row + e >= end || output + 8 * h >= t.w.n) continue;
    const float result = values[i] * (1.0f / 16) + bias[h];
    store_one(t, int64_t{row + e} * t.w.n + output + 8 * h, result);
  }
}

// Adds the warpgroups' parts up; of a cluster's halves of k, each CTA stores half of the outputs.
template <typename S>
__device__ void finish(const Task& t, uint8_t* shared, int rank, int cluster, int first_row,
                       int valid, int first_output) {
  constexpr int kOfBlock = S::kRows / 8 * kWarpgroup;  // fours
  const auto* bias = reinterpret_cast<const float*>(shared + S::kStepsAt) + S::kOutputs;
  const int count = (valid + 7) / 8 * kWarpgroup;
  const auto each = [&](auto&& take) {
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < count * S::kBlocks; i += S::kThreads)
      take(i / count, i % count);
  };
  const auto store = [&](int block, int at, const float4& sum) {
    const int output = block * kBlockOutputs + Lane(at % kWarpgroup).output;
    store_results(t, first_row + at / kWarpgroup * 8 + at % 4 * 2, first_row + valid,
                  first_output + output, sum, {bias[output], bias[output + 8]});
  };
  static_assert(kOfBlock * 16 == S::kInputBytes);
  each([&](int block, int at) {
    float4 sum = part_of<S>(shared, 0, block)[at];
#pragma unroll
    for (int group = 1; group < S::kGroups; ++group)
      sum = sum_of(sum, part_of<S>(shared, group, block)[at]);
    if (cluster == 1)
      store(block, at, sum);
    else
      part_of<S>(shared, 0, block)[at] = sum;
  });
  if (cluster == 1) return;
  cluster_arrive(), cluster_wait();
  each([&](int block, int at) {
    if (at / (kWarpgroup / 2) % 2 != rank) return;
    const float4* own = part_of<S>(shared, 0, block) + at;
    const int4 peer =
        load_of_cluster(of_rank(shared_address(own), static_cast<uint32_t>(rank ^ 1)));
    store(block, at,
          sum_of(*own, {__int_as_float(peer.x), __int_as_float(peer.y), __int_as_float(peer.z),
                        __int_as_float(peer.w)}));
  });
  cluster_arrive(), cluster_wait();  // the peer reads this CTA's sums
}

template <typename S>
__global__ void __launch_bounds__(S::kThreads, S::kCtas)
    grouped_few_kernel(const __grid_constant__ CUtensorMap map4,
                       const __grid_constant__ CUtensorMap map8,
                       const __grid_constant__ CUtensorMap scales4,
                       const __grid_constant__ CUtensorMap scales8, const __grid_constant__ Task t,
                       int cluster) {
  extern __shared__ __align__(1024) uint8_t shared[];
  const int warp = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 32, 0);
  const int tile = static_cast<int>(blockIdx.x) / cluster;
  const int rank = static_cast<int>(blockIdx.x) % cluster;
  const Ring<S> ring(t, shared, tile, rank, cluster, {&map4, &map8, &scales4, &scales8});
  launch_dependents();
  Rows rows{0, t.x.rows};
  if (t.row_ends != nullptr) {
    wait_for_previous_grid();
    rows = rows_of(t);
  }
  const int first_row = rows.begin + static_cast<int>(blockIdx.y) * S::kRows;
  const int valid = min(S::kRows, rows.end - first_row);
  if (valid <= 0) return;
  init_stages(ring, warp);
  if (threadIdx.x == 0)
    for (const CUtensorMap* map : {&map4, &map8, &scales4, &scales8}) prefetch_map(map);
  auto* steps = reinterpret_cast<float*>(shared + S::kStepsAt);
  for (int i = static_cast<int>(threadIdx.x); i < S::kOutputs; i += S::kThreads) {
    const Steps of = steps_of(t.w, tile * S::kOutputs + i);
    steps[i] = of.step8;
    steps[S::kOutputs + i] = of.bias;
  }
  __syncthreads();  // barriers are initialized, steps are there
  if (t.row_ends == nullptr)
    wait_for_previous_grid();  // all threads: they read and write what it may touch
  ask_first_inputs<S>(ring, warp, first_row);
  float results[S::kRows / 2] = {};
  Walk<S>(ring, warp, first_row).run(results);
  store_part<S>(shared, warp, results);
  __syncthreads();
  finish<S>(t, shared, rank, cluster, first_row, valid, tile * S::kOutputs);
}

template <typename S>
Status launch(const Task& t, int cluster, Stream stream) {
  const auto kernel = grouped_few_kernel<S>;
  static const Status allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::kBytes);
  if (allowed != 0) return allowed;
  InputMaps maps;
  CUtensorMap scales4, scales8;
  if (const Status status = make_input_maps(t, S::kRows, maps); status != 0) return status;
  if (const Status status = make_scale_map(t, t.segment4, S::kRows, scales4); status != 0)
    return status;
  scales8 = scales4;
  if (t.segment8 >= 0)
    if (const Status status = make_scale_map(t, t.segment8, S::kRows, scales8); status != 0)
      return status;
  const int tiles = (t.w.blocks() + S::kBlocks - 1) / S::kBlocks;
  const dim3 grid(tiles * cluster, (t.x.rows + S::kRows - 1) / S::kRows);
  return launch_kernel(kernel, {grid, S::kThreads, S::kBytes, cluster, t.dependent != 0}, stream,
                       maps.of4, maps.of8, scales4, scales8, t, cluster);
}

}  // namespace grouped_few

Status launch_grouped_few_rows(const Task& t, const Plan& p, Stream stream) {
  using namespace grouped_few;
  const int wide = p.blocks * 100 + p.groups;
  switch (p.rows) {
    case 8:
      if (wide == 101) return launch<Shape<8, 1, 1, 4, 4>>(t, p.cluster, stream);
      if (wide == 102) return launch<Shape<8, 1, 2, 4, 4>>(t, p.cluster, stream);
      if (wide == 104) return launch<Shape<8, 1, 4, 8, 2>>(t, p.cluster, stream);
      if (wide == 108) return launch<Shape<8, 1, 8, 16, 1>>(t, p.cluster, stream);
      if (wide == 202) return launch<Shape<8, 2, 2, 4, 2>>(t, p.cluster, stream);
      if (wide == 204) return launch<Shape<8, 2, 4, 8, 1>>(t, p.cluster, stream);
      break;
    case 16:
      if (wide == 103) return launch<Shape<16, 1, 3, 6, 2>>(t, p.cluster, stream);
      if (wide == 106) return launch<Shape<16, 1, 6, 18, 1>>(t, p.cluster, stream);
      if (wide == 201) return launch<Shape<16, 2, 1, 4, 2>>(t, p.cluster, stream);
      if (wide == 203) return launch<Shape<16, 2, 3, 9, 1>>(t, p.cluster, stream);
      break;
    case 32:
      if (wide == 104) return launch<Shape<32, 1, 4, 12, 1>>(t, p.cluster, stream);
      if (wide == 106) return launch<Shape<32, 1, 6, 12, 1>>(t, p.cluster, stream);
      if (wide == 201) return launch<Shape<32, 2, 1, 4, 2>>(t, p.cluster, stream);
      if (wide == 202) return launch<Shape<32, 2, 2, 8, 1>>(t, p.cluster, stream);
      break;
    case 64:
      if (wide == 101) return launch<Shape<64, 1, 1, 2, 4>>(t, p.cluster, stream);
      if (wide == 102) return launch<Shape<64, 1, 2, 4, 2>>(t, p.cluster, stream);
      if (wide == 104) return launch<Shape<64, 1, 4, 8, 1>>(t, p.cluster, stream);
      if (wide == 201) return launch<Shape<64, 2, 1, 3, 2>>(t, p.cluster, stream);
      if (wide == 202) return launch<Shape<64, 2, 2, 6, 1>>(t, p.cluster, stream);
      break;
    default:
      break;
  }
  return cudaErrorInvalidValue;
}

}  // namespace atom::backend::cuda::hopper
