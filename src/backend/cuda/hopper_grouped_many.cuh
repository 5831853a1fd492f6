// Parts of hopper_grouped_many.cu: a kernel's shape and shared memory, the warp that fetches scales, and a warpgroup that
// multiplies and adds up.
#pragma once

#include "backend/cuda/hopper_many_results.cuh"

namespace atom::backend::cuda::hopper::many {

// A stage is a slot of each block, the inputs that they meet, and the inputs' scales: of the group, or of the int8 segment.
template <int kRows_, int kStages_>
struct GroupedShape {
  static constexpr int kRows = kRows_, kStages = kStages_;
  static constexpr int kSlot = kGroupedSlotBytes;
  static constexpr int kHalf = kRows / 2;  // rows whose sums a product computes
  static constexpr int kInputBytes = kRows * 128, kStageSlots = kConsumers * kSlot;
  static constexpr int kScaleBytes = kRows * 4;
  static constexpr int kSlotsAt = kStages * kInputBytes;
  static constexpr int kScalesAt = kSlotsAt + kStages * kStageSlots;
  static constexpr int kBoxRows = 32, kBoxBytes = kBoxRows * 128;  // as Shape
  static constexpr int kResultsAt = (kScalesAt + kStages * kScaleBytes + 1023) / 1024 * 1024;
  static constexpr int kBarriersAt = kResultsAt + kConsumers * 4 * kBoxBytes;
  static constexpr int kBytes = kBarriersAt + 2 * kStages * 8;
  static_assert(kBytes <= 232448, "shared memory of a block");
};

// Scales of the tiles' rows, beside what Producer asks for. One warp; the rows' records have a group's scales far apart,
// so it reads four groups of a row at once.
template <typename S>
class ScaleProducer {
 public:
  __device__ ScaleProducer(const Task& t, uint8_t* shared, const Barriers& barriers)
      : t_(t),
        barriers_(barriers),
        lane_(static_cast<int>(threadIdx.x) % 32),
        scales_(reinterpret_cast<float*>(shared + S::kScalesAt) + lane_) {
    at_.phase = 1;
  }

  __device__ void run(const Tiles& tiles) {
    for (int p = static_cast<int>(blockIdx.x); p < tiles.count();
         p += static_cast<int>(gridDim.x)) {
      int row, output_tile;
      tiles.place(p, S::kRows, row, output_tile);
      const uint8_t* records[kRowsEach];
#pragma unroll
      for (int k = 0; k < kRowsEach; ++k)
        records[k] = t_.x.data + min(row + 32 * k + lane_, tiles.end_row - 1) * t_.x.row_bytes;
      put_groups(records);
      if (t_.w.slots8 > 0) put_int8(records);
    }
  }

 private:
  static constexpr int kRowsEach = S::kRows / 32;

  __device__ __forceinline__ void put_groups(const uint8_t* const (&records)[kRowsEach]) {
    const int begin = t_.x.at[t_.segment4].scales_at;
#pragma unroll 1
    for (int slot = 0; slot < t_.w.slots4; slot += 4) {
      float4 four[kRowsEach];
#pragma unroll
      for (int k = 0; k < kRowsEach; ++k)
        four[k] = *reinterpret_cast<const float4*>(records[k] + begin + slot * 4);
      float one[kRowsEach];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (slot + i >= t_.w.slots4) break;
#pragma unroll
        for (int k = 0; k < kRowsEach; ++k)
          one[k] = i == 0 ? four[k].x : i == 1 ? four[k].y : i == 2 ? four[k].z : four[k].w;
        put(one);
      }
    }
  }
  __device__ __forceinline__ void put_int8(const uint8_t* const (&records)[kRowsEach]) {
    float scales[kRowsEach];
#pragma unroll
    for (int k = 0; k < kRowsEach; ++k)
      scales[k] = *reinterpret_cast<const float*>(records[k] + t_.x.at[t_.segment8].scales_at);
#pragma unroll 1
    for (int slot = 0; slot < t_.w.slots8; ++slot) put(scales);
  }
  // To the next stage.
  __device__ __forceinline__ void put(const float (&scales)[kRowsEach]) {
    barrier_wait(barriers_.empty + 8 * at_.stage, at_.phase);
#pragma unroll
    for (int k = 0; k < kRowsEach; ++k) scales_[at_.stage * S::kRows + 32 * k] = scales[k];
    __syncwarp();
    if (lane_ == 0) barrier_arrive(barriers_.full + 8 * at_.stage);
    at_.template next<S>();
  }

  const Task& t_;
  Barriers barriers_;
  int lane_;
  float* scales_;
  Position at_;
};

// Multiplies half of the rows at a time: while the products of one half run, the sums of the other are scaled and added.
template <typename S>
class GroupedConsumer {
 public:
  // results: null where y is written directly
  __device__ GroupedConsumer(const Task& t, const CUtensorMap* results, uint8_t* shared,
                             const Barriers& barriers)
      : t_(t),
        writer_(t, results, shared),
        barriers_(barriers),
        lane_(static_cast<int>(threadIdx.x) % kWarpgroup) {
    block_ = shared + S::kSlotsAt + static_cast<int>(threadIdx.x) / kWarpgroup * S::kSlot;
    scales_ = shared + S::kScalesAt + static_cast<int>(threadIdx.x) % 4 * 8;
    tile_ = swizzled_tile(shared_address(shared));
  }

