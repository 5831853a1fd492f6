// The linear of hopper_linear.h for few rows: a decoding step, bound by the stream of weights. A CTA has 64 * kBlocks
// outputs; its kGroups groups of warpgroups take turns along k, each slot being widened and multiplied by one group.
// Slots and the rows' inputs arrive through a ring in shared memory. With a cluster of two, the CTAs share k. Sums meet in
// shared memory, in s32, so in any order.
//
// Weights are asked for before the kernel waits for the one before it (programmatic dependent launch): its own
// beginning hides behind the other's end. docs/kernels/linear.md has the figures.
#include "backend/cuda/hopper_few_walk.cuh"
#include "backend/cuda/hopper_launch.h"
#include "backend/cuda/hopper_results.cuh"

namespace atom::backend::cuda::hopper {
namespace few {

// Results of the CTA's share of the rows, from its sums and those of its peer.
template <typename S>
__device__ void finish(const Task& t, const uint8_t* shared, int rank, int cluster, int first_row,
                       int valid, int first_output) {
  const auto* tokens = reinterpret_cast<const Token*>(shared + S::kTokensAt);
  const uint8_t *plane4 = shared + S::kPlane4At, *plane8 = shared + S::kPlane8At;
  const auto* steps = reinterpret_cast<const float4*>(shared + S::kStepsAt);
  constexpr int kQuads = S::kOutputs / 4;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < valid * kQuads; i += S::kThreads) {
    const int row = i / kQuads, quad = i % kQuads;
    if (row % cluster != rank) continue;
    const int at = (row * S::kPitch + quad * 4) * 4;
    int4 a = {0, 0, 0, 0};
    if constexpr (!S::kInt8) a = *reinterpret_cast<const int4*>(plane4 + at);
    int4 b = *reinterpret_cast<const int4*>(plane8 + at);
    if (cluster == 2) {
      const auto peer = static_cast<uint32_t>(rank ^ 1);
      const int4 d = load_of_cluster(of_rank(shared_address(plane8 + at), peer));
      if constexpr (!S::kInt8) {
        const int4 c = load_of_cluster(of_rank(shared_address(plane4 + at), peer));
        a = {a.x + c.x, a.y + c.y, a.z + c.z, a.w + c.w};
      }
      b = {b.x + d.x, b.y + d.y, b.z + d.z, b.w + d.w};
    }
    const float4 step4 = steps[quad], step8 = steps[kQuads + quad], bias = steps[2 * kQuads + quad];
    const Token token = tokens[row];
    store_four(t, first_row + row, first_output + quad * 4,
               {result_of(a.x, b.x, {step4.x, step8.x, bias.x}, token),
                result_of(a.y, b.y, {step4.y, step8.y, bias.y}, token),
                result_of(a.z, b.z, {step4.z, step8.z, bias.z}, token),
                result_of(a.w, b.w, {step4.w, step8.w, bias.w}, token)});
  }
}

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

template <typename S>
__device__ __forceinline__ void clear_plane(int* plane) {
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < S::kPlane / 4; i += S::kThreads)
    reinterpret_cast<int4*>(plane)[i] = {0, 0, 0, 0};
}

// All groups' sums of `valid` rows to the planes; those apart are clear.
template <typename S>
__device__ void sum_up(Walk<S> walk, uint8_t* shared, int valid) {
  auto *plane4 = reinterpret_cast<int*>(shared + S::kPlane4At),
       *plane8 = reinterpret_cast<int*>(shared + S::kPlane8At);
  int sums4[S::kRows / 2] = {};
  bool any4 = false;
  if constexpr (!S::kInt8) any4 = walk.run4(sums4);
  if (S::kApart4 && any4) add_sums<S>(sums4, plane4, valid);
  int sums8[S::kRows / 2] = {};
  const bool any8 = walk.run8(sums8);
  if constexpr (!S::kApart8) {
    __syncthreads();  // the stages are empty
    if (!S::kApart4 && !S::kInt8) clear_plane<S>(plane4);
    clear_plane<S>(plane8);
    __syncthreads();
  }
  if (!S::kApart4 && any4) add_sums<S>(sums4, plane4, valid);
  if (any8) add_sums<S>(sums8, plane8, valid);
}

