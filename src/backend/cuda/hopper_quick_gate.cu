// SwiGLU of the formats that can_be_quick() takes (hopper_producers.h). Many rows: blocks that stay and take row after
// row; each thread copies what it will read into a ring of its own in shared memory. Few: a cluster shares a row, a
// tile a team. Rows with one scale wait there, or in registers, until it is known.
#include "backend/cuda/hopper.cuh"
#include "backend/cuda/hopper_launch.h"
#include "backend/cuda/hopper_quick.cuh"
#include "backend/cuda/hopper_silu.cuh"
#include "backend/cuda/hopper_warp.cuh"

namespace atom::backend::cuda::hopper {
namespace {

constexpr int kMostThreads = 768;
constexpr int kFewThreads = 512;  // of a block that shares a row

// What a thread reads next: its values of a tile of gate, then of up; 16 bytes of every lane of a warp side by side.
struct Ahead {
  float4* at;
  __device__ float4* slot(int part, int c) const { return at + (part * kChunks + c) * kWarp; }
};
__device__ __forceinline__ const float* gate_at(const ProduceTask& t, int row, int k, int tile) {
  return t.x + (int64_t{row} * 2 * k + tile * kTile + static_cast<int>(threadIdx.x) % kTeam * 4);
}
__device__ __forceinline__ void fetch_gate(const ProduceTask& t, const Ahead& ahead, int row, int k,
                                           int tile) {
  if (row >= t.y.rows || tile * kTile >= k) return;
  const float* from = gate_at(t, row, k, tile);
  const float* up = from + k;
  const uint32_t to = shared_address(ahead.at);
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    copy_quad_past(to + c * kWarp * 16, from + c * kChunk);
    copy_quad_past(to + (kChunks + c) * kWarp * 16, up + c * kChunk);
  }
}

// silu(v) * up; `one(i)` computes value i from what was read, with silu's definition.
template <typename One>
__device__ __forceinline__ void gate_values(Values& v, const Values& up, bool exists,
                                            const One& one) {
  uint32_t left = silu_but(v.at);
  if (!exists) left = 0;
#pragma unroll
  for (int i = 0; i < 4 * kChunks; ++i) v.at[i / 4][i % 4] *= up.at[i / 4][i % 4];
#pragma unroll 1
  for (; left != 0; left &= left - 1) {  // seldom
    const int place = 31 - __clz(static_cast<int>(left & (~left + 1)));
    const float value = one(place);
#pragma unroll
    for (int i = 0; i < 4 * kChunks; ++i)
      if (place == i) v.at[i / 4][i % 4] = value;
  }
}
// The values that silu's definition computes are read again, from where they came.
__device__ __forceinline__ float defined_gate(const float* from, int k, int i) {
  const float* at = from + i / 4 * kChunk + i % 4;
  return silu_of_f64(*at) * at[k];
}

// Where the thread's values of a row wait: at their places.
__device__ __forceinline__ float* waiting(float* memory, const Part& p) { return memory + p.first; }

// The tiles of a row that have waited; each thread reads its own.
__device__ __forceinline__ void finish_waiting(const ProduceTask& t, const RowCut& cut,
                                               float seventh, float* memory, int set,
                                               WideShared& shared, uint8_t* row) {
  const int tiles = cut.tiles[0] + cut.tiles[1], teams = static_cast<int>(blockDim.x) / kTeam;
  const uint2 keys = get_keys(cut, set, shared);
  const Step of_first = quick_step(part_at(t, cut, seventh, 0), keys.x);
  Step of_second = of_first;
  if (cut.wide[1] != 0) of_second = quick_step(part_at(t, cut, seventh, cut.tiles[0]), keys.y);
  int sums[2] = {0, 0};
#pragma unroll 1
  for (int tile = static_cast<int>(threadIdx.x) / kTeam; tile / kTeams * kTeams < tiles;
       tile += teams) {
    const Part p = part_at(t, cut, seventh, tile);
    Values v;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) get_four(v, c, waiting(memory, p) + c * kChunk);
    Step step = p.segment == 0 ? of_first : of_second;
    if (__all_sync(kAllLanes, p.wide) == 0) {
      const uint32_t key = team_max(quick_key(v, p), kTeam);
      const Step own = quick_step(p, key);
      if (!p.wide) step = own;
    }
    const int sum = quick_write(t.y, p, v, step, row);
    sums[0] += p.segment == 0 ? sum : 0;
    sums[1] += p.segment == 0 ? 0 : sum;
  }
  put_sums(cut, sums, set, shared);
}

