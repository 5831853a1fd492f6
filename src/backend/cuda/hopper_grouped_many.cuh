// Parts of hopper_grouped_many.cu: a kernel's shape and shared memory, the warp that fetches scales, and a warpgroup that
// multiplies and adds up.
#pragma once

#include "backend/cuda/hopper_many_results.cuh"

namespace atom::backend::cuda::hopper::many {

// A tile is 128 outputs x kRows rows, a warpgroup has 64 outputs of it. A stage is a slot of both blocks, the inputs that
// they meet, and the inputs' scales: of the group, or of the int8 segment. A cluster of kShare CTAs of neighbouring outputs
// shares the inputs, as Shape's do.
template <int kRows_, int kStages_, int kCtas_, int kShare_, int kConsumers_ = 2>
struct GroupedShape {
  static constexpr int kConsumers = kConsumers_, kOutputs = kConsumers * kBlockOutputs;
  static constexpr int kThreads = (kConsumers + 1) * kWarpgroup;
  static constexpr int kRows = kRows_, kStages = kStages_, kShare = kShare_, kSplit = 1;
  static constexpr int kCtas = kCtas_;  // of a multiprocessor
  // Whether the codes of the next slot are read while the last products of the one before run; they take registers.
  static constexpr bool kReadsAhead = kCtas == 1;
  static constexpr int kPieces = kRows * kConsumers > 256 ? 4 : 2;
  static constexpr int kPieceRows = kRows / kPieces;  // whose sums a product computes
  // Warps that fetch scales.
  static constexpr int kScaleParts = kRows > 128 ? 2 : 1, kScaleTurns = kRows > 128 ? 1 : 3;
  static constexpr int kScaleWarps = kScaleParts * kScaleTurns;
  // Registers of a thread that multiplies and of one that fetches: together what the launch took.
  static constexpr int kMost = kConsumers == 3 ? 152
                               : kCtas == 1    ? 232
                                               : 104,
                       kLeast = kCtas == 1 ? 40 : 32;
  static constexpr bool kScarce =
      kCtas > 1 || kPieces > 2;  // registers: results' places are computed anew for each part
  static constexpr int kTogether = kRows > 64 ? 2 : 1;  // of PartWriter
  static constexpr int kSlot = kGroupedSlotBytes;
  static constexpr int kInputBytes = kRows * 128, kStageSlots = kConsumers * kSlot;
  static constexpr int kScaleBytes = kRows * 4;
  static constexpr int kSlotsAt = kStages * kInputBytes;
  static constexpr int kScalesAt = kSlotsAt + kStages * kStageSlots;
  static constexpr int kResultsAt = (kScalesAt + kStages * kScaleBytes + 1023) / 1024 * 1024;
  static constexpr int kBarriersAt = kResultsAt + kConsumers * 2 * kPartBytes;
  static constexpr int kBytes = kBarriersAt + 2 * kStages * 8;
  static_assert((kBytes + 1024) * kCtas <= 233472, "shared memory of a multiprocessor");
};

// Scales of the tiles' rows, beside what Producer asks for. The rows' records have a group's scales far apart, so a warp
// reads four groups of a row at once, for up to 128 rows; warps of the same rows take turns, each with its next four
// groups under way. Of every 16 rows, a thread's four, 2 c, 2 c + 1, 2 c + 8 and 2 c + 9, lie together.

template <typename S>
class ScaleProducer {
 public:
  // index: of the warp, below kScaleWarps
  __device__ ScaleProducer(const Task& t, uint8_t* shared, const Barriers& barriers, int index)
      : t_(t),
        barriers_(barriers),
        turn_(index / S::kScaleParts),
        lane_(static_cast<int>(threadIdx.x) % 32),
        offset_(index % S::kScaleParts * 128) {
    const int place = lane_ / 16 * 16 + lane_ % 8 / 2 * 4 + lane_ / 8 % 2 * 2 + lane_ % 2;
    scales_ = reinterpret_cast<float*>(shared + S::kScalesAt) + offset_ + place;
    at_.phase = 1;
  }

