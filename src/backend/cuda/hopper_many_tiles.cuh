// Parts of hopper_linear_many.cu: a kernel's shape and shared memory, its tiles, and the warps that fetch for them.
#pragma once

#include "backend/cuda/hopper_linear.cuh"
#include "backend/cuda/hopper_results.cuh"

namespace atom::backend::cuda::hopper::many {

inline constexpr int kRasterRows = 8;  // row tiles whose inputs and weights share the L2 cache

// A tile is 64 outputs x kRows rows for each of kConsumers warpgroups. A cluster has kShare CTAs of neighbouring outputs,
// each of which fetches a part of the inputs for all of them; or, with kSplit = 2, two CTAs that share tiles of a last turn
// that would leave half of the CTAs idle: each adds up half of the int4 slots, gives the other the sums of half of the
// rows, and has the results of the others.
template <int kRows_, int kStages_, int kShare_, int kSplit_, int kConsumers_ = 2>
struct Shape {
  static constexpr int kConsumers = kConsumers_, kOutputs = kConsumers * kBlockOutputs;
  static constexpr int kThreads = (kConsumers + 1) * kWarpgroup;
  static_assert(kConsumers >= 2 && kConsumers <= 4);
  // Registers of a thread that multiplies; one that fetches has 40: together what the launch took, 168, 128 or 96 each.
  static constexpr int kMost = kConsumers == 2 ? 232 : kConsumers == 3 ? 152 : 104;
  static constexpr int kRows = kRows_, kStages = kStages_, kShare = kShare_, kSplit = kSplit_;
  static constexpr int kCluster = kShare * kSplit;
  static_assert(kShare == 1 || kSplit == 1);
  static constexpr int kSlot = kSlotBytes;
  static constexpr int kInputBytes = kRows * 128, kStageSlots = kConsumers * kSlot;
  static constexpr int kSlotsAt = kStages * kInputBytes;
  static constexpr int kTokensAt = kSlotsAt + kStages * kStageSlots;
  static constexpr int kTokenBytes = kRows * static_cast<int>(sizeof(Token));
  // Results on their way to y: two parts of each warpgroup.
  static constexpr int kResultsAt = (kTokensAt + 2 * kTokenBytes + 1023) / 1024 * 1024;
  static constexpr int kBarriersAt = kResultsAt + kConsumers * 2 * kPartBytes;
  static constexpr int kBytes = kBarriersAt + (2 * kStages + 6) * 8;
  static_assert(kBytes <= 232448, "shared memory of a block");
  static constexpr bool kScarce = kConsumers > 2;                                  // registers
  static constexpr int kTogether = kRows / kSplit % (2 * kPartRows) == 0 ? 2 : 1;  // of PartWriter
  // Whether the int8 segment may have more than kShortSlots8 slots beside int4 slots.
  static constexpr int kShortSlots8 = 2;
  static constexpr bool kLong = kRows <= 128 && kSplit == 1 && kConsumers == 2;
  // Sums from the other CTA lie where the inputs of as many stages were as there are consumers, behind those of the int8
  // segment.
  static_assert(kSplit == 1 || kStages >= kShortSlots8 + kConsumers);
  static_assert(kRows / 2 * kOutputs * 4 == kConsumers * kInputBytes);
  static_assert(kSplit == 1 || kRows / 4 % (4 * kConsumers) == 0);
};

// Whether the last tile may have more blocks than a weight has in memory, packed_blocks().
template <typename S>
inline constexpr bool kUneven = S::kConsumers == 3;

// What a CTA does next: a tile, or its half of one.
struct Turn {
  int tile = -1;
  bool shared = false;
};

// Tiles in the order in which the CTAs take them: of kRasterRows row tiles, outputs outermost.
struct Tiles {
  int first_row, end_row, row_tiles, output_groups;
  int share, rank;  // output tiles of a group, and which of them is the CTA's
  int first, step;  // of the CTA, or of its cluster where that shares inputs
  int whole, pair;  // tiles that are not shared; the cluster
  bool splits;      // Shape::kSplit > 1, known to the compiler

