// SwiGLU of few rows, of the formats that can_be_quick() takes (hopper_producers.h): a cluster shares a row, a tile a
// team. Blocks tell each other what a row with one scale has.
#include "backend/cuda/hopper.cuh"
#include "backend/cuda/hopper_gate_values.cuh"
#include "backend/cuda/hopper_half_values.cuh"
#include "backend/cuda/hopper_launch.h"
#include "backend/cuda/hopper_warp.cuh"

namespace atom::backend::cuda::hopper {
namespace {

constexpr int kFewThreads = 512;  // of a block that shares a row

constexpr int kClusterWarps = 64;
struct FewShared {
  uint64_t keys_in, sums_in;        // barriers: what other blocks send has come
  uint32_t most[2][kClusterWarps];  // of all warps of the cluster
  uint32_t sums[2][kClusterWarps];  // of the first block
};
// To the same place of the block of that rank, counted by its barrier: nobody waits for memory.
__device__ __forceinline__ void send(uint32_t to, uint32_t value, uint32_t barrier, uint32_t rank) {
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.u32 [%0], %1, [%2];" ::"r"(
          of_rank(to, rank)),
      "r"(value), "r"(of_rank(barrier, rank))
      : "memory");
}
// By all threads; cluster_wait() before the first send().
__device__ __forceinline__ void prepare_cluster(FewShared& shared, int warps) {
  if (threadIdx.x == 0) {
    const uint32_t bytes = 2 * sizeof(uint32_t) * static_cast<uint32_t>(warps);
    barrier_init(shared_address(&shared.keys_in), 1);
    barrier_init(shared_address(&shared.sums_in), 1);
    barrier_init_fence();
    barrier_expect(shared_address(&shared.keys_in), bytes);
    barrier_expect(shared_address(&shared.sums_in), bytes);
  }
  __syncwarp();
  cluster_arrive();
}
// Of both segments, the largest key of the row. place: the warp's in the cluster, of `warps`.
__device__ __forceinline__ uint2 cluster_keys(FewShared& shared, uint2 keys, int place, int blocks,
                                              int warps) {
  const uint32_t of[2] = {keys.x, keys.y};
  const int lane = lane_of_warp();
  const uint32_t barrier = shared_address(&shared.keys_in);
  uint32_t result[2];
  cluster_wait();
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t most = __reduce_max_sync(kAllLanes, of[i]);
    if (lane < blocks) send(shared_address(&shared.most[i][place]), most, barrier, lane);
  }
  barrier_wait(barrier, 0);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t a = lane < warps ? shared.most[i][lane] : 0u,
                   b = lane + kWarp < warps ? shared.most[i][lane + kWarp] : 0u;
    result[i] = __reduce_max_sync(kAllLanes, max(a, b));
  }
  return {result[0], result[1]};
}
// Writes the sums of wide segments' codes.
__device__ __forceinline__ void cluster_sums(const InputView& y, const RowCut& cut,
                                             FewShared& shared, const int (&sums)[2], int place,
                                             int warps, uint8_t* record) {
  const int lane = lane_of_warp();
  const uint32_t barrier = shared_address(&shared.sums_in);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int sum = __reduce_add_sync(kAllLanes, sums[i]);
    if (lane == 0)
      send(shared_address(&shared.sums[i][place]), static_cast<uint32_t>(sum), barrier, 0);
  }
  if (place != 0) return;
  barrier_wait(barrier, 0);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t a = lane < warps ? shared.sums[i][lane] : 0u,
                   b = lane + kWarp < warps ? shared.sums[i][lane + kWarp] : 0u;
    const uint32_t total = __reduce_add_sync(kAllLanes, a + b);
    if (lane == 0 && cut.wide[i] != 0 && y.at[i].scaling == Scaling::kInt8)
      *reinterpret_cast<uint32_t*>(record + y.at[i].sum_at) = total;
  }
}

// silu(gate) * up of the lane's values; from: the first of its gate.
template <typename T>
__device__ __forceinline__ void read_gate(Values& v, const T* from, int k, bool exists) {
  constexpr int kRun = RowOf<T>::kRun, kQuads = RowOf<T>::kQuads;
  uint4 gate[kQuads], up[kQuads];
#pragma unroll
  for (int quad = 0; quad < kQuads; ++quad) {
    const T* at = from + quad * kTeam * kRun;
    gate[quad] = __ldcg(reinterpret_cast<const uint4*>(at));
    up[quad] = __ldcg(reinterpret_cast<const uint4*>(at + k));
  }
  gate_values<T, false>(v, gate, up, nullptr, exists,
                        [&](int i) { return defined_gate(from, k, i); });
}