  __device__ void run(const Tiles& tiles) {
    for (int p = tiles.first; p < tiles.count(); p += tiles.step) {
      int row, output_tile;
      tiles.place(p, S::kRows, row, output_tile);
      first_ = row + offset_ + lane_;
      last_ = tiles.end_row - 1;
      put_groups();
      if (t_.w.slots8 > 0) put_int8();
    }
  }

 private:
  static constexpr int kRowsEach = S::kRows / S::kScaleParts / 32;
  using Scales = float[kRowsEach][4];

  __device__ __forceinline__ const uint8_t* record(int k) const {
    return t_.x.data + min(first_ + 32 * k, last_) * t_.x.row_bytes;
  }
  __device__ __forceinline__ void fetch(Scales& scales, int four) const {
    const int at = t_.x.at[t_.segment4].scales_at + four * 16;
#pragma unroll
    for (int k = 0; k < kRowsEach; ++k) {
      const float4 v = *reinterpret_cast<const float4*>(record(k) + at);
      scales[k][0] = v.x, scales[k][1] = v.y, scales[k][2] = v.z, scales[k][3] = v.w;
    }
  }
  __device__ __forceinline__ void put_groups() {
    const int fours = (t_.w.slots4 + 3) / 4;
    Scales scales;
    if (turn_ < fours) fetch(scales, turn_);
    int whose = 0;
#pragma unroll 1
    for (int four = 0; four < fours; ++four) {
      const int count = min(4, t_.w.slots4 - 4 * four);
      if (whose == turn_) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if (i >= count) break;
          float one[kRowsEach];
#pragma unroll
          for (int k = 0; k < kRowsEach; ++k) one[k] = scales[k][i];
          put(one);
        }
        if (four + S::kScaleTurns < fours) fetch(scales, four + S::kScaleTurns);
      } else {
        skip(count);
      }
      whose = whose + 1 == S::kScaleTurns ? 0 : whose + 1;
    }
  }
  __device__ __forceinline__ void put_int8() {
    if (turn_ != 0) return skip(t_.w.slots8);
    float scales[kRowsEach];
#pragma unroll
    for (int k = 0; k < kRowsEach; ++k)
      scales[k] = *reinterpret_cast<const float*>(record(k) + t_.x.at[t_.segment8].scales_at);
#pragma unroll 1
    for (int slot = 0; slot < t_.w.slots8; ++slot) put(scales);
  }
  // To the next stage.
  __device__ __forceinline__ void put(const float (&scales)[kRowsEach]) {
    barrier_wait(barriers_.empty + 8 * at_.stage, at_.phase);
#pragma unroll
    for (int k = 0; k < kRowsEach; ++k) scales_[at_.stage * S::kRows + 32 * k] = scales[k];
    __syncwarp();
    warp_arrive(barriers_.full + 8 * at_.stage);
    at_.template next<S>();
  }
  // Stages of the other warps. Their phases must be seen all the same, and no stage be full before they are: a warp that fell
  // behind by a ring would take a phase for the one after the next.
  __device__ __forceinline__ void skip(int count) {
#pragma unroll 1
    for (int i = 0; i < count; ++i) {
      barrier_wait(barriers_.empty + 8 * at_.stage, at_.phase);
      warp_arrive(barriers_.full + 8 * at_.stage);
      at_.template next<S>();
    }
  }

  const Task& t_;
  Barriers barriers_;
  int turn_, lane_, offset_;
  int first_ = 0, last_ = 0;  // the thread's row, and the last of all
  float* scales_;
  Position at_;
};

// A warpgroup. It multiplies a piece of its rows at a time: while the products of one piece run, the sums of the one
// before are scaled and added. At the edge of the loop no products are under way (the compiler would serialize them), but
// the sums of the last piece wait to be added.
template <typename S>
class GroupedConsumer {
 public:
  // results: null where y is written directly. warp: the same in all lanes, and known to be.
  __device__ GroupedConsumer(const Task& t, const CUtensorMap* results, uint8_t* shared,
                             const Barriers& barriers, int warp)
      : t_(t),
        results_(results),
        shared_(shared),
        barriers_(barriers),
        lane_(static_cast<int>(threadIdx.x) % kWarpgroup),
        block_(warp / 4) {
    slots_ = shared + S::kSlotsAt + block_ * S::kSlot;
    scales_ = shared + S::kScalesAt + static_cast<int>(threadIdx.x) % 4 * 16;
    tile_ = swizzled_tile(shared_address(shared));
    empty_ = S::kShare == 1 ? barriers.empty : of_rank(barriers.empty, threadIdx.x % S::kShare);
  }

