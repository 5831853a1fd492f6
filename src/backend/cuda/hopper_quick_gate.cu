// SwiGLU of the formats that can_be_quick() takes (hopper_producers.h): blocks that stay and take row after row; each
// thread copies what it will read into a ring of its own in shared memory. Rows with one scale wait there until it is
// known. Of f16, silu is an estimate and a table of its offsets. Few rows: hopper_few_gate.cu.
#include "backend/cuda/hopper.cuh"
#include "backend/cuda/hopper_gate_values.cuh"
#include "backend/cuda/hopper_launch.h"
#include "backend/cuda/hopper_warp.cuh"
#include "backend/cuda/shared_limit.cuh"

namespace atom::backend::cuda::hopper {
namespace {

constexpr int kMostThreads = 768;

// Threads that work on a row together: a block, or, where it has several, one of its crews.
template <bool kSeveral>
struct Crew {
  int crews;  // of the block: 1 or 2

  __device__ int count() const { return kSeveral ? crews : 1; }
  __device__ int threads() const { return static_cast<int>(blockDim.x) >> (count() - 1); }
  __device__ int index() const {
    return kSeveral && static_cast<int>(threadIdx.x) >= threads() ? 1 : 0;
  }
  __device__ int thread() const { return static_cast<int>(threadIdx.x) - index() * threads(); }
  __device__ int first_row() const { return static_cast<int>(blockIdx.x + gridDim.x * index()); }
  __device__ int warp() const { return thread() / kWarp; }
  __device__ int warps() const { return threads() / kWarp; }
  __device__ void sync() const {
    if constexpr (kSeveral)
      asm volatile("bar.sync %0, %1;" ::"r"(1 + index()), "r"(threads()) : "memory");
    else
      __syncthreads();
  }
};
__device__ __forceinline__ void fetch_offsets(const int8_t* offsets, uint4* to) {
  const uint32_t address = shared_address(to);
  for (int i = static_cast<int>(threadIdx.x); i < kSiluOffsets / 16;
       i += static_cast<int>(blockDim.x))
    copy_quad(address + i * 16, offsets + i * 16);
}

// What a thread reads next: its values of a tile of gate, then of up; 16 bytes of every lane of a warp side by side.
template <typename T>
struct Ahead {
  static constexpr int kQuads = RowOf<T>::kQuads;
  uint4* at;
  __device__ uint4* slot(int part, int quad) const { return at + (part * kQuads + quad) * kWarp; }
};
template <typename T>
__device__ __forceinline__ void fetch_gate(const ProduceTask& t, const Ahead<T>& ahead, int row,
                                           int k, int tile) {
  constexpr int kRun = RowOf<T>::kRun, kQuads = RowOf<T>::kQuads;
  if (row >= t.y.rows || tile * kTile >= k) return;
  const T* from = RowOf<T>::of(t) + (int64_t{row} * 2 * k + tile * kTile +
                                     static_cast<int>(threadIdx.x) % kTeam * kRun);
  const T* up = from + k;
  const uint32_t to = shared_address(ahead.at);
#pragma unroll
  for (int quad = 0; quad < kQuads; ++quad) {
    copy_quad_past(to + quad * kWarp * 16, from + quad * kTeam * kRun);
    copy_quad_past(to + (kQuads + quad) * kWarp * 16, up + quad * kTeam * kRun);
  }
}

// Where the thread's values of a row wait: at their places.
__device__ __forceinline__ float* waiting(float* memory, const Part& p) { return memory + p.first; }

// The tiles of a row that have waited; each thread reads its own.
template <int kRun, bool kSeveral>
__device__ __forceinline__ void finish_waiting(const ProduceTask& t, const RowCut& cut,
                                               float seventh, float* memory, int set,
                                               WideShared& shared, uint8_t* row,
                                               const Crew<kSeveral>& crew) {
  const int tiles = cut.tiles[0] + cut.tiles[1], teams = crew.threads() / kTeam;
  const uint2 keys = get_keys(cut, set, shared, crew.warps());
  const Step of_first = quick_step(part_at<kRun>(t, cut, seventh, 0), keys.x);
  Step of_second = of_first;
  if (cut.wide[1] != 0)
    of_second = quick_step(part_at<kRun>(t, cut, seventh, cut.tiles[0]), keys.y);
  int sums[2] = {0, 0};
#pragma unroll 1
  for (int tile = crew.thread() / kTeam; tile / kTeams * kTeams < tiles; tile += teams) {
    const Part p = part_at<kRun>(t, cut, seventh, tile);
    Values v;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) get_four(v, c, waiting(memory, p) + c * kChunk);
    Step step = p.segment == 0 ? of_first : of_second;
    if (__all_sync(kAllLanes, p.wide) == 0) {
      const uint32_t key = team_max(quick_key(v, p), kTeam);
      const Step own = quick_step(p, key);
      if (!p.wide) step = own;
    }
    const int sum = quick_write<kRun>(t.y, p, v, step, row);
    sums[0] += p.segment == 0 ? sum : 0;
    sums[1] += p.segment == 0 ? 0 : sum;
  }
  put_sums(cut, sums, set, shared, crew.warp());
}

// kWide: keys of a row, then its sums, of the crew. T: float, or uint16_t for f16.
template <typename T, bool kWide>
__global__ void __launch_bounds__(kMostThreads, 1)
    quick_gate_kernel(const __grid_constant__ ProduceTask t, const __grid_constant__ RowCut cut,
                      float seventh, int crews) {
  constexpr int kRun = RowOf<T>::kRun, kQuads = RowOf<T>::kQuads;
  constexpr bool kTable = kRun > 4;
  // kTable: offsets of silu; what is on the way; of every crew [size of the second segment], kWide: [k]
  extern __shared__ uint4 memory[];
  __shared__ WideShared shared_of[kTable ? 2 : 1];
  launch_dependents();
  const int k = t.y.at[0].size + t.y.at[1].size, tiles = cut.tiles[0] + cut.tiles[1];
  const Crew<kTable> crew{crews};
  const int teams = crew.threads() / kTeam;
  const int first = crew.thread() / kTeam, step = static_cast<int>(gridDim.x) * crew.count();
  uint4* const way = memory + (kTable ? kSiluOffsets / 16 : 0);
  const Ahead<T> ahead = {way + warp_of_block() * 2 * kQuads * kWarp + lane_of_warp()};
  float* const kept = reinterpret_cast<float*>(way + blockDim.x * 2 * kQuads) +
                      crew.index() * (t.y.at[1].size + (kWide ? tiles * kTile : 0));
  float* const wait = kept + t.y.at[1].size;
  WideShared& shared = shared_of[crew.index()];
  int row = crew.first_row(), set = 0;
  if constexpr (kTable) fetch_offsets(t.silu_offsets, memory);
  wait_for_previous_grid();
  fetch_gate(t, ahead, row, k, first);
  if constexpr (kTable) {
    copies_wait();
    __syncthreads();
  }
#pragma unroll 1
  for (; row < t.y.rows; row += step) {
    uint8_t* record = t.y.data + row * t.y.row_bytes;
    uint2 keys = {0, 0};
    int tile = first;
    if constexpr (kTable) asm volatile("" : "+r"(tile));  // no register for what follows from it
#pragma unroll 1
    for (; tile / kTeams * kTeams < tiles; tile += teams) {
      const Part p = part_at<kRun>(t, cut, seventh, tile);
      Values v;
      uint4 gate[kQuads], up[kQuads];
      copies_wait();
#pragma unroll
      for (int quad = 0; quad < kQuads; ++quad)
        gate[quad] = *ahead.slot(0, quad), up[quad] = *ahead.slot(1, quad);
      const bool last = (tile + teams) / kTeams * kTeams >= tiles;
      fetch_gate(t, ahead, last ? row + step : row, k, last ? first : tile + teams);
      const T* from = RowOf<T>::of(t) + (int64_t{row} * 2 * k + first_in_row<kRun>(p));
      gate_values<T, kTable>(v, gate, up, reinterpret_cast<const int8_t*>(memory), p.exists,
                             [&](int i) { return defined_gate(from, k, i); });
      quick_transform<kRun>(v, p, t.hadamard, t.y, kept);
      const uint32_t key = quick_key(v, p);
      if constexpr (kWide) {
        keys.x = max(keys.x, p.segment == 0 ? key : 0u);
        keys.y = max(keys.y, p.segment == 0 ? 0u : key);
        if (p.exists)
#pragma unroll
          for (int c = 0; c < kChunks; ++c) store_four(waiting(wait, p) + c * kChunk, v.at[c]);
      } else {
        quick_write<kRun>(t.y, p, v, quick_step(p, team_max(key, kTeam)), record);
      }
    }
    if constexpr (kWide) {
      put_keys(cut, keys, set, shared, crew.warp());
      crew.sync();
      if (row != crew.first_row())
        write_wide_sums(t.y, cut, set ^ 1, shared, record - step * t.y.row_bytes, crew.warp(),
                        crew.warps());
      finish_waiting<kRun>(t, cut, seventh, wait, set, shared, record, crew);
      set ^= 1;
    }
  }
  if constexpr (!kWide) return;
  if (kTable && row == crew.first_row()) return;  // the crew had none
  crew.sync();
  write_wide_sums(t.y, cut, set ^ 1, shared, t.y.data + (row - step) * t.y.row_bytes, crew.warp(),
                  crew.warps());
}

template <typename T, bool kWide>
Status launch_many(const ProduceTask& t, const RowCut& cut, int multiprocessors, Stream stream) {
  const GatePlan plan = quick_gate_plan(t.y, sizeof(T));
  const int rows = t.y.rows, crews = multiprocessors * plan.blocks * plan.crews;
  const int turns = (rows + crews - 1) / crews;
  // First crews before second ones: no multiprocessor has two rows while another has none.
  const int blocks = min((rows + turns - 1) / turns, multiprocessors * plan.blocks);
  const auto kernel = quick_gate_kernel<T, kWide>;
  if (const Status status = allow_shared(kernel, plan.shared_bytes); status != 0) return status;
  return launch_kernel(kernel, {dim3(blocks), plan.threads, plan.shared_bytes, 1, t.dependent != 0},
                       stream, t, cut, t.clip / 7.0f, plan.crews);
}
template <typename T>
Status launch_rows(const ProduceTask& t, int multiprocessors, Stream stream) {
  const RowCut cut = row_cut(t.y);
  return cut.any_wide() ? launch_many<T, true>(t, cut, multiprocessors, stream)
                        : launch_many<T, false>(t, cut, multiprocessors, stream);
}

__global__ void silu_offsets_kernel(int8_t* offsets) {
  const int bits = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (bits >= kSiluOffsets) return;
  const float x = f16_to_f32(static_cast<uint16_t>(bits));
  const float defined = silu_of_f64(x), near = silu_near(x);
  const int offset = __float_as_int(defined) - __float_as_int(near);
  offsets[bits] = static_cast<int8_t>(isnan(defined) && isnan(near) ? 0 : offset);
}

}  // namespace

Status launch_silu_offsets(int8_t* offsets, Stream stream) {
  silu_offsets_kernel<<<kSiluOffsets / 256, 256, 0, stream>>>(offsets);
  return cudaGetLastError();
}

Status launch_quick_gate(const ProduceTask& t, int multiprocessors, Stream stream) {
  if (const int blocks = few_gate_blocks(t.y, row_cut(t.y).any_wide(), multiprocessors); blocks > 0)
    return launch_few_gate(t, blocks, stream);
  return t.x_f16 != nullptr ? launch_rows<uint16_t>(t, multiprocessors, stream)
                            : launch_rows<float>(t, multiprocessors, stream);
}

}  // namespace atom::backend::cuda::hopper
