// Part of hopper_linear_many.cu: a warpgroup that multiplies, and turns its sums into results.
#pragma once

#include "backend/cuda/hopper_many_results.cuh"

namespace atom::backend::cuda::hopper::many {

template <typename S>
class Consumer {
 public:
  // results: null where y is written directly
  __device__ Consumer(const Task& t, const CUtensorMap* results, uint8_t* shared,
                      const Barriers& barriers)
      : t_(t),
        writer_(t, results, shared),
        barriers_(barriers),
        lane_(static_cast<int>(threadIdx.x) % kWarpgroup) {
    block_ = shared + S::kSlotsAt + static_cast<int>(threadIdx.x) / kWarpgroup * kSlotBytes;
    tokens_ = shared + S::kTokensAt;
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
      writer_.write(sums, output, row, tiles.end_row);
      buffer_ ^= 1;
      if (buffer_ == 0) tokens_phase_ ^= 1;
    }
    writer_.finish();
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

  const Task& t_;
  ResultWriter<S> writer_;
  Barriers barriers_;
  Lane lane_;
  const uint8_t *block_, *tokens_;
  uint64_t tile_;
  Position at_;
  int buffer_ = 0, tokens_phase_ = 0;
};

}  // namespace atom::backend::cuda::hopper::many