  __device__ int count() const { return row_tiles * output_groups; }
  __device__ void place(int index, int rows, int& row, int& output_tile) const {
    const int per_group = kRasterRows * output_groups;
    const int group = index / per_group, rest = index % per_group;
    const int width = min(kRasterRows, row_tiles - group * kRasterRows);
    output_tile = rest / width * share + rank;
    row = first_row + (group * kRasterRows + rest % width) * rows;
  }
  __device__ bool shares() const { return splits && whole + pair < count(); }
  __device__ bool next(Turn& turn) const {
    if (turn.shared) return false;
    turn.tile = turn.tile < 0 ? first : turn.tile + step;
    if (turn.tile < whole) return true;
    if (!splits) return false;
    turn = {whole + pair, true};
    return turn.tile < count();
  }
};
template <typename S>
__device__ Tiles tiles_of(const Task& t) {
  constexpr int kGroupOutputs = S::kOutputs * S::kShare;
  const Rows rows = rows_of(t);
  const int cta = static_cast<int>(blockIdx.x), ctas = static_cast<int>(gridDim.x);
  Tiles tiles{rows.begin,
              rows.end,
              (rows.end - rows.begin + S::kRows - 1) / S::kRows,
              (t.w.n + kGroupOutputs - 1) / kGroupOutputs,
              S::kShare,
              cta % S::kShare,
              cta / S::kShare,
              ctas / S::kShare,
              0,
              cta / 2,
              S::kSplit > 1};
  tiles.whole = tiles.count();
  if constexpr (S::kSplit == 2) {
    const int rest = tiles.whole % ctas;
    if (2 * rest <= ctas && t.w.slots4 >= 2) tiles.whole -= rest;
  }
  return tiles;
}

// Slots that a CTA adds up: those of the int4 segment or its half of them, then all of the int8 segment.
struct Slots {
  int begin4, end4;
  __device__ int next(int slot, const Weight& w) const {
    return slot + 1 == end4 ? w.slots4 : slot + 1;
  }
};
__device__ __forceinline__ Slots slots_of(const Weight& w, bool shared, int rank) {
  if (!shared) return {0, w.slots4};
  return rank == 0 ? Slots{0, w.slots4 / 2} : Slots{w.slots4 / 2, w.slots4};
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
  uint32_t sums_empty, sums_full;
};

// Asks for the slots and inputs of the CTA's tiles, and for its share of the inputs of its cluster.
template <typename S>
class Producer {
 public:
  // results: what is added to, and the L2 cache has no room for; else null
  __device__ Producer(const Task& t, const CUtensorMap* map4, const CUtensorMap* map8,
                      const CUtensorMap* results, uint8_t* shared, const Barriers& barriers)
      : t_(t),
        map4_(map4),
        map8_(map8),
        results_(results),
        inputs_(shared_address(shared)),
        barriers_(barriers) {}

  // Weights do not depend on the kernel before: the first stages' are asked for while it ends. By expert the tiles do.
  __device__ void run() {
    const int end = t_.w.slots4 + t_.w.slots8;
    int begun = 0;  // stages asked for, up to this slot of the first tile
    int slot = 0;
    if (t_.row_ends == nullptr) {
      const Tiles tiles = tiles_of<S>(t_);
      if (Turn turn; tiles.next(turn)) {
        place(tiles, turn);
#pragma unroll 1
        for (slot = first_slot(); slot < end && begun < S::kStages; ++begun) {
          ask_slot(slot, begun);
          slot = slot_after(slot);
        }
      }
    }
    if constexpr (S::kShare > 1) cluster_wait_alone();  // all barriers are initialized
    wait_for_previous_grid();
    int again = first_slot();
#pragma unroll 1
    for (int i = 0; i < begun; ++i) {
      ask_inputs(again, i);
      again = slot_after(again);
    }
    at_.stage = begun % S::kStages;
    at_.phase = begun == S::kStages ? 0 : 1;
    const Tiles tiles = tiles_of<S>(t_);
    for (Turn turn; tiles.next(turn);) {
      place(tiles, turn);
      if (begun == 0) slot = first_slot();
      begun = 0;
#pragma unroll 1
      for (; slot < end; slot = slot_after(slot)) {
        barrier_wait(barriers_.empty + 8 * at_.stage, at_.phase);
        ask_slot(slot, at_.stage);
        ask_inputs(slot, at_.stage);
        at_.next<S>();
        if constexpr (S::kRows > 128)
          if (results_ != nullptr) ask_results(end - 1 - slot);
      }
    }
  }

 private:
  static constexpr int kShareRows = S::kRows / S::kShare;

