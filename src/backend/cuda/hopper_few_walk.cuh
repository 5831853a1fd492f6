// Parts of hopper_linear_few.cu: a kernel's shape and shared memory, the ring of stages, and a group's walk along it.
#pragma once

#include "backend/cuda/hopper_linear.cuh"

namespace atom::backend::cuda::hopper::few {

// A kernel's shape. A stage is two slots of each block, and the inputs that they meet. kInt8: of weights without an int4
// segment, where both slots meet one tile.
template <int kRows_, int kBlocks_, int kGroups_, int kStages_, int kCtas_, bool kInt8_ = false>
struct Shape {
  static constexpr bool kInt8 = kInt8_;
  static constexpr int kRows = kRows_, kBlocks = kBlocks_, kGroups = kGroups_, kStages = kStages_;
  static constexpr int kCtas = kCtas_;  // of a multiprocessor
  static_assert(kStages % kGroups == 0, "a group meets the same stages in every turn");
  static constexpr int kGroupThreads = kWarpgroup * kBlocks, kThreads = kGroupThreads * kGroups;
  static constexpr int kOutputs = kBlockOutputs * kBlocks;

  static_assert(kStages >= 2 * kGroups, "a group waits for a stage while it holds another");
  // Planes of sums, one a segment, have a place of their own, or lie where the stages were and are cleared after the
  // walk. With their own place the int4 segment's sums leave the registers before the int8 segment's come.
  static constexpr bool kApart4 = !kInt8 && kRows != 32, kApart8 = kRows <= 16;

  // Shared memory: inputs of the stages, slots of the stages, sums of both segments, scales of the outputs,
  // tokens, barriers.
  static constexpr int kTileBytes = kRows * 128, kInputBytes = (kInt8 ? 1 : 2) * kTileBytes;
  static constexpr int kBlockBytes = 2 * kSlotBytes, kStageSlots = kBlocks * kBlockBytes;
  static constexpr int kSlotsAt = kStages * kInputBytes;
  static constexpr int kPitch = kOutputs + 4;    // ints from a row's sums to the next
  static constexpr int kPlane = kRows * kPitch;  // sums of one segment
  static constexpr int kStagesEnd = kSlotsAt + kStages * kStageSlots;
  static constexpr int kPlane4At = kApart4 ? kStagesEnd : 0;
  static constexpr int kApartEnd =
      kStagesEnd + ((kApart4 ? 1 : 0) + (kApart8 ? 1 : 0)) * kPlane * 4;
  static constexpr int kBefore8 = kInt8 ? 0 : kPlane * 4;  // the other segment's
  static constexpr int kPlane8At =
      kApart8 ? (kInt8 ? kStagesEnd : kPlane4At + kBefore8) : (kApart4 ? 0 : kBefore8);
  static_assert(kApart8 || kPlane8At + kPlane * 4 <= kStagesEnd, "sums fit where the stages were");
  static constexpr int kStepsAt = kApartEnd;  // step4, step8, bias: [3, kOutputs]
  static constexpr int kTokensAt = kStepsAt + 3 * kOutputs * 4;
  static constexpr int kBarriersAt = kTokensAt + kRows * static_cast<int>(sizeof(Token));
  static constexpr int kBytes = kBarriersAt + 2 * kStages * 8;
  static_assert((kBytes + 1024) * kCtas <= 233472, "shared memory of a multiprocessor");
};

// The CTA's place in the problem and its ring. Its slots are [2 first, 2 (first + count)), the last may be missing.
template <typename S>
struct Ring {
  uint8_t* shared;
  uint32_t full, empty;  // barriers
  const uint8_t* slots;  // of the CTA's first block
  int64_t block_bytes;
  int first, count;  // stages' worth of slots
  int slots4, all_slots;
  const CUtensorMap *map4, *map8;

  __device__ __forceinline__ bool has_second(int i) const {
    return 2 * (first + i) + 1 < all_slots;
  }
  // Both slots are int8 and meet the two halves of one tile of inputs.
  __device__ __forceinline__ bool has_one_tile(int i) const {
    if constexpr (S::kInt8) return has_second(i);
    return slots4 % 2 == 0 && 2 * (first + i) >= slots4 && has_second(i);
  }

