// What both kernels of hopper_linear.h share: a slot's bytes to operand registers, and sums to results.
#pragma once

#include <cuda_fp16.h>

#include "backend/cuda/hopper.cuh"
#include "backend/cuda/hopper_linear.h"

namespace atom::backend::cuda::hopper {

inline constexpr int kWarpgroup = 128;  // threads

// A thread of a warpgroup: where its part of a slot lies, and the first of its two outputs.
struct Lane {
  int code_at;        // bytes from the slot's beginning; the second half 2048 further
  int multiplier_at;  // of both outputs, two bytes
  int steps_at;       // of both outputs in a grouped slot, two f16
  int output;         // of the block; the other is output + 8

  __device__ explicit Lane(int thread)
      : code_at(thread * 16),
        multiplier_at(kCodeBytes + thread / 32 * 16 + thread % 32 / 4 * 2),
        steps_at(kCodeBytes + thread / 32 * 32 + thread % 32 / 4 * 4),
        output(thread / 32 * 16 + thread % 32 / 4) {}
};

// Eight nibbles u = q + 8 of one output become the bytes m * q + 128, unsigned: 8 .. 248 for |m| <= 15. The packed
// product may carry between the bytes, the sum with `offset` no longer does: it is the sum of the bytes' values at
// their places, modulo 2^32.
__device__ __forceinline__ void widen(uint32_t nibbles, uint32_t multiplier, uint32_t offset,
                                      uint32_t& low, uint32_t& high) {
  low = (nibbles & 0x0f0f0f0fu) * multiplier + offset;
  high = ((nibbles >> 4) & 0x0f0f0f0fu) * multiplier + offset;
}
__device__ __forceinline__ uint32_t widen_offset(uint32_t multiplier) {
  return 0x80808080u - 0x08080808u * multiplier;
}

// An int4 slot: four steps of 32 inputs.
struct Operand4 {
  Fragment step[4];

  __device__ __forceinline__ void load(const uint8_t* slot, const Lane& lane) {
    const uint4 u = *reinterpret_cast<const uint4*>(slot + lane.code_at);
    const uint4 v = *reinterpret_cast<const uint4*>(slot + lane.code_at + 2048);
    const int both = *reinterpret_cast<const int16_t*>(slot + lane.multiplier_at);
    const auto m0 = static_cast<uint32_t>(static_cast<int8_t>(both & 255));
    const auto m1 = static_cast<uint32_t>(both >> 8);
    const uint32_t o0 = widen_offset(m0), o1 = widen_offset(m1);
    widen(u.x, m0, o0, step[0].at[0], step[0].at[2]);
    widen(u.y, m1, o1, step[0].at[1], step[0].at[3]);
    widen(u.z, m0, o0, step[1].at[0], step[1].at[2]);
    widen(u.w, m1, o1, step[1].at[1], step[1].at[3]);
    widen(v.x, m0, o0, step[2].at[0], step[2].at[2]);
    widen(v.y, m1, o1, step[2].at[1], step[2].at[3]);
    widen(v.z, m0, o0, step[3].at[0], step[3].at[2]);
    widen(v.w, m1, o1, step[3].at[1], step[3].at[3]);
#pragma unroll
    for (Fragment& f : step) pin(f.at);  // widen here, not between two products
  }
  template <int kN>
  __device__ __forceinline__ void multiply(int (&sums)[kN / 2], uint64_t tile) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) Product<kN, true>::add(sums, step[i], tile + 2 * i);
  }
  template <int kN>
  __device__ __forceinline__ void start(int (&sums)[kN / 2], uint64_t tile) const {
    Product<kN, true>::start(sums, step[0], tile);
#pragma unroll
    for (int i = 1; i < 4; ++i) Product<kN, true>::add(sums, step[i], tile + 2 * i);
  }
};

// An int8 slot: two steps.
struct Operand8 {
  Fragment step[2];

  __device__ __forceinline__ void load(const uint8_t* slot, const Lane& lane) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint4 u = *reinterpret_cast<const uint4*>(slot + lane.code_at + 2048 * i);
      step[i] = {u.x, u.y, u.z, u.w};
      pin(step[i].at);
    }
  }
  template <int kN>
  __device__ __forceinline__ void multiply(int (&sums)[kN / 2], uint64_t tile) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) Product<kN, false>::add(sums, step[i], tile + 2 * i);
  }
  template <int kN>
  __device__ __forceinline__ void start(int (&sums)[kN / 2], uint64_t tile) const {
    Product<kN, false>::start(sums, step[0], tile);
    Product<kN, false>::add(sums, step[1], tile + 2);
  }
};

// Two int8 slots, one behind the other, that meet one tile.
struct OperandPair8 {
  Operand8 of[2];

  __device__ __forceinline__ void load(const uint8_t* slots, const Lane& lane) {
    of[0].load(slots, lane);
    of[1].load(slots + kSlotBytes, lane);
  }
  template <int kN>
  __device__ __forceinline__ void multiply(int (&sums)[kN / 2], uint64_t tile) const {
    of[0].multiply<kN>(sums, tile);
    of[1].multiply<kN>(sums, tile + 4);
  }
};