template <bool kWide>
__global__ void __launch_bounds__(kMostThreads, 1)
    quick_gate_kernel(const __grid_constant__ ProduceTask t, const __grid_constant__ RowCut cut,
                      float seventh) {
  extern __shared__ float4
      memory[];  // what is on the way; [size of the second segment]; kWide: [k]
  __shared__ WideShared shared;
  launch_dependents();
  const int k = t.y.at[0].size + t.y.at[1].size, tiles = cut.tiles[0] + cut.tiles[1];
  const int teams = static_cast<int>(blockDim.x) / kTeam;
  const int first = static_cast<int>(threadIdx.x) / kTeam, step = static_cast<int>(gridDim.x);
  const Ahead ahead = {memory + warp_of_block() * 2 * kChunks * kWarp + lane_of_warp()};
  auto* const kept = reinterpret_cast<float*>(memory + blockDim.x * 2 * kChunks);
  float* const wait = kept + t.y.at[1].size;
  int row = static_cast<int>(blockIdx.x), set = 0;
  wait_for_previous_grid();
  fetch_gate(t, ahead, row, k, first);
#pragma unroll 1
  for (; row < t.y.rows; row += step) {
    uint8_t* record = t.y.data + row * t.y.row_bytes;
    uint2 keys = {0, 0};
#pragma unroll 1
    for (int tile = first; tile / kTeams * kTeams < tiles; tile += teams) {
      const Part p = part_at(t, cut, seventh, tile);
      Values v, up;
      copies_wait();
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        put_four(v, c, *ahead.slot(0, c));
        put_four(up, c, *ahead.slot(1, c));
      }
      const bool last = (tile + teams) / kTeams * kTeams >= tiles;
      fetch_gate(t, ahead, last ? row + step : row, k, last ? first : tile + teams);
      const float* from = t.x + (int64_t{row} * 2 * k + p.first);
      gate_values(v, up, p.exists, [&](int i) { return defined_gate(from, k, i); });
      quick_transform(v, p, t.hadamard, t.y, kept);
      const uint32_t key = quick_key(v, p);
      if constexpr (kWide) {
        keys.x = max(keys.x, p.segment == 0 ? key : 0u);
        keys.y = max(keys.y, p.segment == 0 ? 0u : key);
        if (p.exists)
#pragma unroll
          for (int c = 0; c < kChunks; ++c) store_four(waiting(wait, p) + c * kChunk, v.at[c]);
      } else {
        quick_write(t.y, p, v, quick_step(p, team_max(key, kTeam)), record);
      }
    }
    if constexpr (kWide) {
      put_keys(cut, keys, set, shared);
      __syncthreads();
      if (row != static_cast<int>(blockIdx.x))
        write_wide_sums(t.y, cut, set ^ 1, shared, record - step * t.y.row_bytes);
      finish_waiting(t, cut, seventh, wait, set, shared, record);
      set ^= 1;
    }
  }
  if constexpr (!kWide) return;
  __syncthreads();
  write_wide_sums(t.y, cut, set ^ 1, shared, t.y.data + (row - step) * t.y.row_bytes);
}

// ---- few rows

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

