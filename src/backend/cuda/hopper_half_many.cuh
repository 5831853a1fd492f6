// Parts of hopper_half_many.cu: a kernel's shape and shared memory, its tiles, the warp that fetches for them, and results
// on their way to y.
#pragma once

#include "backend/cuda/hopper_half_linear.cuh"
#include "backend/cuda/hopper_results.cuh"

namespace atom::backend::cuda::hopper::half_many {

inline constexpr int kWarpgroup = 128;
inline constexpr int kConsumers = 2;  // warpgroups, of 64 outputs each
#ifdef ATOM_RACECHECK
inline constexpr int kCluster =
    1;  // compute-sanitizer's racecheck does not see arrivals at other CTAs
#else
inline constexpr int kCluster = 2;  // CTAs that take the same rows and share their inputs
#endif
inline constexpr int kThreads = (kConsumers + 1) * kWarpgroup;
inline constexpr int kOutputs = kConsumers * kBlockOutputs;
inline constexpr int kRasterRows = 8;  // row tiles whose inputs and weights share the L2 cache

// From the L2 cache to the CTAs of `mask`, at the same place in each; complete on the same barrier of each.
__device__ __forceinline__ void copy_panels_to(uint32_t to, const CUtensorMap* map, int row,
                                               int panel, uint32_t barrier, uint16_t mask) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::"
      "cluster "
      "[%0], [%1, {%2, %3, %4}], [%5], %6;" ::"r"(to),
      "l"(map), "r"(0), "r"(row), "r"(panel), "r"(barrier), "h"(mask)
      : "memory");
}

// A stage is 64 inputs: a panel of each block, or half an int4 slot's codes and its steps, and a panel of the rows.
template <HalfKind kKind_, int kRows_, int kStages_>
struct Shape {
  static constexpr HalfKind kKind = kKind_;
  static constexpr int kRows = kRows_, kStages = kStages_;
  static constexpr int kTogether = 2;  // of PartWriter
  static constexpr int kSlot = kKind == HalfKind::kF16 ? kF16SlotBytes : kHalfInt4SlotBytes;
  static constexpr int kCodes = kKind == HalfKind::kF16 ? kPanelBytes : kCodeBytes / 2;
  static constexpr int kSteps = kKind == HalfKind::kF16 ? 0 : 2 * kBlockOutputs;
  static constexpr int kWeights = kCodes + kSteps, kStageWeights = kConsumers * kWeights;
  static constexpr int kInputBytes = kRows * 128;
  static constexpr int kWeightsAt = kStages * kInputBytes;
  // Results on their way to y: two parts of each warpgroup.
  static constexpr int kResultsAt = (kWeightsAt + kStages * kStageWeights + 1023) / 1024 * 1024;
  static constexpr int kRowsAt = kResultsAt + kConsumers * 2 * kPartBytes;  // factors, of each
  static constexpr int kBarriersAt = kRowsAt + kConsumers * kRows * 4;
  static constexpr int kBytes = kBarriersAt + 2 * kStages * 8;
  static_assert(kBytes <= 232448, "shared memory of a block");
};

// Tiles of a cluster, kCluster tiles of outputs wide, in the order in which clusters take them: of kRasterRows row tiles,
// outputs outermost.
struct Tiles {
  int first_row, end_row, row_tiles, output_tiles;

  __device__ int count() const { return row_tiles * output_tiles; }
  __device__ void place(int index, int rows, int& row, int& output_tile) const {
    const int per_group = kRasterRows * output_tiles;
    const int group = index / per_group, rest = index % per_group;
    const int width = min(kRasterRows, row_tiles - group * kRasterRows);
    output_tile = rest / width;
    row = first_row + (group * kRasterRows + rest % width) * rows;
  }
};
template <typename S>
__device__ Tiles tiles_of(const HalfTask& t) {
  const HalfSpan rows = rows_of(t);
  return {rows.begin, rows.end, (rows.end - rows.begin + S::kRows - 1) / S::kRows,
          (t.w.n + kCluster * kOutputs - 1) / (kCluster * kOutputs)};
}
__device__ __forceinline__ int first_tile() { return static_cast<int>(blockIdx.x) / kCluster; }
__device__ __forceinline__ int tile_stride() { return static_cast<int>(gridDim.x) / kCluster; }
__device__ __forceinline__ int rank_in_cluster() { return static_cast<int>(blockIdx.x) % kCluster; }

struct Position {
  int stage = 0, phase = 0;
  template <typename S>
  __device__ void next() {
    if (++stage == S::kStages) stage = 0, phase ^= 1;
  }
};

struct Barriers {
  uint32_t full, empty;
};

// Asks for the weights and inputs of the CTA's tiles.
template <typename S>
class Producer {
 public:
  __device__ Producer(const HalfTask& t, const CUtensorMap* map, uint8_t* shared,
                      const Barriers& barriers)
      : t_(t),
        map_(map),
        inputs_(shared_address(shared)),
        steps_(2 * slots_along(t.w.k)),
        barriers_(barriers) {}