  __device__ void run() {
    // What tiles there are is asked anew for each: kept, it would take registers.
    for (int p = static_cast<int>(blockIdx.x) / S::kShare; p < tiles_of<S>(t_).count();
         p += static_cast<int>(gridDim.x) / S::kShare) {
      float results[kAll];
#pragma unroll
      for (float& result : results) result = 0;
      accumulate(results);
      const Tiles tiles = tiles_of<S>(t_);
      int row, output_tile;
      tiles.place(p, S::kRows, row, output_tile);
      const int output = output_tile * S::kOutputs + block_ * kBlockOutputs + lane_.output;
      if (t_.w.slots8 > 0) add_int8(results, steps8_of(output));
      int bits[kAll];
#pragma unroll
      for (int i = 0; i < kAll; ++i) bits[i] = __float_as_int(results[i] * (1.0f / 16));
      writer().write(bits, output, row, tiles.end_row);
    }
    writer().finish();
  }

 private:
  static_assert(S::kRows / kPartRows / S::kTogether % 2 == 0,
                "a tile's new writer begins with the free half of the memory");
  static constexpr int kAll = S::kRows / 2;        // results of a thread
  static constexpr int kSums = S::kPieceRows / 2;  // of a thread in a piece

  __device__ __forceinline__ ResultWriter<S> writer() const { return {t_, results_, shared_}; }
  // A cluster's last CTA may have no outputs.
  __device__ __forceinline__ GroupSteps steps8_of(int output) const {
    constexpr int kPad = kUneven<S> ? 2 * kBlockOutputs : S::kOutputs;  // at most packed_blocks()
    constexpr bool kInside = S::kShare == 1 && !kUneven<S>;
    const int last = (t_.w.n + kPad - 1) / kPad * kPad - 1;
    return {{16 * t_.w.steps8[kInside ? output : min(output, last)],
             16 * t_.w.steps8[kInside ? output + 8 : min(output + 8, last)]}};
  }
  // To all CTAs whose producers fill the stage.
  __device__ __forceinline__ void release(int stage) const {
    __syncwarp();
    if constexpr (S::kShare == 1)
      warp_arrive(empty_ + 8 * stage);
    else if (threadIdx.x % 32 < S::kShare)
      barrier_arrive_at(empty_ + 8 * stage);
  }
  __device__ __forceinline__ const uint8_t* slot_at(int stage) const {
    return slots_ + stage * S::kStageSlots;
  }
  __device__ __forceinline__ void wait_for_stage() const {
    barrier_wait(barriers_.full + 8 * at_.stage, at_.phase);
  }
  __device__ __forceinline__ uint64_t tile(int piece) const {
    return tile_ + static_cast<uint32_t>(at_.stage * (S::kInputBytes / 16) +
                                         piece * (S::kPieceRows * 128 / 16));
  }
  __device__ __forceinline__ void start(const OperandGroup& operand, int piece,
                                        int (&sums)[kSums]) const {
    products_begin();
    operand.start<S::kPieceRows>(sums, tile(piece));
    products_commit();
  }
  // A piece's sums, 16 times as large, of the slot at `stage`.
  __device__ __forceinline__ void add(float (&results)[kAll], int piece, const int (&sums)[kSums],
                                      int stage, const GroupSteps& steps) const {
    const uint8_t* scales = scales_ + stage * S::kScaleBytes + piece * (S::kPieceRows * 4);
#pragma unroll
    for (int j = 0; j < S::kPieceRows / 16; ++j) {
      const float4 four = *reinterpret_cast<const float4*>(scales + j * 64);
      const float scale[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        float& result = results[piece * kSums + 8 * j + i];
        result = fmaf(static_cast<float>(sums[8 * j + i]) * steps.of[i / 2 % 2],
                      scale[i / 4 * 2 + i % 2], result);
      }
    }
  }

