// Parts of hopper_grouped_few.cu: a kernel's shape and shared memory, the ring of stages, and a group's walk along it.
#pragma once

#include "backend/cuda/hopper_linear.cuh"

namespace atom::backend::cuda::hopper::grouped_few {

// A kernel's shape. A stage is up to two slots of each block, of one segment, the inputs that they meet, and the inputs'
// scales. kGroups groups of kBlocks warpgroups take turns along the stages.
template <int kRows_, int kBlocks_, int kGroups_, int kStages_, int kCtas_>
struct Shape {
  static constexpr int kRows = kRows_, kBlocks = kBlocks_, kGroups = kGroups_, kStages = kStages_;
  static constexpr int kCtas = kCtas_;  // of a multiprocessor
  static_assert(kStages % kGroups == 0, "a group meets the same stages in every turn");
  static_assert(kStages >= 2 * kGroups, "a group waits for a stage while it holds another");
  static constexpr int kGroupThreads = kWarpgroup * kBlocks, kThreads = kGroupThreads * kGroups;
  static constexpr int kOutputs = kBlockOutputs * kBlocks;

  // Shared memory: inputs of the stages, slots, scales [kRows, 4] of which two are of the stage's groups, step8 and bias of
  // the outputs, barriers. After the walk a warpgroup's sums take the place of a stage's inputs.
  static constexpr int kTileBytes = kRows * 128, kInputBytes = 2 * kTileBytes;
  static constexpr int kBlockBytes = 2 * kGroupedSlotBytes, kStageSlots = kBlocks * kBlockBytes;
  static constexpr int kScaleBytes = kRows * 16;
  static constexpr int kSlotsAt = kStages * kInputBytes;
  static constexpr int kScalesAt = kSlotsAt + kStages * kStageSlots;
  static constexpr int kStepsAt = kScalesAt + kStages * kScaleBytes;
  static constexpr int kBarriersAt = kStepsAt + 2 * kOutputs * 4;
  static constexpr int kBytes = kBarriersAt + 2 * kStages * 8;
  static_assert((kBytes + 1024) * kCtas <= 233472, "shared memory of a multiprocessor");
  static_assert(kInputBytes == kWarpgroup * kRows / 2 * 4, "room for a warpgroup's sums");
};

// Boxes of inputs and of their scales, by segment.
struct Maps {
  const CUtensorMap *inputs4, *inputs8, *scales4, *scales8;
};

// The CTA's place in the problem and its ring: stages [first, first + count) of the linear.
template <typename S>
struct Ring {
  uint8_t* shared;
  uint32_t full, empty;  // barriers: copied, all is read
  const uint8_t* slots;  // of the CTA's first block
  int64_t block_bytes;
  int slots4, slots8;
  int stages4;  // of the linear, those of the int4 segment
  int first, count;
  Maps maps;

  __device__ Ring(const Task& t, uint8_t* memory, int tile, int rank, int cluster, const Maps& of)
      : shared(memory),
        full(shared_address(memory + S::kBarriersAt)),
        empty(full + 8 * S::kStages),
        block_bytes(int64_t{t.w.slots4 + t.w.slots8} * kGroupedSlotBytes),
        slots4(t.w.slots4),
        slots8(t.w.slots8),
        stages4((t.w.slots4 + 1) / 2),
        maps(of) {
    slots = t.w.slots + tile * S::kBlocks * block_bytes;
    const int stages = stages4 + (slots8 + 1) / 2;
    first = rank * stages / cluster;
    count = (rank + 1) * stages / cluster - first;
  }