  __device__ __forceinline__ void ask_slots(int i, int stage) const {
    const bool both = has_second(i);
    const uint32_t bytes = both ? kSlotBytes * 2 : kSlotBytes;
    const bool two_tiles = both && !has_one_tile(i);
    barrier_expect(full + 8 * stage,
                   S::kBlocks * bytes + (two_tiles ? S::kInputBytes : S::kTileBytes));
#pragma unroll
    for (int b = 0; b < S::kBlocks; ++b)
      copy_bulk(shared_address(shared) + S::kSlotsAt + stage * S::kStageSlots + b * S::kBlockBytes,
                slots + b * block_bytes + int64_t{first + i} * S::kBlockBytes, bytes,
                full + 8 * stage, evict_first_policy());
  }
  __device__ __forceinline__ void ask_inputs(int i, int stage, int row) const {
    const uint32_t to = shared_address(shared) + stage * S::kInputBytes;
    const int slot = 2 * (first + i);
    const SlotInputs a = inputs_of(slot, slots4, map4, map8);
    copy_box(to, a.map, a.column, row, full + 8 * stage);
    if (!has_second(i) || has_one_tile(i)) return;
    const SlotInputs b = inputs_of(slot + 1, slots4, map4, map8);
    copy_box(to + S::kTileBytes, b.map, b.column, row, full + 8 * stage);
  }
};

// Adds the thread's sums to a plane [rows, kPitch].
template <typename S>
__device__ void add_sums(const int (&sums)[S::kRows / 2], int* plane, int valid) {
  const int thread = static_cast<int>(threadIdx.x) % kWarpgroup;
  const int block = static_cast<int>(threadIdx.x) / kWarpgroup % S::kBlocks;
  const int output = block * kBlockOutputs + Lane(thread).output;
#pragma unroll
  for (int j = 0; j < S::kRows / 8; ++j)
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int row = j * 8 + thread % 4 * 2 + e;
      if (row >= valid) continue;
      int* at = plane + row * S::kPitch + output;
      if constexpr (S::kGroups == 1) {  // nobody else adds here
        at[0] = sums[4 * j + e];
        at[8] = sums[4 * j + 2 + e];
      } else {
        atomicAdd(at, sums[4 * j + e]);
        atomicAdd(at + 8, sums[4 * j + 2 + e]);
      }
    }
}

// One group's walk along its stages. While the products of a slot run, the next is widened.
template <typename S>
class Walk {
 public:
  // warp: the same in all lanes, and known to be.
  __device__ Walk(const Ring<S>& ring, int warp, int row)
      : ring_(ring),
        lane_(static_cast<int>(threadIdx.x) % kWarpgroup),
        row_(row),
        leads_(threadIdx.x % S::kGroupThreads == 0),
        i_(warp / (S::kGroupThreads / 32)),
        stage_(i_) {
    block_ = ring.shared + S::kSlotsAt + warp / 4 % S::kBlocks * S::kBlockBytes;
    tile_ = swizzled_tile(shared_address(ring.shared));
  }

  // The group's sums of the int4 segment, then of the int8 segment; false: it has no slot there.
  __device__ __forceinline__ bool run4(int (&sums)[S::kRows / 2]) {
    if (i_ >= ring_.count || slot() >= ring_.slots4) return false;
    pin(sums);
    run_pairs(sums);
    // An int4 slot whose stage has one of the int8 segment beside it, or none.
    if (i_ < ring_.count && slot() < ring_.slots4) {
      barrier_wait(ring_.full + 8 * stage_, phase_);
      Operand4 a;
      start(a, 0, 0, sums);
      products_wait<0>();
      pin(sums);
      if (ring_.has_second(i_))
        half_done_ = true;
      else
        finish_stage();
    }
    return true;
  }
  __device__ __forceinline__ bool run8(int (&sums)[S::kRows / 2]) {
    if (i_ >= ring_.count) return false;
    pin(sums);
    run_pairs8(sums);
    while (i_ < ring_.count) {
      barrier_wait(ring_.full + 8 * stage_, phase_);
      Operand8 a;
#pragma unroll 1
      for (int second = half_done_ ? 1 : 0; second < (ring_.has_second(i_) ? 2 : 1); ++second) {
        start(a, second, (slot() + second - ring_.slots4) % 2 * 4, sums);
        products_wait<0>();
        pin(sums);
      }
      half_done_ = false;
      finish_stage();
    }
    return true;
  }

