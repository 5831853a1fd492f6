// Parts of hopper_grouped_few.cu: a kernel's shape and shared memory, the ring of stages, and what its two roles do.
#pragma once

#include "backend/cuda/hopper_linear.cuh"

namespace atom::backend::cuda::hopper::grouped_few {

// A kernel's shape. A stage is up to two slots of each block, of one segment, and the inputs that they meet. kGroups
// groups of kBlocks warpgroups multiply, kBlocks more add up.
template <int kRows_, int kBlocks_, int kGroups_, int kStages_, int kCtas_>
struct Shape {
  static constexpr int kRows = kRows_, kBlocks = kBlocks_, kGroups = kGroups_, kStages = kStages_;
  static constexpr int kCtas = kCtas_;  // of a multiprocessor
  static_assert(kStages % kGroups == 0, "a group meets the same stages in every turn");
  static constexpr int kGroupWarps = 4 * kBlocks, kMultipliers = kGroupWarps * kGroups;  // warps
  static constexpr int kThreads = 32 * (kMultipliers + kGroupWarps);
  static constexpr int kOutputs = kBlockOutputs * kBlocks;

  // Where a thread's codes were, two times 16 bytes a slot, go its sums: s32, of 32 rows pairs of s16.
  static constexpr bool kPairs = kRows == 32;
  static constexpr int kWords = kPairs ? kRows / 4 : kRows / 2;  // of a group's sums
  static_assert(kRows <= 32, "a thread's sums take no more than its codes did");
  static constexpr int kTimes = kPairs ? 65536 : 16;  // what they are multiplied by

  // Shared memory: inputs of the stages, slots, scales [kRows, 4] of which two are of the stage's groups, barriers.
  static constexpr int kTileBytes = kRows * 128, kInputBytes = 2 * kTileBytes;
  static constexpr int kBlockBytes = 2 * kGroupedSlotBytes, kStageSlots = kBlocks * kBlockBytes;
  static constexpr int kScaleBytes = kRows * 16;
  static constexpr int kSlotsAt = kStages * kInputBytes;
  static constexpr int kScalesAt = kSlotsAt + kStages * kStageSlots;
  static constexpr int kBarriersAt = kScalesAt + kStages * kScaleBytes;
  static constexpr int kBytes = kBarriersAt + 3 * kStages * 8;
  static_assert((kBytes + 1024) * kCtas <= 233472, "shared memory of a multiprocessor");
};

// The CTA's place in the problem and its ring.
template <typename S>
struct Ring {
  uint8_t* shared;
  uint32_t full, summed, empty;  // barriers: copied, its sums are there, all is read
  const uint8_t* slots;          // of the CTA's first block
  int64_t block_bytes;
  int slots4, slots8;
  int stages4, count;  // stages' worth of slots: of the int4 segment, of both
  const CUtensorMap *map4, *map8, *scales;

  __device__ Ring(const Task& t, uint8_t* memory, int tile, const CUtensorMap* inputs4,
                  const CUtensorMap* inputs8, const CUtensorMap* scales4)
      : shared(memory),
        full(shared_address(memory + S::kBarriersAt)),
        summed(full + 8 * S::kStages),
        empty(summed + 8 * S::kStages),
        block_bytes(int64_t{t.w.slots4 + t.w.slots8} * kGroupedSlotBytes),
        slots4(t.w.slots4),
        slots8(t.w.slots8),
        stages4((t.w.slots4 + 1) / 2),
        map4(inputs4),
        map8(inputs8),
        scales(scales4) {
    slots = t.w.slots + tile * S::kBlocks * block_bytes;
    count = stages4 + (slots8 + 1) / 2;
  }

