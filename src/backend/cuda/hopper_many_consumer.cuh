// Part of hopper_linear_many.cu: a warpgroup that multiplies, and turns its sums into results.
#pragma once

#include <type_traits>

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
    shared_ = shared;
    tile_ = swizzled_tile(shared_address(shared));
    empty_ = S::kShare == 1 ? barriers.empty : of_rank(barriers.empty, threadIdx.x % S::kShare);
  }

  __device__ void run(const Tiles& tiles) {
    for (Turn turn; tiles.next(turn);) {
      int row, output_tile;
      tiles.place(turn.tile, S::kRows, row, output_tile);
      output_ = output_tile * S::kOutputs +
                static_cast<int>(threadIdx.x) / kWarpgroup * kBlockOutputs + lane_.output;
      const int rank = static_cast<int>(blockIdx.x) % 2;
      const Slots slots = slots_of(t_.w, S::kSplit > 1 && turn.shared, rank);
      int sums[S::kRows / 2];
      if (S::kRows > 128 || t_.w.slots4 > 0)
        accumulate<Operand4>(slots.end4 - slots.begin4, sums);
      else
        accumulate<Operand8>(t_.w.slots8, sums);
      constexpr int kPad = kUneven<S> ? 2 * kBlockOutputs : S::kOutputs;  // at most packed_blocks()
      const int padded = (t_.w.n + kPad - 1) / kPad * kPad;
      const Output outputs[2] = {output_of(output_, padded), output_of(output_ + 8, padded)};
      Place place{row, tiles.end_row, 0, wait_for_tokens()};
      if (S::kSplit > 1 && turn.shared) {
        exchange(sums, rank);
        place.first = rank * (S::kRows / 2);
        place.row += place.first;
        place.tokens += place.first;
        finish<S::kRows / 2>(sums, outputs, place);
      } else {
        finish<S::kRows>(sums, outputs, place);
      }
      barrier_arrive(barriers_.tokens_empty + 8 * buffer_);
      buffer_ ^= 1;
      if (buffer_ == 0) tokens_phase_ ^= 1;
    }
    writer_.finish();
  }

 private:
  static constexpr uint32_t kTile =
      S::kInputBytes / 16;  // of the descriptor, from a stage to the next
  struct Output {
    float step4, step8, bias;
  };
  struct Place {
    int row, end;  // the first row of y, and behind the last
    int first;     // of the tile's rows
    const Token* tokens;
  };

  __device__ Output output_of(int output, int padded) const {
    const int inside = min(output, padded - 1);
    return {t_.w.slots4 > 0 ? t_.w.steps4[inside] : 0.0f,
            t_.w.slots8 > 0 ? t_.w.steps8[inside] : 0.0f, writer_.bias_of(output)};
  }

  __device__ __forceinline__ void release(int stage) const {
    __syncwarp();  // all lanes have read
    if constexpr (S::kShare == 1)
      warp_arrive(empty_ + 8 * stage);
    else if (threadIdx.x % 32 < S::kShare)
      barrier_arrive_at(empty_ + 8 * stage);
  }

  template <bool kFirst, typename Operand>
  __device__ __forceinline__ void start(Operand& operand, int slot, int (&sums)[S::kRows / 2]) {
    barrier_wait(barriers_.full + 8 * at_.stage, at_.phase);
    operand.load(block_ + at_.stage * S::kStageSlots, lane_);
    products_begin();
    const uint32_t offset = sizeof(Operand) == sizeof(Operand8) ? slot % 2 * 4 : 0;
    const uint64_t tile = tile_ + (static_cast<uint32_t>(at_.stage) * kTile + offset);
    if constexpr (kFirst)
      operand.template start<S::kRows>(sums, tile);
    else
      operand.template multiply<S::kRows>(sums, tile);
    products_commit();
  }

  template <typename Operand>
  __device__ __forceinline__ void accumulate(int slots, int (&sums)[S::kRows / 2]) {
    if constexpr (S::kScarce) {  // one operand: the other warpgroups multiply meanwhile
      const auto once = [&](auto first, int slot) {
        Operand operand;
        start<decltype(first)::value>(operand, slot, sums);
        products_wait<0>();
        pin(sums);
        release(at_.stage);
        at_.next<S>();
      };
      once(std::true_type{}, 0);
#pragma unroll 1
      for (int slot = 1; slot < slots; ++slot) once(std::false_type{}, slot);
      return;
    }
    Operand a, b;
    start<true>(a, 0, sums);
    int pending = at_.stage;
    at_.next<S>();
    const auto turn = [&](Operand& operand, int slot) {
      start<false>(operand, slot, sums);
      products_wait<1>();
      release(pending);
      pending = at_.stage;
      at_.next<S>();
    };
    int slot = 1;
#pragma unroll 1
    for (; slot + 1 < slots; slot += 2) {
      turn(b, slot);
      turn(a, slot + 1);
    }
    if (slot < slots) turn(b, slot);
    products_wait<0>();
    pin(sums);
    release(pending);
  }

  __device__ __forceinline__ const Token* wait_for_tokens() const {
    barrier_wait(barriers_.tokens_full + 8 * buffer_, tokens_phase_);
    return reinterpret_cast<const Token*>(shared_ + S::kTokensAt + buffer_ * S::kTokenBytes) +
           threadIdx.x % 4 * 2;
  }

  // Sums of the other CTA's half of the rows go to it, where inputs of its stages were, when its products have
  // read them; its sums of this CTA's half are added, which then is the first. Once a launch.
  __device__ __forceinline__ void exchange(int (&sums)[S::kRows / 2], int rank) {
    constexpr int kHalf = S::kRows / 4, kStride = S::kConsumers * kWarpgroup * 16;
    const auto other = static_cast<uint32_t>(1 - rank);
    const int more = t_.w.slots4 % 2;  // slots of the second CTA
    const int others_int8 = at_.stage + (rank == 0 ? more : S::kStages - more);
    const auto place = [&](int int8, int i) {  // of a CTA whose int8 segment begins at that stage
      constexpr int kOfStage = kHalf / S::kConsumers;
      const int stage = (int8 + S::kShortSlots8 + i / kOfStage) % S::kStages;
      return stage * S::kInputBytes + i % kOfStage / 4 * kStride +
             static_cast<int>(threadIdx.x) * 16;
    };
    cluster_wait();  // the other CTA's barriers are initialized
    if (arrives_for_warp()) barrier_release_at(of_rank(barriers_.sums_empty, other));
    barrier_acquire(barriers_.sums_empty, 0);
    const uint32_t there = of_rank(shared_address(shared_), other);
#pragma unroll
    for (int i = 0; i < kHalf; i += 4) {
      int4 v = {sums[i], sums[i + 1], sums[i + 2], sums[i + 3]};
      int4 w = {sums[kHalf + i], sums[kHalf + i + 1], sums[kHalf + i + 2], sums[kHalf + i + 3]};
      if (rank == 0) {
        const int4 mine = v;
        v = w;
        w = mine;
      }
      store_to_cluster(there + place(others_int8, i), v);
      sums[i] = w.x, sums[i + 1] = w.y, sums[i + 2] = w.z, sums[i + 3] = w.w;
    }
    __syncwarp();
    if (arrives_for_warp()) barrier_release_at(of_rank(barriers_.sums_full, other));
    barrier_acquire(barriers_.sums_full, 0);
#pragma unroll
    for (int i = 0; i < kHalf; i += 4) {
      const int4 v = *reinterpret_cast<const int4*>(shared_ + place(at_.stage, i));
      sums[i] += v.x, sums[i + 1] += v.y, sums[i + 2] += v.z, sums[i + 3] += v.w;
      hold_loads();
    }
  }

  // Sums become results, a part of the rows after the other.
  template <int kRows>
  __device__ __forceinline__ void finish(const int (&sums)[S::kRows / 2],
                                         const Output (&outputs)[2], const Place& place) {
    const bool both = t_.w.slots4 > 0 && t_.w.slots8 > 0;
    const bool is_long = t_.w.slots8 > S::kShortSlots8;
    if (both && (!S::kLong || !is_long))
      finish_both<kRows>(sums, outputs, place);
    else if (both)
      finish_long(sums, outputs, place);
    else
      finish_one<kRows>(sums, outputs, place);
  }

  // Results of the int4 segment.
  __device__ __forceinline__ void scale(const int* sums, const Output (&outputs)[2],
                                        const Token* tokens, float (&results)[kPartSums]) const {
#pragma unroll
    for (int i = 0; i < kPartSums; ++i) {
      const Token& token = tokens[i / 4 * 8 + i % 2];
      results[i] =
          static_cast<float>(sums[i] - 128 * token.sum) * (outputs[i / 2 % 2].step4 * token.scale4);
    }
  }
  // Adds those of the int8 segment.
  __device__ __forceinline__ void add_int8(const int* sums, const Output (&outputs)[2],
                                           const Token* tokens, float (&results)[kPartSums]) const {
#pragma unroll
    for (int i = 0; i < kPartSums; ++i)
      results[i] = fmaf(static_cast<float>(sums[i]),
                        outputs[i / 2 % 2].step8 * tokens[i / 4 * 8 + i % 2].scale8, results[i]);
  }
  __device__ __forceinline__ void write(const float (&results)[kPartSums],
                                        const Output (&outputs)[2], int part, const Place& place) {
    const float bias[2] = {outputs[0].bias, outputs[1].bias};
    writer_.write_part(results, bias, output_, part, place.row + part * kPartRows, place.end);
    hold_loads();
  }

  // One segment alone.
  template <int kRows>
  __device__ __forceinline__ void finish_one(const int (&sums)[S::kRows / 2],
                                             const Output (&outputs)[2], const Place& place) {
    const bool int4 = S::kRows > 128 || t_.w.slots4 > 0;
    const float steps[2] = {int4 ? outputs[0].step4 : outputs[0].step8,
                            int4 ? outputs[1].step4 : outputs[1].step8};
    const int excess = int4 ? 128 : 0;
    const float* scales = int4 ? &place.tokens->scale4 : &place.tokens->scale8;
#pragma unroll
    for (int part = 0; part < kRows / kPartRows; ++part) {
      float results[kPartSums];
#pragma unroll
      for (int i = 0; i < kPartSums; ++i) {
        const int row = part * kPartRows + i / 4 * 8 + i % 2;
        const int sum = sums[part * kPartSums + i] - excess * place.tokens[row].sum;
        results[i] = static_cast<float>(sum) * (steps[i / 2 % 2] * scales[row * 4]);
      }
      write(results, outputs, part, place);
    }
  }

  // An int8 segment of one or two slots, whose operand stays in registers: while a part's products run, the part
  // before becomes results.
  template <int kRows>
  __device__ __forceinline__ void finish_both(const int (&sums)[S::kRows / 2],
                                              const Output (&outputs)[2], const Place& place) {
    constexpr int kParts = kRows / kPartRows;
    const int stage = at_.stage;
    const uint32_t own = place.first * (128 / 16);
    Operand8 a, b;
    barrier_wait(barriers_.full + 8 * at_.stage, at_.phase);
    a.load(block_ + at_.stage * S::kStageSlots, lane_);
    const uint64_t tile_a = tile_ + (static_cast<uint32_t>(at_.stage) * kTile + own);
    uint64_t tile_b = tile_a;
    at_.next<S>();
    const bool two = t_.w.slots8 > 1;
    const int second = at_.stage;
    if (two) {
      barrier_wait(barriers_.full + 8 * at_.stage, at_.phase);
      b.load(block_ + at_.stage * S::kStageSlots, lane_);
      tile_b = tile_ + (static_cast<uint32_t>(at_.stage) * kTile + own + 4);
      at_.next<S>();
    } else {
      b = {};  // adds nothing
    }
    int products[kPartSums];
    const auto ask = [&](int part) {
      const uint32_t offset = part * (kPartRows * 128 / 16);
      products_begin();
      a.template start<kPartRows>(products, tile_a + offset);
      b.template multiply<kPartRows>(products, tile_b + offset);
      products_commit();
    };
    if constexpr (S::kScarce) {  // one part after the other
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        ask(part);
        products_wait<0>();
        pin(products);
        if (part + 1 == kParts) {
          release(stage);
          if (two) release(second);
        }
        float results[kPartSums];
        scale(sums + part * kPartSums, outputs, place.tokens + part * kPartRows, results);
        add_int8(products, outputs, place.tokens + part * kPartRows, results);
        write(results, outputs, part, place);
      }
      return;
    }
    ask(0);
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      float results[kPartSums];
      scale(sums + part * kPartSums, outputs, place.tokens + part * kPartRows, results);
      products_wait<0>();
      pin(products);
      add_int8(products, outputs, place.tokens + part * kPartRows, results);
      if (part + 1 < kParts) {
        pin(results);
        ask(part + 1);
      } else {
        release(stage);
        if (two) release(second);
      }
      write(results, outputs, part, place);
    }
  }

  // A longer one, of 128 rows at most, which leave registers for as many sums.
  __device__ __forceinline__ void finish_long(const int (&sums)[S::kRows / 2],
                                              const Output (&outputs)[2], const Place& place) {
    if constexpr (S::kLong) {
      int products[S::kRows / 2];
#pragma unroll
      for (int& sum : products) sum = 0;
      pin(products);
#pragma unroll 1
      for (int slot = 0; slot < t_.w.slots8; ++slot) {
        Operand8 operand;
        start<false>(operand, slot, products);
        products_wait<0>();
        pin(products);
        release(at_.stage);
        at_.next<S>();
      }
#pragma unroll
      for (int part = 0; part < S::kRows / kPartRows; ++part) {
        const Token* tokens = place.tokens + part * kPartRows;
        float results[kPartSums];
        scale(sums + part * kPartSums, outputs, tokens, results);
        add_int8(products + part * kPartSums, outputs, tokens, results);
        write(results, outputs, part, place);
      }
    }
  }

  const Task& t_;
  ResultWriter<S> writer_;
  Barriers barriers_;
  Lane lane_;
  const uint8_t *block_, *shared_;
  uint64_t tile_;
  uint32_t empty_;  // the barriers of the CTA that the lane tells
  int output_ = 0;
  Position at_;
  int buffer_ = 0, tokens_phase_ = 0;
};

}  // namespace atom::backend::cuda::hopper::many