// The codes of an int4 slot of a grouped weight, as they lie there.
struct GroupNibbles {
  uint32_t words[8];

  __device__ __forceinline__ void load(const uint8_t* slot, const Lane& lane) {
    const uint4 u = *reinterpret_cast<const uint4*>(slot + lane.code_at);
    const uint4 v = *reinterpret_cast<const uint4*>(slot + lane.code_at + 2048);
    words[0] = u.x, words[1] = u.y, words[2] = u.z, words[3] = u.w;
    words[4] = v.x, words[5] = v.y, words[6] = v.z, words[7] = v.w;
  }
};
// The slot's operand: a nibble in the upper half of a byte is 16 times the code.
struct OperandGroup {
  Fragment step[4];

  __device__ __forceinline__ void load(const uint8_t* slot, const Lane& lane) {
    GroupNibbles nibbles;
    nibbles.load(slot, lane);
    widen(nibbles);
  }
  __device__ __forceinline__ void widen(const GroupNibbles& nibbles) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      step[i / 2].at[i % 2] = (nibbles.words[i] << 4) & 0xf0f0f0f0u;
      step[i / 2].at[i % 2 + 2] = nibbles.words[i] & 0xf0f0f0f0u;
    }
#pragma unroll
    for (Fragment& f : step) pin(f.at);
  }
  // 16 times the group's sums.
  template <int kN>
  __device__ __forceinline__ void start(int (&sums)[kN / 2], uint64_t tile) const {
    Product<kN, false>::start(sums, step[0], tile);
#pragma unroll
    for (int i = 1; i < 4; ++i) Product<kN, false>::add(sums, step[i], tile + 2 * i);
  }
};

// A group's steps.
struct GroupSteps {
  float of[2];  // of the thread's outputs

  static __device__ __forceinline__ GroupSteps load(const uint8_t* slot, const Lane& lane) {
    const __half2 both = *reinterpret_cast<const __half2*>(slot + lane.steps_at);
    return {{__low2float(both), __high2float(both)}};
  }
};

// What a row of the input brings to its results.
struct Token {
  float scale4, scale8;
  int sum;  // of the int4 segment's input codes: times 128, what unsigned bytes added to the sum of products
  int pad;
};
// Fetches the row's into shared memory; complete after copies_wait().
__device__ __forceinline__ void fetch_token(const Task& t, int row, Token* to) {
  const uint8_t* record = t.x.data + row * t.x.row_bytes;
  const uint32_t at = shared_address(to);
  if (t.segment4 >= 0) {
    copy_word(at, record + t.x.at[t.segment4].scales_at);
    copy_word(at + 8, record + t.x.at[t.segment4].sum_at);
  }
  if (t.segment8 >= 0) copy_word(at + 4, record + t.x.at[t.segment8].scales_at);
}

// Scales of an output.
struct Steps {
  float step4, step8, bias;
};
__device__ __forceinline__ Steps steps_of(const Weight& w, int output) {
  return {w.slots4 > 0 ? w.steps4[output] : 0.0f, w.slots8 > 0 ? w.steps8[output] : 0.0f,
          w.bias != nullptr && output < w.n ? w.bias[output] : 0.0f};
}
// Both segments' sums, in the order of the segments.
__device__ __forceinline__ float result_of(int sum4, int sum8, const Steps& s, const Token& t) {
  const float first = static_cast<float>(sum4 - 128 * t.sum) * (s.step4 * t.scale4);
  return fmaf(static_cast<float>(sum8), s.step8 * t.scale8, first) + s.bias;
}

// Rows of the task; by expert they are known on the device only.
struct Rows {
  int begin, end;
};
__device__ __forceinline__ Rows rows_of(const Task& t) {
  if (t.row_ends == nullptr) return {0, t.x.rows};
  return {t.expert == 0 ? 0 : __ldcg(t.row_ends + t.expert - 1), __ldcg(t.row_ends + t.expert)};
}

// The tile of inputs that a slot meets: columns of a map, and how far into it.
struct SlotInputs {
  const CUtensorMap* map;
  int column;
  int tile_offset;  // of the descriptor
};
__device__ __forceinline__ SlotInputs inputs_of(int slot, int slots4, const CUtensorMap* map4,
                                                const CUtensorMap* map8) {
  if (slot < slots4) return {map4, slot * kSlotInputs4, 0};
  const int i = slot - slots4;  // two int8 slots share a tile of 128 inputs
  return {map8, i / 2 * 128, i % 2 * 4};
}

// The inputs of the first stages of a kernel for few rows: every warp asks for its share.
template <typename S, typename Ring>
__device__ __forceinline__ void ask_first_inputs(const Ring& ring, int warp, int row) {
  if (threadIdx.x % 32 == 0)
#pragma unroll 1
    for (int i = warp; i < min(ring.count, S::kStages); i += S::kThreads / 32)
      ring.ask_inputs(i, i, row);
  __syncwarp();
}

}  // namespace atom::backend::cuda::hopper