  __device__ __forceinline__ int slots_of(int i) const {
    return min(2, i < stages4 ? slots4 - 2 * i : slots8 - 2 * (i - stages4));
  }
  __device__ __forceinline__ void ask_slots(int i, int stage) const {
    const bool int4 = i < stages4;
    const int slots_here = slots_of(i);
    const uint32_t bytes = slots_here * kGroupedSlotBytes;
    const int first = int4 ? 2 * i : slots4 + 2 * (i - stages4);
    barrier_expect(
        full + 8 * stage,
        S::kBlocks * bytes + (int4 ? slots_here * S::kTileBytes + S::kScaleBytes : S::kTileBytes));
#pragma unroll
    for (int b = 0; b < S::kBlocks; ++b)
      copy_bulk(shared_address(shared) + S::kSlotsAt + stage * S::kStageSlots + b * S::kBlockBytes,
                slots + b * block_bytes + int64_t{first} * kGroupedSlotBytes, bytes,
                full + 8 * stage, evict_first_policy());
  }
  __device__ __forceinline__ void ask_inputs(int i, int stage, int row) const {
    const uint32_t to = shared_address(shared) + stage * S::kInputBytes;
    const uint32_t barrier = full + 8 * stage;
    if (i >= stages4) {  // two int8 slots meet one tile of 128 inputs
      copy_box(to, map8, (i - stages4) * 2 * kSlotInputs8, row, barrier);
      return;
    }
    copy_box(to, map4, 2 * i * kSlotInputs4, row, barrier);
    if (slots_of(i) > 1)
      copy_box(to + S::kTileBytes, map4, (2 * i + 1) * kSlotInputs4, row, barrier);
    // From a multiple of four on: the copy engine calls a start of 6 in a row of 7 an illegal instruction.
    copy_box(shared_address(shared) + S::kScalesAt + stage * S::kScaleBytes, scales, i / 2 * 4, row,
             barrier);
  }
};

// A stage of the ring and the parity of its phase, kStep stages further in every turn.
template <typename S, int kStep>
struct Position {
  int stage, phase = 0;
  __device__ __forceinline__ void next() {
    stage += kStep;
    if (stage >= S::kStages) stage -= S::kStages, phase ^= 1;
  }
};

// A thread's words in a slot, where its codes were.
template <int kCount>
__device__ __forceinline__ void store_words(uint8_t* slot, const Lane& lane, const int* words) {
#pragma unroll
  for (int i = 0; i < kCount / 4; ++i)
    *reinterpret_cast<int4*>(slot + lane.code_at + i % 2 * 2048 + i / 2 * kGroupedSlotBytes) = {
        words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3]};
}
template <int kCount>
__device__ __forceinline__ void load_words(int* words, const uint8_t* slot, const Lane& lane) {
#pragma unroll
  for (int i = 0; i < kCount / 4; ++i) {
    const int4 v = *reinterpret_cast<const int4*>(slot + lane.code_at + i % 2 * 2048 +
                                                  i / 2 * kGroupedSlotBytes);
    words[4 * i] = v.x, words[4 * i + 1] = v.y, words[4 * i + 2] = v.z, words[4 * i + 3] = v.w;
  }
}

// The sums of a group, 16 times as large, to where its codes were.
template <typename S>
__device__ __forceinline__ void store_group(uint8_t* slot, const Lane& lane,
                                            const int (&sums)[S::kRows / 2]) {
  if constexpr (S::kPairs) {
    int words[S::kWords];
#pragma unroll
    for (int i = 0; i < S::kWords; ++i)  // at most 8192, with its sign, in the upper half
      words[i] =
          static_cast<int>(__byte_perm(static_cast<uint32_t>(sums[2 * i]) << 12,
                                       static_cast<uint32_t>(sums[2 * i + 1]) << 12, 0x7632));
    store_words<S::kWords>(slot, lane, words);
  } else {
    store_words<S::kWords>(slot, lane, sums);
  }
}

// What a warpgroup does that multiplies: its group's stages in turn.
template <typename S>
class Multiplier {
 public:
  __device__ explicit Multiplier(const Ring<S>& ring)
      : ring_(ring), lane_(static_cast<int>(threadIdx.x) % kWarpgroup) {}