template <typename S>
__global__ void __launch_bounds__(S::kThreads, S::kCtas)
    few_rows_kernel(const __grid_constant__ CUtensorMap map4,
                    const __grid_constant__ CUtensorMap map8, const __grid_constant__ Task t,
                    int cluster) {
  extern __shared__ __align__(1024) uint8_t shared[];
  const int warp = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 32, 0);
  const int tile = static_cast<int>(blockIdx.x) / cluster;
  const int rank = static_cast<int>(blockIdx.x) % cluster;
  const int slots = t.w.slots4 + t.w.slots8, stages = (slots + 1) / 2;
  Ring<S> ring{shared,
               shared_address(shared + S::kBarriersAt),
               0,
               nullptr,
               int64_t{slots} * kSlotBytes,
               rank * stages / cluster,
               0,
               t.w.slots4,
               slots,
               &map4,
               &map8};
  ring.empty = ring.full + 8 * S::kStages;
  ring.count = (rank + 1) * stages / cluster - ring.first;
  ring.slots = t.w.slots + tile * S::kBlocks * ring.block_bytes;
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
  if (threadIdx.x == 0) {
    prefetch_map(&map4);
    prefetch_map(&map8);
  }
  auto* steps = reinterpret_cast<float*>(shared + S::kStepsAt);
  for (int i = static_cast<int>(threadIdx.x); i < S::kOutputs; i += S::kThreads) {
    const Steps of = steps_of(t.w, tile * S::kOutputs + i);
    steps[i] = of.step4;
    steps[S::kOutputs + i] = of.step8;
    steps[2 * S::kOutputs + i] = of.bias;
  }
  for (int i = static_cast<int>(threadIdx.x); i < S::kRows; i += S::kThreads)
    reinterpret_cast<Token*>(shared + S::kTokensAt)[i] = {};
  if constexpr (S::kApart4) clear_plane<S>(reinterpret_cast<int*>(shared + S::kPlane4At));
  if constexpr (S::kApart8) clear_plane<S>(reinterpret_cast<int*>(shared + S::kPlane8At));
  __syncthreads();  // barriers are initialized, scales are there, planes are zero
  if (t.row_ends == nullptr)
    wait_for_previous_grid();  // all threads: they read and write what it may touch
  ask_first_inputs<S>(ring, warp, first_row);
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < valid; i += S::kThreads)
    fetch_token(t, first_row + i, reinterpret_cast<Token*>(shared + S::kTokensAt) + i);

  sum_up<S>(Walk<S>(ring, warp, first_row), shared, valid);
  copies_wait();
  if (cluster == 1)
    __syncthreads();
  else
    cluster_arrive(), cluster_wait();
  finish<S>(t, shared, rank, cluster, first_row, valid, tile * S::kOutputs);
  if (cluster > 1) cluster_arrive(), cluster_wait();  // the peer reads this CTA's sums
}

template <typename S>
Status launch(const Task& t, int cluster, Stream stream) {
  const auto kernel = few_rows_kernel<S>;
  static const Status allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::kBytes);
  if (allowed != 0) return allowed;
  InputMaps maps;
  if (const Status status = make_input_maps(t, S::kRows, maps); status != 0) return status;
  const int tiles = (t.w.blocks() + S::kBlocks - 1) / S::kBlocks;
  const dim3 grid(tiles * cluster, (t.x.rows + S::kRows - 1) / S::kRows);
  return launch_kernel(kernel, {grid, S::kThreads, S::kBytes, cluster, t.dependent != 0}, stream,
                       maps.of4, maps.of8, t, cluster);
}

