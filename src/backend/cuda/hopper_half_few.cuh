// Parts of hopper_half_few.cu: a kernel's shape and shared memory, the ring of stages, and walks along it.
#pragma once

#include "backend/cuda/hopper_half_linear.cuh"

namespace atom::backend::cuda::hopper::half_few {

inline constexpr int kWarpgroup = 128;  // threads

// A kernel's shape. A stage is a slot of each block, and the inputs that they meet, in two panels.
template <HalfKind kKind_, int kRows_, int kBlocks_, int kGroups_, int kStages_, int kCtas_>
struct Shape {
  static constexpr HalfKind kKind = kKind_;
  static constexpr int kRows = kRows_, kBlocks = kBlocks_, kGroups = kGroups_, kStages = kStages_;
  static constexpr int kCtas = kCtas_;  // of a multiprocessor
  static_assert(kStages % kGroups == 0, "a group meets the same stages in every turn");
  static_assert(kStages >= 2 * kGroups && kStages <= 32, "a group holds a stage while it waits");
  static constexpr int kConsumers = kWarpgroup * kBlocks * kGroups, kThreads = kConsumers + 32;
  static constexpr int kOutputs = kBlockOutputs * kBlocks;

  // Shared memory: inputs of the stages, their slots; later a plane of sums of each group in the same place. Factors
  // and bias of the outputs, factors of the rows, barriers.
  static constexpr int kSlot = kKind == HalfKind::kF16 ? kF16SlotBytes : kHalfInt4SlotBytes;
  static constexpr int kPanel = kRows * 128, kInputBytes = 2 * kPanel;
  static constexpr int kStageSlots = kBlocks * kSlot;
  static constexpr int kSlotsAt = kStages * kInputBytes;
  static constexpr int kRingEnd = kSlotsAt + kStages * kStageSlots;
  static constexpr int kPitch = kOutputs + 4;  // floats from a row's sums to the next
  static constexpr int kPlane = kRows * kPitch;
  static_assert(kGroups * kPlane * 4 <= kRingEnd, "sums fit where the stages were");
  static constexpr int kOutputsAt = kRingEnd;  // [2, kOutputs]
  static constexpr int kRowsAt = kOutputsAt + 2 * kOutputs * 4;
  static constexpr int kBarriersAt = kRowsAt + kRows * 4;
  static constexpr int kBytes = kBarriersAt + 2 * kStages * 8;
  static_assert((kBytes + 1024) * kCtas <= 233472, "shared memory of a multiprocessor");
};

// The CTA's slots, [first, first + count) of its blocks, and its ring.
template <typename S>
struct Ring {
  uint32_t shared, full, empty;  // addresses; the last two of barriers
  const uint8_t* slots;          // of the CTA's first block
  int64_t block_bytes;
  int first, count;
  const CUtensorMap* map;
  int row;

  __device__ __forceinline__ void init(int stage) const {
    barrier_init(full + 8 * stage, 1);
    barrier_init(empty + 8 * stage, 4 * S::kBlocks * kWarpArrivals);
    barrier_init_fence();
  }
  __device__ __forceinline__ void ask_slots(int i, int stage) const {
    barrier_expect(full + 8 * stage, S::kStageSlots + S::kInputBytes);
#pragma unroll
    for (int b = 0; b < S::kBlocks; ++b)
      copy_bulk(shared + S::kSlotsAt + stage * S::kStageSlots + b * S::kSlot,
                slots + b * block_bytes + int64_t{first + i} * S::kSlot, S::kSlot, full + 8 * stage,
                evict_first_policy());
  }
  __device__ __forceinline__ void ask_inputs(int i, int stage) const {
    copy_panels(shared + stage * S::kInputBytes, map, row, 2 * (first + i), full + 8 * stage);
  }
  // The stages after the first kStages, by one thread.
  __device__ __forceinline__ void refill() const {
    int stage = 0, phase = 0;
#pragma unroll 1
    for (int i = S::kStages; i < count; ++i) {
      barrier_wait(empty + 8 * stage, phase);
      ask_slots(i, stage);
      ask_inputs(i, stage);
      if (++stage == S::kStages) stage = 0, phase ^= 1;
    }
  }
};

// A warpgroup's walk along its group's stages.
template <typename S>
class Walk {
 public:
  // warp: the same in all lanes, and known to be.
  __device__ Walk(const Ring<S>& ring, const uint8_t* shared, int warp)
      : ring_(ring),
        lane_(static_cast<int>(threadIdx.x) % kWarpgroup),
        group_(warp / (4 * S::kBlocks)),
        stage_(group_) {
    const int block = S::kSlotsAt + warp / 4 % S::kBlocks * S::kSlot;
    slots_ = shared + block;
    weights_ = swizzled_tile(ring.shared + block);
    inputs_ = swizzled_tile(ring.shared);
  }
  __device__ int group() const { return group_; }