  // warp: the same in all lanes, and known to be.
  __device__ void run(int warp) {
    const int group = warp / S::kGroupWarps;
    uint8_t* block = ring_.shared + S::kSlotsAt + warp / 4 % S::kBlocks * S::kBlockBytes;
    const uint64_t tiles = swizzled_tile(shared_address(ring_.shared));
    Position<S, S::kGroups> at{group};
#pragma unroll 1
    for (int i = group; i < ring_.count; i += S::kGroups, at.next()) {
      uint8_t* slots = block + at.stage * S::kStageSlots;
      const uint64_t tile = tiles + static_cast<uint32_t>(at.stage * (S::kInputBytes / 16));
      barrier_wait(ring_.full + 8 * at.stage, at.phase);
      if (i >= ring_.stages4)
        multiply8(slots, tile, ring_.slots_of(i));
      else
        multiply4(slots, tile, ring_.slots_of(i));
      __syncwarp();
      if (threadIdx.x % 32 == 0) barrier_arrive(ring_.summed + 8 * at.stage);
    }
  }

 private:
  static constexpr int kSums = S::kRows / 2;

  // The second slot is widened while the products of the first run.
  __device__ __forceinline__ void multiply4(uint8_t* slots, uint64_t tile, int count) const {
    int sums[kSums] = {};
    OperandGroup a, b;
    a.load(slots, lane_);
    start(a, sums, tile);
    if (count == 2) b.load(slots + kGroupedSlotBytes, lane_);
    products_wait<0>();
    pin(sums);
    store_group<S>(slots, lane_, sums);
    if (count < 2) return;
    start(b, sums, tile + S::kTileBytes / 16);
    products_wait<0>();
    pin(sums);
    store_group<S>(slots + kGroupedSlotBytes, lane_, sums);
  }
  __device__ __forceinline__ static void start(const OperandGroup& a, int (&sums)[kSums],
                                               uint64_t tile) {
    pin(sums);
    products_begin();
    a.start<S::kRows>(sums, tile);
    products_commit();
  }
  // One sum for the stage; that of 32 rows takes both slots' room.
  __device__ __forceinline__ void multiply8(uint8_t* slots, uint64_t tile, int count) const {
    int sums[kSums] = {};
    pin(sums);
#pragma unroll 1
    for (int slot = 0; slot < count; ++slot) {
      Operand8 a;
      a.load(slots + slot * kGroupedSlotBytes, lane_);
      products_begin();
      a.multiply<S::kRows>(sums, tile + static_cast<uint32_t>(4 * slot));
      products_commit();
      products_wait<0>();
      pin(sums);
    }
    store_words<kSums>(slots, lane_, sums);
  }

  const Ring<S>& ring_;
  Lane lane_;
};

// What a warpgroup does that adds up: the sums of its block, group after group, and asks for stages anew.
template <typename S>
class Adder {
 public:
  // row: the first of the CTA's
  __device__ Adder(const Ring<S>& ring, const Task& t, int warp, int row, int valid)
      : ring_(ring),
        t_(t),
        lane_(static_cast<int>(threadIdx.x) % kWarpgroup),
        row_(row),
        valid_(valid),
        warp_(warp - S::kMultipliers) {
    block_ = ring.shared + S::kSlotsAt + warp / 4 % S::kBlocks * S::kBlockBytes;
    scales_ = ring.shared + S::kScalesAt + first_row() * 16;
  }

