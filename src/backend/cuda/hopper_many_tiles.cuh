// Parts of hopper_linear_many.cu: a kernel's shape and shared memory, its tiles, and the warps that fetch for them.
#pragma once

#include "backend/cuda/hopper_linear.cuh"

namespace atom::backend::cuda::hopper::many {

inline constexpr int kConsumers = 2;  // warpgroups, of 64 outputs each
inline constexpr int kThreads = (kConsumers + 1) * kWarpgroup;
inline constexpr int kOutputs = kConsumers * kBlockOutputs;
inline constexpr int kRasterRows = 8;  // row tiles whose inputs and weights share the L2 cache

template <int kRows_, int kStages_>
struct Shape {
  static constexpr int kRows = kRows_, kStages = kStages_;
  static constexpr int kPart =
      kRows > 128 ? 64 : kRows;  // rows whose int8 sums are in registers at once
  static constexpr int kSlot = kSlotBytes;
  static constexpr int kInputBytes = kRows * 128, kStageSlots = kConsumers * kSlot;
  static constexpr int kSlotsAt = kStages * kInputBytes;
  static constexpr int kTokensAt = kSlotsAt + kStages * kStageSlots;
  static constexpr int kTokenBytes = kRows * static_cast<int>(sizeof(Token));
  // Results on their way to y: two boxes of 32 outputs, for kBoxRows rows, twice, of each warpgroup.
  static constexpr int kBoxRows = 32, kBoxBytes = kBoxRows * 128;
  static constexpr int kResultsAt = (kTokensAt + 2 * kTokenBytes + 1023) / 1024 * 1024;
  static constexpr int kBarriersAt = kResultsAt + kConsumers * 4 * kBoxBytes;
  static constexpr int kBytes = kBarriersAt + (2 * kStages + 4) * 8;
  static_assert(kBytes <= 232448, "shared memory of a block");
};

// Tiles in the order in which the CTAs take them: of kRasterRows row tiles, outputs outermost.
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
__device__ Tiles tiles_of(const Task& t) {
  const Rows rows = rows_of(t);
  const int blocks = (t.w.n + kBlockOutputs - 1) / kBlockOutputs;
  return {rows.begin, rows.end, (rows.end - rows.begin + S::kRows - 1) / S::kRows,
          (blocks + kConsumers - 1) / kConsumers};
}

// Later loads stay behind this point: asked for early, all at once, they would take the registers of the sums.
__device__ __forceinline__ void hold_loads() { asm volatile("" ::: "memory"); }

struct Position {
  int stage = 0, phase = 0;
  template <typename S>
  __device__ void next() {
    if (++stage == S::kStages) stage = 0, phase ^= 1;
  }
};

struct Barriers {
  uint32_t full, empty, tokens_full, tokens_empty;
};

// Asks for the slots and inputs of the CTA's tiles.
template <typename S>
class Producer {
 public:
  __device__ Producer(const Task& t, const CUtensorMap* map4, const CUtensorMap* map8,
                      uint8_t* shared, const Barriers& barriers)
      : t_(t),
        map4_(map4),
        map8_(map8),
        inputs_(shared_address(shared)),
        slots_(t.w.slots4 + t.w.slots8),
        barriers_(barriers) {}

  // Weights do not depend on the kernel before: the first stages' are asked for while it ends. By expert the tiles do.
  __device__ void run() {
    int early = 0;
    if (t_.row_ends == nullptr) {
      const Tiles tiles = tiles_of<S>(t_);
      if (static_cast<int>(blockIdx.x) < tiles.count()) early = min(slots_, S::kStages);
      place(tiles, static_cast<int>(blockIdx.x));
#pragma unroll 1
      for (int slot = 0; slot < early; ++slot) ask_slot(slot, slot);
    }
    wait_for_previous_grid();
#pragma unroll 1
    for (int slot = 0; slot < early; ++slot) ask_inputs(slot, slot);
    at_.stage = early % S::kStages;
    at_.phase = early == S::kStages ? 0 : 1;
    const Tiles tiles = tiles_of<S>(t_);
    for (int p = static_cast<int>(blockIdx.x); p < tiles.count();
         p += static_cast<int>(gridDim.x)) {
      place(tiles, p);
#pragma unroll 1
      for (int slot = early; slot < slots_; ++slot) {
        barrier_wait(barriers_.empty + 8 * at_.stage, at_.phase);
        ask_slot(slot, at_.stage);
        ask_inputs(slot, at_.stage);
        at_.next<S>();
      }
      early = 0;
    }
  }

 private:
  __device__ void place(const Tiles& tiles, int index) {
    int output_tile;
    tiles.place(index, S::kRows, row_, output_tile);
    first_ = t_.w.slots + int64_t{output_tile} * kConsumers * slots_ * S::kSlot;
  }
  __device__ void ask_slot(int slot, int stage) const {
    const uint32_t full = barriers_.full + 8 * stage;
    barrier_expect(full, S::kInputBytes + S::kStageSlots);
#pragma unroll
    for (int b = 0; b < kConsumers; ++b)
      copy_bulk(inputs_ + S::kSlotsAt + stage * S::kStageSlots + b * S::kSlot,
                first_ + (int64_t{b} * slots_ + slot) * S::kSlot, S::kSlot, full);
  }
  __device__ void ask_inputs(int slot, int stage) const {
    const SlotInputs in = inputs_of(slot, t_.w.slots4, map4_, map8_);
    copy_box(inputs_ + stage * S::kInputBytes, in.map, in.column, row_, barriers_.full + 8 * stage);
  }

  const Task& t_;
  const CUtensorMap *map4_, *map8_;
  uint32_t inputs_;
  int slots_;
  Barriers barriers_;
  const uint8_t* first_ = nullptr;
  int row_ = 0;
  Position at_;
};

// Scales of the tiles' rows, for two tiles at a time.
template <typename S>
__device__ void produce_tokens(const Task& t, const Tiles& tiles, uint8_t* shared,
                               const Barriers& barriers) {
  int buffer = 0, phase = 1;
  for (int p = static_cast<int>(blockIdx.x); p < tiles.count(); p += static_cast<int>(gridDim.x)) {
    int row, output_tile;
    tiles.place(p, S::kRows, row, output_tile);
    barrier_wait(barriers.tokens_empty + 8 * buffer, phase);
    auto* tokens = reinterpret_cast<Token*>(shared + S::kTokensAt + buffer * S::kTokenBytes);
    for (int i = static_cast<int>(threadIdx.x) % 32; i < S::kRows && row + i < tiles.end_row;
         i += 32)
      fetch_token(t, row + i, tokens + i);
    copies_wait();
    barrier_arrive(barriers.tokens_full + 8 * buffer);
    buffer ^= 1;
    if (buffer == 0) phase ^= 1;
  }
}

}  // namespace atom::backend::cuda::hopper::many
