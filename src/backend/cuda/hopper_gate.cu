// SwiGLU to a linear's input (hopper_producers.h): silu(gate) * up, the Hadamard transform and codes. Teams of 8 threads
// take the row's tiles in turn; tiles of a wide segment wait in shared memory, each thread's own values, until the
// row's scale is known.
#include "backend/cuda/hopper.cuh"
#include "backend/cuda/hopper_launch.h"
#include "backend/cuda/hopper_silu.cuh"
#include "backend/cuda/hopper_tile.cuh"
#include "backend/cuda/shared_limit.cuh"

namespace atom::backend::cuda::hopper {
namespace {

__device__ __forceinline__ const float* row_of(const ProduceTask& t, const float*) { return t.x; }
__device__ __forceinline__ const uint16_t* row_of(const ProduceTask& t, const uint16_t*) {
  return t.x_f16;
}
__device__ __forceinline__ float widened(float x) { return x; }
__device__ __forceinline__ float widened(uint16_t x) { return f16_to_f32(x); }

// As load_tile() of f32, from f16, which nobody reads again.
__device__ __forceinline__ void load_once(Values& to, const uint16_t* from, const Tile& tile) {
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    uint2 v = make_uint2(0, 0);
    if (tile.has(c)) v = __ldcs(reinterpret_cast<const uint2*>(from + tile.at(c)));
    const uint32_t word[2] = {v.x, v.y};
#pragma unroll
    for (int i = 0; i < 4; ++i)
      to.at[c][i] = f16_to_f32(static_cast<uint16_t>(word[i / 2] >> (i % 2 * 16)));
  }
}
__device__ __forceinline__ void load_once(Values& to, const float* from, const Tile& tile) {
  load_tile<Once>(to, from, tile);
}

// `gate`: the segment's beginning in the row, in f32 or f16.
template <typename T>
__device__ __forceinline__ void gate_tile(Values& v, const T* gate, int k, const Tile& tile) {
  Values up;
  load_once(v, gate, tile);
  load_once(up, gate + k, tile);
  uint32_t left = silu_but(v.at);
#pragma unroll
  for (int c = 0; c < kChunks; ++c)
#pragma unroll
    for (int i = 0; i < 4; ++i) v.at[c][i] *= up.at[c][i];
      // Seldom: both are read again, so that no register keeps them.
#pragma unroll 1
  for (; left != 0; left &= left - 1) {
    const int place = 31 - __clz(static_cast<int>(left & (~left + 1)));
    if (!tile.has(place / 4)) continue;
    const T* from = gate + tile.at(place / 4) + place % 4;
    const float value = silu_of_f64(widened(*from)) * widened(from[k]);
#pragma unroll
    for (int i = 0; i < 4 * kChunks; ++i)
      if (place == i) v.at[i / 4][i % 4] = value;
  }
}

// Where tile `index` waits: chunk after chunk, so that the lanes of a team lie side by side.
__device__ __forceinline__ float4* waiting(float4* memory, int index, int chunk, int lane) {
  return memory + (index * kChunks + chunk) * kTeam + lane;
}

// What has waited for the row's scales.
__device__ __forceinline__ void finish_waiting(const ProduceTask& t, const RowCut& cut,
                                               float4* memory, uint8_t* row, RowShared& shared) {
  const int tiles = cut.tiles[0] + cut.tiles[1], team = static_cast<int>(threadIdx.x) / kTeam,
            teams = static_cast<int>(blockDim.x) / kTeam;
  const uint2 keys = row_keys(shared);
  int sums[2] = {0, 0};
#pragma unroll 1
  for (int index = team; (index & -kTeams) < tiles; index += teams) {
    Tile tile = tile_at(t.y, cut, index);
    if (cut.wide[tile.segment] == 0) tile.valid = 0;
    Values v = {};
    if (tile.valid > 0)
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        const float4 four = *waiting(memory, index, c, tile.lane);
        v.at[c][0] = four.x, v.at[c][1] = four.y, v.at[c][2] = four.z, v.at[c][3] = four.w;
      }
    const int sum = write_tile(t, cut, tile, v, keys, row);
    sums[0] += tile.segment == 0 ? sum : 0;
    sums[1] += tile.segment == 0 ? 0 : sum;
  }
  write_sums(t.y, cut, sums, row, shared);
}

template <typename T>
__global__ void __launch_bounds__(kGateThreads, 1)
    gate_kernel(const __grid_constant__ ProduceTask t, const __grid_constant__ RowCut cut) {
  extern __shared__ float4 memory[];  // [tiles, kChunks, kTeam], with a wide segment
  __shared__ RowShared shared;
  launch_dependents();
  const int k = t.y.at[0].size + t.y.at[1].size, tiles = cut.tiles[0] + cut.tiles[1];
  const int team = static_cast<int>(threadIdx.x) / kTeam,
            teams = static_cast<int>(blockDim.x) / kTeam;
  const int64_t row = blockIdx.x;
  wait_for_previous_grid();
  const bool any_wide = cut.wide[0] != 0 || cut.wide[1] != 0;
  if (any_wide) begin_keys(shared);
#pragma unroll 1
  for (int index = team; (index & -kTeams) < tiles; index += teams) {
    Tile tile = tile_at(t.y, cut, index);
    Values v;
    gate_tile(v, row_of(t, static_cast<const T*>(nullptr)) + row * 2 * k + segment_begin(t.y, tile),
              k, tile);
    transform_tile(v, tile, t.hadamard);
    if (any_wide) {
      const bool waits = tile.valid > 0 && cut.wide[tile.segment] != 0;
      add_keys(tile, v, waits, shared);
      if (waits) {
#pragma unroll
        for (int c = 0; c < kChunks; ++c)
          store_four(reinterpret_cast<float*>(waiting(memory, index, c, tile.lane)), v.at[c]);
        tile.valid = 0;
      }
    }
    if (__any_sync(kAllLanes, tile.valid > 0) != 0)
      write_tile(t, cut, tile, v, {0, 0}, t.y.data + row * t.y.row_bytes);
  }
  if (any_wide) finish_waiting(t, cut, memory, t.y.data + row * t.y.row_bytes, shared);
}

template <typename T>
Status launch_rows(const ProduceTask& t, Stream stream) {
  const RowCut cut = row_cut(t.y);
  const int bytes = cut.any_wide() ? cut.count() * kTile * static_cast<int>(sizeof(float)) : 0;
  const auto kernel = gate_kernel<T>;
  if (const Status status = allow_shared(kernel, bytes); status != 0) return status;
  return launch_kernel(kernel, {dim3(t.y.rows), gate_threads(t.y), bytes, 1, t.dependent != 0},
                       stream, t, cut);
}

}  // namespace

Status launch_gate_rows(const ProduceTask& t, Stream stream) {
  return t.x_f16 != nullptr ? launch_rows<uint16_t>(t, stream) : launch_rows<float>(t, stream);
}

}  // namespace atom::backend::cuda::hopper