template <bool kWide>
__global__ void __launch_bounds__(kFewThreads, 1)
    few_gate_kernel(const __grid_constant__ ProduceTask t, const __grid_constant__ RowCut cut,
                    float seventh, int blocks, int block_tiles) {
  extern __shared__ float kept[];  // [size of the second segment]
  __shared__ FewShared shared;
  launch_dependents();
  const int warps = static_cast<int>(blockDim.x) / kWarp * blocks;
  if constexpr (kWide) prepare_cluster(shared, warps);
  const int k = t.y.at[0].size + t.y.at[1].size, row = static_cast<int>(blockIdx.x) / blocks,
            rank = static_cast<int>(blockIdx.x) % blocks,
            team = static_cast<int>(threadIdx.x) / kTeam,
            place = rank * (warps / blocks) + warp_of_block();
  Part p = part_at(t, cut, seventh, rank * block_tiles + team);
  if (team >= block_tiles) p.exists = p.begins = false;
  const float* from = t.x + (int64_t{row} * 2 * k + p.first);
  uint8_t* record = t.y.data + row * t.y.row_bytes;
  wait_for_previous_grid();
  Values v, up;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    put_four(v, c, __ldcg(reinterpret_cast<const float4*>(from + c * kChunk)));
    put_four(up, c, __ldcg(reinterpret_cast<const float4*>(from + k + c * kChunk)));
  }
  gate_values(v, up, p.exists, [&](int i) { return defined_gate(from, k, i); });
  quick_transform(v, p, t.hadamard, t.y, kept);
  uint32_t key = quick_key(v, p);
  uint2 keys = {p.segment == 0 ? key : 0u, p.segment == 0 ? 0u : key};
  if constexpr (kWide) keys = cluster_keys(shared, keys, place, blocks, warps);
  key = team_max(key, kTeam);
  if (kWide && p.wide) key = p.segment == 0 ? keys.x : keys.y;
  const int sum = quick_write(t.y, p, v, quick_step(p, key), record);
  if constexpr (kWide)
    cluster_sums(t.y, cut, shared, {p.segment == 0 ? sum : 0, p.segment == 0 ? 0 : sum}, place,
                 warps, record);
}

template <bool kWide>
Status launch_few(const ProduceTask& t, const RowCut& cut, int blocks, Stream stream) {
  const int tiles = (cut.count() + blocks - 1) / blocks;
  const int threads = (tiles * kTeam + kWarp - 1) / kWarp * kWarp;
  const int kept = t.y.at[1].size * static_cast<int>(sizeof(float));
  return launch_kernel(
      few_gate_kernel<kWide>,
      {dim3(t.y.rows * blocks), threads, kept, kWide ? blocks : 1, t.dependent != 0}, stream, t,
      cut, t.clip / 7.0f, blocks, tiles);
}

template <bool kWide>
Status launch_many(const ProduceTask& t, const RowCut& cut, int multiprocessors, Stream stream) {
  const GatePlan plan = quick_gate_plan(t.y);
  const int rows = t.y.rows, blocks = multiprocessors * plan.blocks;
  const int turns = (rows + blocks - 1) / blocks;
  const auto kernel = quick_gate_kernel<kWide>;
  if (const cudaError_t status = cudaFuncSetAttribute(
          kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, plan.shared_bytes);
      status != cudaSuccess)
    return status;
  return launch_kernel(
      kernel,
      {dim3((rows + turns - 1) / turns), plan.threads, plan.shared_bytes, 1, t.dependent != 0},
      stream, t, cut, t.clip / 7.0f);
}

}  // namespace

Status launch_quick_gate(const ProduceTask& t, int multiprocessors, Stream stream) {
  const RowCut cut = row_cut(t.y);
  const bool wide = cut.any_wide();
  if (const int blocks = few_gate_blocks(t.y, multiprocessors); blocks > 0)
    return wide ? launch_few<true>(t, cut, blocks, stream)
                : launch_few<false>(t, cut, blocks, stream);
  return wide ? launch_many<true>(t, cut, multiprocessors, stream)
              : launch_many<false>(t, cut, multiprocessors, stream);
}

}  // namespace atom::backend::cuda::hopper