  __device__ int first_slot() const { return S::kSplit > 1 ? slots_.begin4 : 0; }
  __device__ int slot_after(int slot) const {
    return S::kSplit > 1 ? slots_.next(slot, t_.w) : slot + 1;
  }
  __device__ void place(const Tiles& tiles, const Turn& turn) {
    if constexpr (S::kSplit > 1)
      slots_ = slots_of(t_.w, turn.shared, static_cast<int>(blockIdx.x) % 2);
    int output_tile;
    tiles.place(turn.tile, S::kRows, row_, output_tile);
    // A group's last CTA may have no outputs; it still fetches inputs.
    if constexpr (S::kShare > 1) output_tile = min(output_tile, (t_.w.n - 1) / S::kOutputs);
    block_bytes_ = (t_.w.slots4 + t_.w.slots8) * S::kSlot;  // less than 2^31: of k < 2^17
    first_ = t_.w.slots + int64_t{output_tile} * S::kConsumers * block_bytes_;
    if constexpr (kUneven<S>)
      last_block_ = (t_.w.n - 1) / kBlockOutputs - output_tile * S::kConsumers;
    output_ = output_tile * S::kOutputs;
  }
  __device__ void ask_slot(int slot, int stage) const {
    const uint32_t full = barriers_.full + 8 * stage;
    barrier_expect(full, S::kInputBytes + S::kStageSlots);
#pragma unroll
    for (int b = 0; b < S::kConsumers; ++b) {
      const int block = kUneven<S> ? min(b, last_block_) : b;  // whose results nobody has
      ask_block(inputs_ + S::kSlotsAt + stage * S::kStageSlots + b * S::kSlot,
                first_ + (block * block_bytes_ + slot * S::kSlot), full);
    }
  }
  // Weights that one row tile reads shall not drive out of the L2 cache what the next kernel finds there.
  __device__ void ask_block(uint32_t to, const uint8_t* from, uint32_t full) const {
    if (t_.x.rows <= S::kRows)
      copy_bulk(to, from, S::kSlot, full, evict_first_policy());
    else
      copy_bulk(to, from, S::kSlot, full);
  }
  __device__ void ask_inputs(int slot, int stage) const {
    const SlotInputs in = inputs_of(slot, t_.w.slots4, map4_, map8_);
    const uint32_t to = inputs_ + stage * S::kInputBytes, full = barriers_.full + 8 * stage;
    if constexpr (S::kShare == 1) {
      copy_box(to, in.map, in.column, row_, full);
    } else {
      const int rank = static_cast<int>(blockIdx.x) % S::kShare;
      copy_box_to((1 << S::kShare) - 1, to + rank * kShareRows * 128, in.map, in.column,
                  row_ + rank * kShareRows, full);
    }
  }

  // While the last kSlotsBefore slots of a tile are asked for, so are the boxes that its results will be added to: all CTAs
  // end tiles at about the same time, and would wait for memory together.
  __device__ void ask_results(int slots_left) const {
    constexpr int kSlotsBefore = 16, kBoxes = S::kOutputs / 32 * (S::kRows / kPartRows);
    constexpr int kEach = (kBoxes + kSlotsBefore - 1) / kSlotsBefore;
    if (slots_left >= kSlotsBefore) return;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int box = slots_left * kEach + i;
      if (box < kBoxes)
        prefetch_box(results_, output_ + box % (S::kOutputs / 32) * 32,
                     row_ + box / (S::kOutputs / 32) * kPartRows);
    }
  }

  const Task& t_;
  const CUtensorMap *map4_, *map8_, *results_;
  uint32_t inputs_;
  Slots slots_{};  // with kSplit > 1
  Barriers barriers_;
  const uint8_t* first_ = nullptr;
  int block_bytes_ = 0;
  int last_block_ = 0;  // with kUneven: of the tile's
  int row_ = 0, output_ = 0;
  Position at_;
};

// Scales of the tiles' rows, for two tiles at a time.
template <typename S>
__device__ void produce_tokens(const Task& t, const Tiles& tiles, uint8_t* shared,
                               const Barriers& barriers) {
  int buffer = 0, phase = 1;
  for (Turn turn; tiles.next(turn);) {
    int row, output_tile;
    tiles.place(turn.tile, S::kRows, row, output_tile);
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