  __device__ __forceinline__ bool is_int4(int i) const { return first + i < stages4; }
  __device__ __forceinline__ int slots_of(int i) const {
    const int at = first + i;
    return min(2, at < stages4 ? slots4 - 2 * at : slots8 - 2 * (at - stages4));
  }
  __device__ __forceinline__ void ask_slots(int i, int stage) const {
    const int at = first + i, slots_here = slots_of(i);
    const uint32_t bytes = slots_here * kGroupedSlotBytes;
    const int slot = is_int4(i) ? 2 * at : slots4 + 2 * (at - stages4);
    const int tiles = is_int4(i) ? slots_here : 1;  // two int8 slots meet one tile of 128 inputs
    barrier_expect(full + 8 * stage, S::kBlocks * bytes + tiles * S::kTileBytes + S::kScaleBytes);
#pragma unroll
    for (int b = 0; b < S::kBlocks; ++b)
      copy_bulk(shared_address(shared) + S::kSlotsAt + stage * S::kStageSlots + b * S::kBlockBytes,
                slots + b * block_bytes + int64_t{slot} * kGroupedSlotBytes, bytes,
                full + 8 * stage, evict_first_policy());
  }
  __device__ __forceinline__ void ask_inputs(int i, int stage, int row) const {
    const int at = first + i;
    const uint32_t to = shared_address(shared) + stage * S::kInputBytes;
    const uint32_t scales_to = shared_address(shared) + S::kScalesAt + stage * S::kScaleBytes;
    const uint32_t barrier = full + 8 * stage;
    if (!is_int4(i)) {
      copy_box(to, maps.inputs8, (at - stages4) * 2 * kSlotInputs8, row, barrier);
      copy_box(scales_to, maps.scales8, 0, row, barrier);
      return;
    }
    copy_box(to, maps.inputs4, 2 * at * kSlotInputs4, row, barrier);
    if (slots_of(i) > 1)
      copy_box(to + S::kTileBytes, maps.inputs4, (2 * at + 1) * kSlotInputs4, row, barrier);
    // From a multiple of four on: boxes begin at multiples of 16 bytes.
    copy_box(scales_to, maps.scales4, at / 2 * 4, row, barrier);
  }
};

// One group's walk along its stages.
template <typename S>
class Walk {
 public:
  static constexpr int kSums = S::kRows / 2;  // of a thread

  // warp: the same in all lanes, and known to be. row: the first of the CTA's.
  __device__ Walk(const Ring<S>& ring, int warp, int row)
      : ring_(ring),
        lane_(static_cast<int>(threadIdx.x) % kWarpgroup),
        row_(row),
        leads_(threadIdx.x % S::kGroupThreads == 0),
        block_(warp / 4 % S::kBlocks),
        i_(warp / (S::kGroupThreads / 32)),
        stage_(i_) {
    slots_ = ring.shared + S::kSlotsAt + block_ * S::kBlockBytes;
    scales_ = ring.shared + S::kScalesAt + static_cast<int>(threadIdx.x) % 4 * 32;
    tile_ = swizzled_tile(shared_address(ring.shared));
  }

  // 16 times the group's part of the results, its slots in the order of k.
  __device__ __forceinline__ void run(float (&results)[kSums]) {
    while (i_ < ring_.count && ring_.is_int4(i_)) {
      barrier_wait(ring_.full + 8 * stage_, phase_);
      add4(results);
      release_stage();
    }
    if (i_ < ring_.count) add8(results);
  }