  // scale8: of the thread's rows, [j][e] of row 8 j + t % 4 * 2 + e. steps: of its outputs.
  __device__ __forceinline__ void run(const float (&scale8)[S::kRows / 4],
                                      const float (&step8)[2]) {
    int i = 0;
#pragma unroll 1
    for (; i < ring_.stages4; ++i) {
      const uint8_t* slots = wait_for_sums();
      const uint8_t* scales = scales_ + at_.stage * S::kScaleBytes + i % 2 * 8;
      add4(slots, scales);
      if (ring_.slots_of(i) == 2) add4(slots + kGroupedSlotBytes, scales + 4);
      finish_stage(i);
    }
    if (i == ring_.count) return;
    int total[S::kRows / 2] = {};
#pragma unroll 1
    for (; i < ring_.count; ++i) {
      int sums[S::kRows / 2];
      load_words<S::kRows / 2>(sums, wait_for_sums(), lane_);
#pragma unroll
      for (int k = 0; k < S::kRows / 2; ++k) total[k] += sums[k];
      finish_stage(i);
    }
#pragma unroll
    for (int k = 0; k < S::kRows / 2; ++k)
      results_[k] = fmaf(static_cast<float>(total[k]), step8[k / 2 % 2] * scale8[k / 4 * 2 + k % 2],
                         results_[k]);
  }

  // output: the thread's first
  __device__ __forceinline__ void store(int output, const float (&bias)[2]) const {
    const int64_t n = t_.w.n;
    float* y = t_.y + (row_ + first_row()) * n + output;
#pragma unroll
    for (int k = 0; k < S::kRows / 2; ++k) {
      const int row = k / 4 * 8 + k % 2, h = k / 2 % 2;
      if (first_row() + row >= valid_ || output + 8 * h >= n) continue;
      const float result = results_[k] + bias[h];
      float* at = y + row * n + 8 * h;
      if (t_.add != 0)
        add_to(at, result);
      else
        *at = result;
    }
  }

  // Of the thread: row 8 j + this + e.
  __device__ static int first_row() { return static_cast<int>(threadIdx.x) % 4 * 2; }

 private:
  __device__ __forceinline__ const uint8_t* wait_for_sums() const {
    barrier_wait(ring_.full + 8 * at_.stage, at_.phase);
    barrier_wait(ring_.summed + 8 * at_.stage, at_.phase);
    return block_ + at_.stage * S::kStageSlots;
  }
  __device__ __forceinline__ void add4(const uint8_t* slot, const uint8_t* scales) {
    int words[S::kWords];
    load_words<S::kWords>(words, slot, lane_);
    const auto steps = GroupSteps::load<S::kTimes>(slot, lane_);
#pragma unroll
    for (int j = 0; j < S::kRows / 8; ++j) {
      const float2 both{*reinterpret_cast<const float*>(scales + j * 128),
                        *reinterpret_cast<const float*>(scales + j * 128 + 16)};
      int sums[4];
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        if constexpr (S::kPairs) {
          const auto pair = static_cast<uint32_t>(words[2 * j + k / 2]);
          sums[k] = static_cast<int>(k % 2 == 0 ? pair << 16 : pair & 0xffff0000u);
        } else {
          sums[k] = words[4 * j + k];
        }
      }
      add_group(results_ + 4 * j, sums, steps, both);
    }
  }
  // One of four warps in turn asks for the stage anew when all that add up have read it; those that multiply had done so
  // before.
  __device__ __forceinline__ void finish_stage(int i) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) barrier_arrive(ring_.empty + 8 * at_.stage);
    if (warp_ == i % 4 && threadIdx.x % 32 == 0 && i + S::kStages < ring_.count) {
      barrier_wait(ring_.empty + 8 * at_.stage, at_.phase);
      copy_engine_fence();  // sums were written where slots will be
      ring_.ask_slots(i + S::kStages, at_.stage);
      ring_.ask_inputs(i + S::kStages, at_.stage, row_);
    }
    __syncwarp();
    at_.next();
  }

  const Ring<S>& ring_;
  const Task& t_;
  Lane lane_;
  int row_, valid_;
  int warp_;  // of those that add up
  const uint8_t *block_, *scales_;
  Position<S, 1> at_{0};
  float results_[S::kRows / 2] = {};
};

}  // namespace atom::backend::cuda::hopper::grouped_few