  // The slot at hand: its pieces' products start, the sums of all but the last are added. While the last are multiplied,
  // the codes of the next int4 slot are read; `last`: there is none.
  __device__ __forceinline__ void start_second(const OperandGroup& a, float (&results)[kAll],
                                               int (&sums)[2][kSums], GroupSteps& steps, bool last,
                                               GroupNibbles& nibbles) {
    start(a, 1, sums[1]);
    steps = GroupSteps::load(slot_at(at_.stage), lane_);
#pragma unroll
    for (int piece = 0; piece < S::kPieces - 1; ++piece) {
      products_wait<1>();
      pin(sums[piece % 2]);
      add(results, piece, sums[piece % 2], at_.stage, steps);
      if (piece + 2 < S::kPieces) start(a, piece + 2, sums[piece % 2]);
    }
    // Without a condition, which products under way do not bear: of the last slot, its own stage is read again.
    if constexpr (S::kReadsAhead) {
      Position next = at_;
      next.template next<S>();
      if (last) next = at_;
      barrier_wait(barriers_.full + 8 * next.stage, next.phase);
      nibbles.load(slot_at(next.stage), lane_);
    }
    products_wait<0>();
    pin(sums[1]);
  }
  __device__ __forceinline__ void accumulate(float (&results)[kAll]) {
    int sums[2][kSums] = {};
    pin(sums[0]);
    pin(sums[1]);
    OperandGroup a;
    GroupNibbles nibbles;
    GroupSteps steps;
    wait_for_stage();
    a.load(slot_at(at_.stage), lane_);
    start(a, 0, sums[0]);
    start_second(a, results, sums, steps, t_.w.slots4 == 1, nibbles);
#pragma unroll 1
    for (int slot = 1; slot < t_.w.slots4; ++slot) {
      const int before = at_.stage;
      at_.next<S>();
      if constexpr (S::kReadsAhead) {
        a.widen(nibbles);
      } else {
        wait_for_stage();
        a.load(slot_at(at_.stage), lane_);
      }
      start(a, 0, sums[0]);
      add(results, S::kPieces - 1, sums[1], before, steps);
      release(before);
      start_second(a, results, sums, steps, slot + 1 == t_.w.slots4, nibbles);
    }
    add(results, S::kPieces - 1, sums[1], at_.stage, steps);
    release(at_.stage);
    at_.next<S>();
  }

  // The int8 segment: one sum over its slots, two pieces at a time; its slots, which all have a stage, are read in every
  // pass. Their scales are in each of the stages.
  __device__ __forceinline__ void add_int8(float (&results)[kAll], const GroupSteps& steps) {
    const Position begin = at_;
#pragma unroll
    for (int piece = 0; piece < S::kPieces; piece += 2) {
      const bool last = piece + 2 == S::kPieces;
      int first[kSums] = {}, second[kSums] = {};
      pin(first);
      pin(second);
      at_ = begin;
#pragma unroll 1
      for (int slot = 0;; ++slot) {
        wait_for_stage();
        Operand8 operand;
        operand.load(slot_at(at_.stage), lane_);
        const auto offset = static_cast<uint32_t>(slot % 2 * 4);
        products_begin();
        operand.multiply<S::kPieceRows>(first, tile(piece) + offset);
        operand.multiply<S::kPieceRows>(second, tile(piece + 1) + offset);
        products_commit();
        products_wait<0>();
        pin(first);
        pin(second);
        if (slot == t_.w.slots8 - 1) break;
        if (last) release(at_.stage);
        at_.next<S>();
      }
      add(results, piece, first, at_.stage, steps);
      add(results, piece + 1, second, at_.stage, steps);
    }
    release(at_.stage);
    at_.next<S>();
  }

  const Task& t_;
  const CUtensorMap* results_;
  uint8_t* shared_;
  Barriers barriers_;
  Lane lane_;
  int block_;
  const uint8_t *slots_, *scales_;
  uint64_t tile_;
  uint32_t empty_;  // barriers, of the CTA that this thread tells
  Position at_;
};

}  // namespace atom::backend::cuda::hopper::many
