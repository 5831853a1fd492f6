// Part of hopper_linear_many.cu: a warpgroup that multiplies, and turns its sums into results.
#pragma once

#include "backend/cuda/hopper_many_tiles.cuh"

namespace atom::backend::cuda::hopper::many {

template <typename S>
class Consumer {
 public:
  // results: null where y is written directly
  __device__ Consumer(const Task& t, const CUtensorMap* results, uint8_t* shared,
                      const Barriers& barriers)
      : t_(t),
        results_(results),
        barriers_(barriers),
        lane_(static_cast<int>(threadIdx.x) % kWarpgroup) {
    block_ = shared + S::kSlotsAt + static_cast<int>(threadIdx.x) / kWarpgroup * kSlotBytes;
    tokens_ = shared + S::kTokensAt;
    boxes_ = shared + S::kResultsAt + static_cast<int>(threadIdx.x) / kWarpgroup * 4 * S::kBoxBytes;
    tile_ = swizzled_tile(shared_address(shared));
  }

  __device__ void run(const Tiles& tiles) {
    for (int p = static_cast<int>(blockIdx.x); p < tiles.count();
         p += static_cast<int>(gridDim.x)) {
      int row, output_tile;
      tiles.place(p, S::kRows, row, output_tile);
      const int output = output_tile * kOutputs +
                         static_cast<int>(threadIdx.x) / kWarpgroup * kBlockOutputs + lane_.output;
      int sums[S::kRows / 2];
#pragma unroll
      for (int& sum : sums) sum = 0;
      if (S::kRows > 128 || t_.w.slots4 > 0)
        accumulate<Operand4>(t_.w.slots4, sums);
      else
        accumulate<Operand8>(t_.w.slots8, sums);
      const Token* tokens = wait_for_tokens();
      scale(sums, output, tokens);
      if (t_.w.slots4 > 0 && t_.w.slots8 > 0) add_int8(sums, output, tokens);
      barrier_arrive(barriers_.tokens_empty + 8 * buffer_);
      if (S::kRows > 128 || results_ != nullptr)
        store_boxes(sums, output, row);
      else
        store(sums, output, row, tiles.end_row);
      buffer_ ^= 1;
      if (buffer_ == 0) tokens_phase_ ^= 1;
    }
    if (results_ != nullptr && threadIdx.x % kWarpgroup == 0) boxes_wait();
  }

 private:
  __device__ void release(int stage) const {
    if (threadIdx.x % 32 == 0) barrier_arrive(barriers_.empty + 8 * stage);
  }

  template <typename Operand>
  __device__ __forceinline__ void start(Operand& operand, int slot, int (&sums)[S::kRows / 2]) {
    barrier_wait(barriers_.full + 8 * at_.stage, at_.phase);
    operand.load(block_ + at_.stage * S::kStageSlots, lane_);
    products_begin();
    const int offset = sizeof(Operand) == sizeof(Operand8) ? slot % 2 * 4 : 0;
    operand.template multiply<S::kRows>(
        sums, tile_ + static_cast<uint32_t>(at_.stage * (S::kInputBytes / 16) + offset));
    products_commit();
  }

  template <typename Operand>
  __device__ __forceinline__ void accumulate(int slots, int (&sums)[S::kRows / 2]) {
    Operand a, b;
    pin(sums);
    int slot = 0;
    if (slots % 2 == 0) {  // alone, so that the pairs below come out even
      start(a, slot++, sums);
      products_wait<0>();
      pin(sums);
      release(at_.stage);
      at_.next<S>();
    }
    start(a, slot++, sums);
    int pending = at_.stage;
    at_.next<S>();
    const auto turn = [&](Operand& operand, int slot) {
      start(operand, slot, sums);
      products_wait<1>();
      release(pending);
      pending = at_.stage;
      at_.next<S>();
    };
    for (; slot < slots; slot += 2) {
      turn(b, slot);
      turn(a, slot + 1);
    }
    products_wait<0>();
    pin(sums);
    release(pending);
  }

  // Sums of the first segment become results in f32, in place.
  __device__ __forceinline__ void scale(int (&sums)[S::kRows / 2], int output,
                                        const Token* tokens) const {
    const bool int4 = S::kRows > 128 || t_.w.slots4 > 0;
    const float* steps = int4 ? t_.w.steps4 : t_.w.steps8;
    const float step[2] = {steps[output], steps[output + 8]};
#pragma unroll
    for (int i = 0; i < S::kRows / 2; ++i) {
      const Token& token = tokens[i / 4 * 8 + i % 2];
      const float scale = int4 ? token.scale4 : token.scale8;
      const int excess = int4 ? 128 * token.sum : 0;
      sums[i] = __float_as_int(static_cast<float>(sums[i] - excess) * (step[i / 2 % 2] * scale));
      if (i % 8 == 7) hold_loads();
    }
  }

  __device__ __forceinline__ const Token* wait_for_tokens() const {
    barrier_wait(barriers_.tokens_full + 8 * buffer_, tokens_phase_);
    return reinterpret_cast<const Token*>(tokens_ + buffer_ * S::kTokenBytes) + threadIdx.x % 4 * 2;
  }