  // Weights do not depend on the kernel before: the first stages' are asked for while it ends. By expert the tiles do.
  __device__ void run() {
    int early = 0;
    if (t_.row_ends == nullptr) {
      const Tiles tiles = tiles_of<S>(t_);
      if (first_tile() < tiles.count()) early = min(steps_, S::kStages);
      place(tiles, first_tile());
#pragma unroll 1
      for (int step = 0; step < early; ++step) ask_weights(step, step);
    }
    wait_for_previous_grid();
#pragma unroll 1
    for (int step = 0; step < early; ++step) ask_inputs(step, step);
    at_.stage = early % S::kStages;
    at_.phase = early == S::kStages ? 0 : 1;
    const Tiles tiles = tiles_of<S>(t_);
    for (int p = first_tile(); p < tiles.count(); p += tile_stride()) {
      place(tiles, p);
#pragma unroll 1
      for (int step = early; step < steps_; ++step) {
        barrier_wait(barriers_.empty + 8 * at_.stage, at_.phase);
        ask_weights(step, at_.stage);
        ask_inputs(step, at_.stage);
        at_.next<S>();
      }
      early = 0;
    }
  }

 private:
  __device__ void place(const Tiles& tiles, int index) {
    int output_tile;
    tiles.place(index, S::kRows, row_, output_tile);
    first_ = t_.w.slots + int64_t{output_tile * kCluster + rank_in_cluster()} * kConsumers *
                              (steps_ / 2) * S::kSlot;
  }
  __device__ void ask_weights(int step, int stage) const {
    const uint32_t full = barriers_.full + 8 * stage;
    barrier_expect(full, S::kInputBytes + S::kStageWeights);
#pragma unroll
    for (int b = 0; b < kConsumers; ++b) {
      const uint8_t* slot = first_ + (int64_t{b} * (steps_ / 2) + step / 2) * S::kSlot;
      const uint32_t to = inputs_ + S::kWeightsAt + stage * S::kStageWeights + b * S::kWeights;
      copy_bulk(to, slot + step % 2 * S::kCodes, S::kCodes, full);
      if (S::kSteps > 0) copy_bulk(to + S::kCodes, slot + 2 * S::kCodes, S::kSteps, full);
    }
  }
  // The CTA's share of the rows, for all of the cluster.
  __device__ void ask_inputs(int step, int stage) const {
    constexpr int kShare = S::kRows / kCluster;
    const int first = rank_in_cluster() * kShare;
    copy_panels_to(inputs_ + stage * S::kInputBytes + first * 128, map_, row_ + first, step,
                   barriers_.full + 8 * stage, (1 << kCluster) - 1);
  }

  const HalfTask& t_;
  const CUtensorMap* map_;
  uint32_t inputs_;
  int steps_;  // of 64 inputs
  Barriers barriers_;
  const uint8_t* first_ = nullptr;
  int row_ = 0;
  Position at_;
};

// A warpgroup's results, from sums to y.
template <typename S>
class Writer {
 public:
  // results: null where y is written directly
  __device__ Writer(const HalfTask& t, const CUtensorMap* results, uint8_t* shared)
      : t_(t),
        group_(static_cast<int>(threadIdx.x) / kWarpgroup),
        thread_(static_cast<int>(threadIdx.x) % kWarpgroup),
        parts_(t, results, shared + S::kResultsAt + group_ * 2 * kPartBytes) {
    rows_ = reinterpret_cast<float*>(shared + S::kRowsAt) + group_ * S::kRows;
  }

  // Before write(): the factors of the tile's rows are on their way.
  __device__ __forceinline__ void fetch_rows(int row, int end) const {
    for (int i = thread_; i < S::kRows && row + i < end; i += kWarpgroup)
      copy_word(shared_address(rows_ + i), t_.x.factors + row + i);
  }
  // output: the warpgroup's first; row: the tile's; end: of the rows.
  __device__ __forceinline__ void write(const float (&sums)[S::kRows / 2], int output, int row,
                                        int end) {
    const int column = HalfLane(thread_).output;
    const float factor[2] = {t_.w.factors[output + column], t_.w.factors[output + column + 8]};
    const float bias[2] = {bias_of(output + column), bias_of(output + column + 8)};
    copies_wait();
    warpgroup_sync(group_ + 1);
    write_parts(sums, factor, bias, output, row, end);
  }
  // Before the thread ends.
  __device__ __forceinline__ void finish() const { parts_.finish(); }

 private:
  __device__ __forceinline__ float of_row(int i) const {
    return rows_[i / 4 * 8 + thread_ % 4 * 2 + i % 2];
  }
  // Through shared memory; the copy engine writes while the next tile is multiplied.
  __device__ __forceinline__ void write_parts(const float (&sums)[S::kRows / 2],
                                              const float (&factor)[2], const float (&bias)[2],
                                              int output, int row, int end) {
#pragma unroll
    for (int part = 0; part < S::kRows / kPartRows; ++part) {
      float of_rows[kPartRows /
                    4];  // before the stores, which the compiler takes for others to the same place
#pragma unroll
      for (int i = 0; i < kPartRows / 8; ++i) {
        of_rows[2 * i] = of_row(part * kPartSums + 4 * i);
        of_rows[2 * i + 1] = of_row(part * kPartSums + 4 * i + 1);
      }
      float values[kPartSums];
#pragma unroll
      for (int i = 0; i < kPartSums; ++i)
        values[i] = sums[part * kPartSums + i] * factor[i / 2 % 2] * of_rows[i / 4 * 2 + i % 2] +
                    bias[i / 2 % 2];
      parts_.write(values, part, output, row + part * kPartRows, end, thread_);
    }
  }
  __device__ __forceinline__ float bias_of(int output) const {
    return t_.w.bias != nullptr && output < t_.w.n ? t_.w.bias[output] : 0.0f;
  }

  const HalfTask& t_;
  int group_, thread_;
  PartWriter<HalfTask, S::kTogether, true> parts_;
  float* rows_;
};

}  // namespace atom::backend::cuda::hopper::half_many