// Without an int4 segment: as many stages as shared memory holds.
Status launch_int8(const Task& t, const Plan& p, Stream stream) {
  constexpr bool kInt8 = true;
  switch (p.rows * 1000 + p.blocks * 100 + p.groups) {
    case 8101:
      return launch<Shape<8, 1, 1, 7, 3, kInt8>>(t, p.cluster, stream);
    case 8102:
      return launch<Shape<8, 1, 2, 4, 4, kInt8>>(t, p.cluster, stream);
    case 8104:
      return launch<Shape<8, 1, 4, 12, 2, kInt8>>(t, p.cluster, stream);
    case 8108:
      return launch<Shape<8, 1, 8, 24, 1, kInt8>>(t, p.cluster, stream);
    case 8202:
      return launch<Shape<8, 2, 2, 6, 2, kInt8>>(t, p.cluster, stream);
    case 16101:
      return launch<Shape<16, 1, 1, 6, 3, kInt8>>(t, p.cluster, stream);
    case 16103:
      return launch<Shape<16, 1, 3, 9, 2, kInt8>>(t, p.cluster, stream);
    case 16106:
      return launch<Shape<16, 1, 6, 18, 1, kInt8>>(t, p.cluster, stream);
    case 16201:
      return launch<Shape<16, 2, 1, 5, 2, kInt8>>(t, p.cluster, stream);
    case 32101:
      return launch<Shape<32, 1, 1, 6, 3, kInt8>>(t, p.cluster, stream);
    case 32102:
      return launch<Shape<32, 1, 2, 8, 2, kInt8>>(t, p.cluster, stream);
    case 32104:
      return launch<Shape<32, 1, 4, 16, 1, kInt8>>(t, p.cluster, stream);
    case 32106:
      return launch<Shape<32, 1, 6, 18, 1, kInt8>>(t, p.cluster, stream);
    case 32201:
      return launch<Shape<32, 2, 1, 5, 2, kInt8>>(t, p.cluster, stream);
    case 32202:
      return launch<Shape<32, 2, 2, 10, 1, kInt8>>(t, p.cluster, stream);
    case 64101:
      return launch<Shape<64, 1, 1, 6, 2, kInt8>>(t, p.cluster, stream);
    case 64102:
      return launch<Shape<64, 1, 2, 12, 1, kInt8>>(t, p.cluster, stream);
    case 64104:
      return launch<Shape<64, 1, 4, 12, 1, kInt8>>(t, p.cluster, stream);
    case 64202:
      return launch<Shape<64, 2, 2, 8, 1, kInt8>>(t, p.cluster, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace few

Status launch_few_rows(const Task& t, const Plan& p, Stream stream) {
  if (t.w.slots4 == 0) return few::launch_int8(t, p, stream);
  const int wide = p.blocks * 100 + p.groups;
  switch (p.rows) {
    case 8:
      if (wide == 102) return few::launch<few::Shape<8, 1, 2, 4, 4>>(t, p.cluster, stream);
      if (wide == 104) return few::launch<few::Shape<8, 1, 4, 8, 2>>(t, p.cluster, stream);
      if (wide == 108) return few::launch<few::Shape<8, 1, 8, 16, 1>>(t, p.cluster, stream);
      if (wide == 202) return few::launch<few::Shape<8, 2, 2, 4, 2>>(t, p.cluster, stream);
      break;
    case 16:
      if (wide == 103) return few::launch<few::Shape<16, 1, 3, 6, 2>>(t, p.cluster, stream);
      if (wide == 106) return few::launch<few::Shape<16, 1, 6, 12, 1>>(t, p.cluster, stream);
      if (wide == 201) return few::launch<few::Shape<16, 2, 1, 4, 2>>(t, p.cluster, stream);
      break;
    case 32:
      if (wide == 104) return few::launch<few::Shape<32, 1, 4, 12, 1>>(t, p.cluster, stream);
      if (wide == 106) return few::launch<few::Shape<32, 1, 6, 12, 1>>(t, p.cluster, stream);
      if (wide == 201) return few::launch<few::Shape<32, 2, 1, 4, 2>>(t, p.cluster, stream);
      if (wide == 202) return few::launch<few::Shape<32, 2, 2, 8, 1>>(t, p.cluster, stream);
      break;
    case 64:
      if (wide == 102) return few::launch<few::Shape<64, 1, 2, 6, 1>>(t, p.cluster, stream);
      if (wide == 104) return few::launch<few::Shape<64, 1, 4, 8, 1>>(t, p.cluster, stream);
      if (wide == 202) return few::launch<few::Shape<64, 2, 2, 4, 1>>(t, p.cluster, stream);
      break;
    default:
      break;
  }
  return cudaErrorInvalidValue;
}

}  // namespace atom::backend::cuda::hopper