 private:
  // The second slot is widened while the products of the first run.
  __device__ __forceinline__ void add4(float (&results)[kSums]) {
    const uint8_t* slot = slots_ + stage_ * S::kStageSlots;
    const uint8_t* scales = scales_ + stage_ * S::kScaleBytes + (ring_.first + i_) % 2 * 8;
    const bool two = ring_.slots_of(i_) == 2;
    int sums[kSums] = {};
    OperandGroup a, b;
    a.load(slot, lane_);
    start(a, sums, 0);
    refill();
    if (two) b.load(slot + kGroupedSlotBytes, lane_);
    products_wait<0>();
    pin(sums);
    float values[kSums];
    convert(sums, values);
    constexpr bool kBoth = S::kRows <= 16;  // registers for `values` beside the second slot's sums
    if (!kBoth || !two) add(results, values, GroupSteps::load(slot, lane_), scales);
    if (!two) return;
    start(b, sums, 1);
    if (kBoth) add(results, values, GroupSteps::load(slot, lane_), scales);
    products_wait<0>();
    pin(sums);
    convert(sums, values);
    add(results, values, GroupSteps::load(slot + kGroupedSlotBytes, lane_), scales + 4);
  }
  __device__ __forceinline__ void start(const OperandGroup& operand, int (&sums)[kSums],
                                        int second) const {
    pin(sums);
    products_begin();
    operand.start<S::kRows>(sums, tile_ + static_cast<uint32_t>(stage_ * (S::kInputBytes / 16) +
                                                                second * (S::kTileBytes / 16)));
    products_commit();
  }
  __device__ __forceinline__ static void convert(const int (&sums)[kSums], float (&values)[kSums]) {
#pragma unroll
    for (int i = 0; i < kSums; ++i) values[i] = static_cast<float>(sums[i]);
    if constexpr (S::kRows <= 16) {  // before the sums are used anew
#pragma unroll
      for (float& value : values) asm volatile("" : "+f"(value));
    }
  }
  // scales: of the group, a row's 16 bytes from the next one's. A value times its step is exact, but for the int8 segment.
  __device__ __forceinline__ static void add(float (&results)[kSums], const float (&values)[kSums],
                                             const GroupSteps& steps, const uint8_t* scales) {
#pragma unroll
    for (int j = 0; j < S::kRows / 8; ++j)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float scale = *reinterpret_cast<const float*>(scales + j * 128 + e * 16);
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const int i = 4 * j + 2 * h + e;
          results[i] = fmaf(values[i] * steps.of[h], scale, results[i]);
        }
      }
  }

  // The int8 segment: one sum over the group's stages of it.
  __device__ __forceinline__ void add8(float (&results)[kSums]) {
    int sums[kSums] = {};
    pin(sums);
#pragma unroll 1
    while (true) {
      barrier_wait(ring_.full + 8 * stage_, phase_);
      refill();
#pragma unroll 1
      for (int slot = 0; slot < ring_.slots_of(i_); ++slot) {
        Operand8 a;
        a.load(slots_ + stage_ * S::kStageSlots + slot * kGroupedSlotBytes, lane_);
        products_begin();
        a.multiply<S::kRows>(
            sums, tile_ + static_cast<uint32_t>(stage_ * (S::kInputBytes / 16) + 4 * slot));
        products_commit();
        products_wait<0>();
        pin(sums);
      }
      if (i_ + S::kGroups >= ring_.count) break;
      release_stage();
    }
    float values[kSums];
    convert(sums, values);
    const float* steps = reinterpret_cast<const float*>(ring_.shared + S::kStepsAt) +
                         block_ * kBlockOutputs + lane_.output;
    add(results, values, {{16 * steps[0], 16 * steps[8]}}, scales_ + stage_ * S::kScaleBytes);
  }

  __device__ __forceinline__ void release_stage() {
    __syncwarp();
    warp_arrive(ring_.empty + 8 * stage_);
    before_ = stage_;
    before_phase_ = phase_;
    next_i_ = i_ + S::kStages;
    i_ += S::kGroups;
    stage_ += S::kGroups;
    if (stage_ >= S::kStages) stage_ -= S::kStages, phase_ ^= 1;
  }
  // Asks anew for the stage before, which all of the group's warps have released by now or soon.
  __device__ __forceinline__ void refill() {
    if (leads_ && next_i_ < ring_.count) {
      barrier_wait(ring_.empty + 8 * before_, before_phase_);
      ring_.ask_slots(next_i_, before_);
      ring_.ask_inputs(next_i_, before_, row_);
    }
    __syncwarp();
  }

  const Ring<S>& ring_;
  Lane lane_;
  const uint8_t *slots_, *scales_;
  uint64_t tile_;
  int row_;
  bool leads_;
  int block_;
  int i_, stage_, phase_ = 0;
  int before_ = 0, before_phase_ = 0;
  int next_i_ = 1 << 30;  // what the stage before is asked for next
};

}  // namespace atom::backend::cuda::hopper::grouped_few