 private:
  // Stages of two int4 slots.
  __device__ __forceinline__ bool is_pair() const {
    return i_ < ring_.count && slot() + 1 < ring_.slots4;
  }
  __device__ __forceinline__ void run_pairs(int (&sums)[S::kRows / 2]) {
    Operand4 a, b;
    int pending = -1;  // the stage whose second slot's products are under way
    while (is_pair()) {
      barrier_wait(ring_.full + 8 * stage_, phase_);
      start(a, 0, 0, sums);
      if (pending >= 0) {
        products_wait<1>();
        release(pending);
        refill();
      }
      start(b, 1, 0, sums);
      products_wait<1>();
      pending = stage_;
      next();
    }
    products_wait<0>();
    pin(sums);
    if (pending >= 0) {
      release(pending);
      refill();
    }
  }
  // Stages of two int8 slots that share a tile. A stage's products run while the next one's operand is loaded.
  __device__ __forceinline__ bool is_pair8() const {
    return i_ < ring_.count && ring_.has_one_tile(i_) && !half_done_;
  }
  __device__ __forceinline__ void run_pairs8(int (&sums)[S::kRows / 2]) {
    int pending = -1;
    if constexpr (S::kThreads <= 512) {
      OperandPair8 a, b;
      while (is_pair8()) {
        start_pair(a, pending, sums);
        if (!is_pair8()) break;
        start_pair(b, pending, sums);
      }
    } else {  // registers are few: a slot's products run while the next one's operand is loaded
      Operand8 a, b;
      while (is_pair8()) {
        barrier_wait(ring_.full + 8 * stage_, phase_);
        start(a, 0, 0, sums);
        if (pending >= 0) {
          products_wait<1>();
          release(pending);
          refill();
        }
        start_second(b, sums);
        products_wait<1>();
        pending = stage_;
        next();
      }
    }
    products_wait<0>();
    pin(sums);
    if (pending >= 0) {
      release(pending);
      refill();
    }
  }
  // The second slot of the stage, at the other half of its one tile.
  __device__ __forceinline__ void start_second(Operand8& operand, int (&sums)[S::kRows / 2]) {
    operand.load(block_ + stage_ * S::kStageSlots + kSlotBytes, lane_);
    products_begin();
    operand.template multiply<S::kRows>(
        sums, tile_ + static_cast<uint32_t>(stage_ * (S::kInputBytes / 16) + 4));
    products_commit();
  }
  __device__ __forceinline__ void start_pair(OperandPair8& operand, int& pending,
                                             int (&sums)[S::kRows / 2]) {
    barrier_wait(ring_.full + 8 * stage_, phase_);
    start(operand, 0, 0, sums);
    if (pending >= 0) {
      products_wait<1>();
      release(pending);
      refill();
    }
    pending = stage_;
    next();
  }
  __device__ __forceinline__ int slot() const { return 2 * (ring_.first + i_); }

  template <typename Operand>
  __device__ __forceinline__ void start(Operand& operand, int second, int offset,
                                        int (&sums)[S::kRows / 2]) {
    operand.load(block_ + stage_ * S::kStageSlots + second * kSlotBytes, lane_);
    products_begin();
    operand.template multiply<S::kRows>(
        sums, tile_ + static_cast<uint32_t>(stage_ * (S::kInputBytes / 16) +
                                            second * (S::kTileBytes / 16) + offset));
    products_commit();
  }
  __device__ __forceinline__ void release(int stage) const {
    __syncwarp();  // all lanes have read
    warp_arrive(ring_.empty + 8 * stage);
  }
  __device__ __forceinline__ void finish_stage() {
    release(stage_);
    next();
    refill();
  }
  __device__ __forceinline__ void next() {
    before_ = stage_;
    before_phase_ = phase_;
    before_i_ = i_;
    i_ += S::kGroups;
    stage_ += S::kGroups;
    if (stage_ >= S::kStages) {
      stage_ -= S::kStages;
      phase_ ^= 1;
    }
  }
  // Asks anew for the stage before, which all of the group's warps have released by now or soon.
  __device__ __forceinline__ void refill() {
    const int i = before_i_ + S::kStages;
    if (leads_ && i < ring_.count) {
      barrier_wait(ring_.empty + 8 * before_, before_phase_);
      ring_.ask_slots(i, before_);
      ring_.ask_inputs(i, before_, row_);
    }
    __syncwarp();
  }

  const Ring<S>& ring_;
  Lane lane_;
  const uint8_t* block_;
  uint64_t tile_;
  int row_;
  bool leads_, half_done_ = false;
  int i_, stage_, phase_ = 0;
  int before_i_ = 0, before_ = 0, before_phase_ = 0;
};

}  // namespace atom::backend::cuda::hopper::few