template <typename T, bool kWide>
__global__ void __launch_bounds__(kFewThreads, 1)
    few_gate_kernel(const __grid_constant__ ProduceTask t, const __grid_constant__ RowCut cut,
                    float seventh, int blocks, int block_tiles) {
  constexpr int kRun = RowOf<T>::kRun;
  extern __shared__ float kept[];  // [size of the second segment]
  __shared__ FewShared shared;
  launch_dependents();
  const int warps = static_cast<int>(blockDim.x) / kWarp * blocks;
  if constexpr (kWide) prepare_cluster(shared, warps);
  const int k = t.y.at[0].size + t.y.at[1].size, row = static_cast<int>(blockIdx.x) / blocks,
            rank = static_cast<int>(blockIdx.x) % blocks,
            team = static_cast<int>(threadIdx.x) / kTeam,
            place = rank * (warps / blocks) + warp_of_block();
  Part p = part_at<kRun>(t, cut, seventh, rank * block_tiles + team);
  if (team >= block_tiles) p.exists = p.begins = false;
  const T* from = RowOf<T>::of(t) + (int64_t{row} * 2 * k + first_in_row<kRun>(p));
  uint8_t* record = t.y.data + row * t.y.row_bytes;
  wait_for_previous_grid();
  Values v;
  read_gate(v, from, k, p.exists);
  quick_transform<kRun>(v, p, t.hadamard, t.y, kept);
  uint32_t key = quick_key(v, p);
  uint2 keys = {p.segment == 0 ? key : 0u, p.segment == 0 ? 0u : key};
  if constexpr (kWide) keys = cluster_keys(shared, keys, place, blocks, warps);
  key = team_max(key, kTeam);
  if (kWide && p.wide) key = p.segment == 0 ? keys.x : keys.y;
  const int sum = quick_write<kRun>(t.y, p, v, quick_step(p, key), record);
  if constexpr (kWide)
    cluster_sums(t.y, cut, shared, {p.segment == 0 ? sum : 0, p.segment == 0 ? 0 : sum}, place,
                 warps, record);
}

// The row in floating point, of one segment and whole tiles, and its halves.
template <typename T>
__global__ void __launch_bounds__(kFewThreads, 1)
    half_gate_kernel(const __grid_constant__ ProduceTask t, const __grid_constant__ RowCut cut,
                     int blocks, int block_tiles) {
  constexpr int kRun = RowOf<T>::kRun;
  __shared__ FewShared shared;
  launch_dependents();
  const int warps = static_cast<int>(blockDim.x) / kWarp * blocks;
  prepare_cluster(shared, warps);
  const int k = t.y.at[0].size, row = static_cast<int>(blockIdx.x) / blocks,
            rank = static_cast<int>(blockIdx.x) % blocks,
            team = static_cast<int>(threadIdx.x) / kTeam,
            place = rank * (warps / blocks) + warp_of_block();
  Part p = part_at<kRun>(t, cut, 0.0f, rank * block_tiles + team);
  if (team >= block_tiles) p.exists = false;
  const T* from = RowOf<T>::of(t) + (int64_t{row} * 2 * k + first_in_row<kRun>(p));
  wait_for_previous_grid();
  Values v;
  read_gate(v, from, k, p.exists);
  quick_transform<kRun>(v, p, t.hadamard, t.y, nullptr);
  uint32_t most = 0;
  if (p.exists)
#pragma unroll
    for (int i = 0; i < 4 * kChunks; ++i) most = larger_finite(most, v.at[i / 4][i % 4]);
  const HalfFactor factor(cluster_keys(shared, {most, 0u}, place, blocks, warps).x);
  if (p.exists) {
    auto* values = reinterpret_cast<float*>(t.y.data + row * t.y.row_bytes + t.y.at[0].values_at);
    uint16_t* halves = t.half.values + int64_t{row} * half_pitch(k);
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      const int at = first_in_row<kRun>(p) + chunk_at<kRun>(c);
      store_four(values + at, v.at[c]);
      *reinterpret_cast<uint2*>(halves + at) = scaled_halves(v.at[c], factor.inverse());
    }
  }
  if (rank == 0 && threadIdx.x == 0) t.half.factors[row] = factor.value();
}
template <typename T>
Status launch_half(const ProduceTask& t, int blocks, Stream stream) {
  const RowCut cut = row_cut(t.y);
  const int tiles = (cut.count() + blocks - 1) / blocks;
  const int threads = (tiles * kTeam + kWarp - 1) / kWarp * kWarp;
  return launch_kernel(half_gate_kernel<T>,
                       {dim3(t.y.rows * blocks), threads, 0, blocks, t.dependent != 0}, stream, t,
                       cut, blocks, tiles);
}

template <typename T, bool kWide>
Status launch_few(const ProduceTask& t, const RowCut& cut, int blocks, Stream stream) {
  const int tiles = (cut.count() + blocks - 1) / blocks;
  const int threads = (tiles * kTeam + kWarp - 1) / kWarp * kWarp;
  const int kept = t.y.at[1].size * static_cast<int>(sizeof(float));
  return launch_kernel(
      few_gate_kernel<T, kWide>,
      {dim3(t.y.rows * blocks), threads, kept, kWide ? blocks : 1, t.dependent != 0}, stream, t,
      cut, t.clip / 7.0f, blocks, tiles);
}

template <typename T>
Status launch_rows(const ProduceTask& t, int blocks, Stream stream) {
  const RowCut cut = row_cut(t.y);
  return cut.any_wide() ? launch_few<T, true>(t, cut, blocks, stream)
                        : launch_few<T, false>(t, cut, blocks, stream);
}

}  // namespace

Status launch_few_gate(const ProduceTask& t, int blocks, Stream stream) {
  return t.x_f16 != nullptr ? launch_rows<uint16_t>(t, blocks, stream)
                            : launch_rows<float>(t, blocks, stream);
}

// With `half`: can_produce_half().
Status launch_half_gate(const ProduceTask& t, int multiprocessors, Stream stream) {
  const int blocks = few_gate_blocks(t.y, true, multiprocessors);
  return t.x_f16 != nullptr ? launch_half<uint16_t>(t, blocks, stream)
                            : launch_half<float>(t, blocks, stream);
}

}  // namespace atom::backend::cuda::hopper