  // Sums of weights in shared memory.
  __device__ __forceinline__ void run_f16(float (&sums)[S::kRows / 2]) {
    pin_sums(sums);
    int pending = -1;  // the stage whose products are under way
#pragma unroll 1
    for (int i = group_; i < ring_.count; i += S::kGroups) {
      barrier_wait(ring_.full + 8 * stage_, phase_);
      const uint64_t a = weights_ + static_cast<uint32_t>(stage_ * (S::kStageSlots / 16));
      products_begin();
#pragma unroll
      for (int step = 0; step < 8; ++step)
        HalfProduct<S::kRows>::add(sums, a + step / 4 * (kPanelBytes / 16) + step % 4 * 2,
                                   panel(step / 4) + step % 4 * 2);
      products_commit();
      if (pending >= 0) {
        products_wait<1>();
        release(pending);
      }
      pending = stage_;
      next();
    }
    products_wait<0>();
    pin_sums(sums);
  }

  // Sums of codes: half a slot is widened while the products of the half before run.
  __device__ __forceinline__ void run_int4(float (&sums)[S::kRows / 2]) {
    pin_sums(sums);
    HalfOperand a, b;
    int pending = -1;
#pragma unroll 1
    for (int i = group_; i < ring_.count; i += S::kGroups) {
      barrier_wait(ring_.full + 8 * stage_, phase_);
      const uint8_t* slot = slots_ + stage_ * S::kStageSlots;
      HalfSteps steps;
      steps.load(slot + kCodeBytes, lane_);
      start(a, slot, 0, steps, sums);
      if (pending >= 0) {
        products_wait<1>();
        release(pending);
      }
      start(b, slot + kCodeBytes / 2, 1, steps, sums);
      products_wait<1>();
      pending = stage_;
      next();
    }
    products_wait<0>();
    pin_sums(sums);
  }

 private:
  __device__ __forceinline__ uint64_t panel(int half) const {
    return inputs_ +
           static_cast<uint32_t>(stage_ * (S::kInputBytes / 16) + half * (S::kPanel / 16));
  }
  __device__ __forceinline__ void start(HalfOperand& operand, const uint8_t* codes, int half,
                                        const HalfSteps& steps, float (&sums)[S::kRows / 2]) {
    operand.load(codes, lane_, steps);
    products_begin();
    operand.template multiply<S::kRows>(sums, panel(half));
    products_commit();
  }
  __device__ __forceinline__ void release(int stage) const { warp_arrive(ring_.empty + 8 * stage); }
  __device__ __forceinline__ void next() {
    stage_ += S::kGroups;
    if (stage_ >= S::kStages) {
      stage_ -= S::kStages;
      phase_ ^= 1;
    }
  }

  const Ring<S>& ring_;
  HalfLane lane_;
  const uint8_t* slots_;
  uint64_t weights_, inputs_;
  int group_, stage_, phase_ = 0;
};

}  // namespace atom::backend::cuda::hopper::half_few