  // The int8 segment, some rows at a time; its slots, which all have a stage, are read in every pass.
  __device__ __forceinline__ void add_int8(int (&results)[S::kRows / 2], int output,
                                           const Token* tokens) {
    const float step[2] = {t_.w.steps8[output], t_.w.steps8[output + 8]};
    const Position first = at_;
#pragma unroll
    for (int part = 0; part < S::kRows / S::kPart; ++part) {
      int sums[S::kPart / 2];
#pragma unroll
      for (int& sum : sums) sum = 0;
      pin(sums);
      at_ = first;
      for (int slot = 0; slot < t_.w.slots8; ++slot) {
        barrier_wait(barriers_.full + 8 * at_.stage, at_.phase);
        Operand8 operand;
        operand.load(block_ + at_.stage * S::kStageSlots, lane_);
        products_begin();
        operand.template multiply<S::kPart>(
            sums, tile_ + static_cast<uint32_t>(at_.stage * (S::kInputBytes / 16) +
                                                part * (S::kPart * 128 / 16) + slot % 2 * 4));
        products_commit();
        products_wait<0>();
        if (part == S::kRows / S::kPart - 1) release(at_.stage);
        at_.next<S>();
      }
      pin(sums);
#pragma unroll
      for (int i = 0; i < S::kPart / 2; ++i) {
        int& result = results[part * (S::kPart / 2) + i];
        const float scale = tokens[part * S::kPart + i / 4 * 8 + i % 2].scale8;
        result = __float_as_int(
            fmaf(static_cast<float>(sums[i]), step[i / 2 % 2] * scale, __int_as_float(result)));
        if (i % 8 == 7) hold_loads();
      }
    }
  }

  __device__ __forceinline__ void store(const int (&results)[S::kRows / 2], int output, int row,
                                        int end) const {
    const float bias[2] = {bias_of(output), bias_of(output + 8)};
    const int64_t n = t_.w.n;
    const int first = row + static_cast<int>(threadIdx.x) % 4 * 2;
    float* y = t_.y + first * n + output;
#pragma unroll
    for (int i = 0; i < S::kRows / 2; ++i) {
      if (first + i / 4 * 8 + i % 2 < end && output + i / 2 % 2 * 8 < n) {
        const float result = __int_as_float(results[i]) + bias[i / 2 % 2];
        float* at = y + i % 2 * n + i / 2 % 2 * 8;
        if (t_.add != 0)
          add_to(at, result);
        else
          *at = result;
      }
      if (i % 4 == 3) y += 8 * n;
    }
  }

  // Through shared memory, kBoxRows rows at a time; the copy engine writes while the next tile is multiplied.
  __device__ __forceinline__ void store_boxes(const int (&results)[S::kRows / 2], int output,
                                              int row) const {
    const float bias[2] = {bias_of(output), bias_of(output + 8)};
    const int thread = static_cast<int>(threadIdx.x) % kWarpgroup;
    const int group = static_cast<int>(threadIdx.x) / kWarpgroup;
    const int column = lane_.output;  // and column + 8, of the warpgroup's 64
    const int first_output = output - column;
    // Row 2 (t % 4) + e of every eight, 16-byte chunk (column + 8 h) / 4 % 8 swizzled by the row: bits are exchanged one by one.
    const int start = column / 32 * S::kBoxBytes + thread % 4 * 256 +
                      ((column % 32 / 4) ^ (thread % 4 * 2)) * 16 + column % 4 * 4;
#pragma unroll
    for (int pass = 0; pass < S::kRows / S::kBoxRows; ++pass) {
      uint8_t* boxes = boxes_ + pass % 2 * 2 * S::kBoxBytes;
      if (thread == 0) boxes_wait_read<1>();
      warpgroup_sync(group + 1);
#pragma unroll
      for (int i = 0; i < S::kBoxRows / 2; ++i) {
        const int e = i % 2, h = i / 2 % 2;
        const int at = (start ^ (h * 32 + e * 16)) + e * 128 + i / 4 * 1024;
        *reinterpret_cast<float*>(boxes + at) =
            __int_as_float(results[pass * (S::kBoxRows / 2) + i]) + bias[h];
      }
      copy_engine_fence();
      warpgroup_sync(group + 1);
      if (thread == 0) {
        for (int half = 0; half < 2; ++half) {
          const uint32_t from = shared_address(boxes + half * S::kBoxBytes);
          if (t_.add != 0)
            add_box(results_, first_output + half * 32, row + pass * S::kBoxRows, from);
          else
            store_box(results_, first_output + half * 32, row + pass * S::kBoxRows, from);
        }
        boxes_commit();
      }
    }
  }
  __device__ float bias_of(int output) const {
    return t_.w.bias != nullptr && output < t_.w.n ? t_.w.bias[output] : 0.0f;
  }

  const Task& t_;
  const CUtensorMap* results_;
  Barriers barriers_;
  Lane lane_;
  const uint8_t *block_, *tokens_;
  uint8_t* boxes_;
  uint64_t tile_;
  Position at_;
  int buffer_ = 0, tokens_phase_ = 0;
};

}  // namespace atom::backend::cuda::hopper::many