  __device__ void run(const Tiles& tiles) {
    for (int p = static_cast<int>(blockIdx.x); p < tiles.count();
         p += static_cast<int>(gridDim.x)) {
      int row, output_tile;
      tiles.place(p, S::kRows, row, output_tile);
      const int output = output_tile * kOutputs +
                         static_cast<int>(threadIdx.x) / kWarpgroup * kBlockOutputs + lane_.output;
      float results[S::kRows / 2];
#pragma unroll
      for (float& result : results) result = 0;
      accumulate(results);
      if (t_.w.slots8 > 0) add_int8(results, output);
      int bits[S::kRows / 2];
#pragma unroll
      for (int i = 0; i < S::kRows / 2; ++i) bits[i] = __float_as_int(results[i]);
      writer_.write(bits, output, row, tiles.end_row);
    }
    writer_.finish();
  }

 private:
  static constexpr int kSums = S::kHalf / 2;  // of a thread in half of the rows

  __device__ __forceinline__ void release(int stage) const {
    if (threadIdx.x % 32 == 0) barrier_arrive(barriers_.empty + 8 * stage);
  }
  __device__ __forceinline__ uint64_t tile(int half) const {
    return tile_ +
           static_cast<uint32_t>(at_.stage * (S::kInputBytes / 16) + half * (S::kHalf * 128 / 16));
  }
  // A slot's operand, when its stage is full.
  __device__ __forceinline__ void load(OperandGroup& operand) const {
    barrier_wait(barriers_.full + 8 * at_.stage, at_.phase);
    operand.load(block_ + at_.stage * S::kStageSlots, lane_);
  }
  __device__ __forceinline__ void start(const OperandGroup& operand, int half,
                                        int (&sums)[kSums]) const {
    products_begin();
    operand.start<S::kHalf>(sums, tile(half));
    products_commit();
  }
  __device__ __forceinline__ void add(float (&results)[S::kRows / 2], int half,
                                      const int (&sums)[kSums], int stage,
                                      const GroupSteps& steps) const {
    const uint8_t* scales = scales_ + stage * S::kScaleBytes + half * (S::kHalf * 4);
#pragma unroll
    for (int j = 0; j < S::kHalf / 8; ++j) {
      const float2 both = *reinterpret_cast<const float2*>(scales + j * 32);
      add_group(results + half * kSums + 4 * j,
                {sums[4 * j], sums[4 * j + 1], sums[4 * j + 2], sums[4 * j + 3]}, steps, both);
      if (j % 2 == 1) hold_loads();
    }
  }

  // The sums of the slot at `stage` are under way, of both halves; starts those of the next slot behind them.
  __device__ __forceinline__ void turn(float (&results)[S::kRows / 2], int (&first)[kSums],
                                       int (&second)[kSums], OperandGroup& next) {
    const int stage = at_.stage;
    at_.next<S>();
    products_wait<1>();
    pin(first);
    const GroupSteps steps = steps_of_group(stage);
    add(results, 0, first, stage, steps);
    load(next);
    start(next, 0, first);
    products_wait<1>();
    pin(second);
    add(results, 1, second, stage, steps);
    release(stage);
    start(next, 1, second);
  }
  __device__ __forceinline__ GroupSteps steps_of_group(int stage) const {
    return GroupSteps::load<16>(block_ + stage * S::kStageSlots, lane_);
  }

  // kCount slots, one after the other. Products do not stay under way from one chain to the next: reading a sum then
  // would make the compiler wait for all of them.
  template <int kCount>
  __device__ __forceinline__ void chain(float (&results)[S::kRows / 2], int (&first)[kSums],
                                        int (&second)[kSums]) {
    OperandGroup operands[2];
    load(operands[0]);
    start(operands[0], 0, first);
    start(operands[0], 1, second);
#pragma unroll
    for (int i = 1; i < kCount; ++i) turn(results, first, second, operands[i % 2]);
    const GroupSteps steps = steps_of_group(at_.stage);
    products_wait<1>();
    pin(first);
    add(results, 0, first, at_.stage, steps);
    products_wait<0>();
    pin(second);
    add(results, 1, second, at_.stage, steps);
    release(at_.stage);
    at_.next<S>();
  }
  __device__ __forceinline__ void accumulate(float (&results)[S::kRows / 2]) {
    constexpr int kChain = S::kRows > 64 ? 2 : 4;  // as many as have registers
    int first[kSums] = {}, second[kSums] = {};
    pin(first);
    pin(second);
    int left = t_.w.slots4;
#pragma unroll 1
    for (; left % kChain != 0; --left) chain<1>(results, first, second);
#pragma unroll 1
    for (; left > 0; left -= kChain) chain<kChain>(results, first, second);
  }

  // The int8 segment: one sum over its slots. The stage of the last is held until its scales have been read.
  __device__ __forceinline__ void add_int8(float (&results)[S::kRows / 2], int output) {
    const GroupSteps steps{{t_.w.steps8[output], t_.w.steps8[output + 8]}};
    int first[kSums] = {}, second[kSums] = {};
    pin(first);
    pin(second);
    int held = -1;
#pragma unroll 1
    for (int slot = 0; slot < t_.w.slots8; ++slot) {
      if (held >= 0) release(held);
      held = at_.stage;
      barrier_wait(barriers_.full + 8 * at_.stage, at_.phase);
      Operand8 operand;
      operand.load(block_ + at_.stage * S::kStageSlots, lane_);
      const auto offset = static_cast<uint32_t>(slot % 2 * 4);
      products_begin();
      operand.multiply<S::kHalf>(first, tile(0) + offset);
      operand.multiply<S::kHalf>(second, tile(1) + offset);
      products_commit();
      products_wait<0>();
      pin(first);
      pin(second);
      at_.next<S>();
    }
    add(results, 0, first, held, steps);
    add(results, 1, second, held, steps);
    release(held);
  }

  const Task& t_;
  ResultWriter<S> writer_;
  Barriers barriers_;
  Lane lane_;
  const uint8_t *block_, *scales_;
  uint64_t tile_;
  Position at_;
};

}  // namespace atom::backend::cuda::hopper::many
