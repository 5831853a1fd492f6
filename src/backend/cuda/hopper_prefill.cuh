// The kernel of hopper_prefill.h: y = softmax(q k^T) v over the pages of a sequence, causal.
//   Tile: two parts of 64 rows (positions x query heads of a group) by pages of 64 tokens; two consumer warpgroups, one
//   part each, and one that produces K and V as f16 in shared memory (hopper_prefill_feed.cuh), 96 to 128 KiB of slots.
//   Both products by wgmma: scores = Q K^T with Q in registers (head_dim 256: in shared memory), y = P V with P in registers.
//   The scores of the next page are in flight together with the values of this one, its softmax while the values still are.
//   Numerics: f16 operands, f32 sums; online softmax of base 2 whose maximum moves only when a score grew by more than
//   2^kSlack, row by row, so that a row's bits do not depend on its neighbours.
//   Bound by the tensor cores and, with codes, by the producer's instructions (about 500 of a warp for 64 tokens of 128 nibbles).
#pragma once

#include "backend/cuda/hopper_half.cuh"
#include "backend/cuda/hopper_launch.h"
#include "backend/cuda/hopper_prefill_codes.cuh"
#include "backend/cuda/shared_limit.cuh"

namespace atom::backend::cuda::hopper::prefill {

using decode::as_halves;

// A weight is at most 2^kSlack times that of the largest score so far.
inline constexpr float kSlack = 8;

// A part's rows, by one warpgroup. Of a thread: rows 16 * warp + g and 8 further ([0] and [1]), columns 8 j + 2 c + {0, 1}.
template <class C>
class Consumer {
 public:
  __device__ Consumer(const PrefillTask& t, int kv_head, Shared<C>& shared)
      : t_(t),
        group_(static_cast<int>(threadIdx.x) / kGroupThreads),
        warp_(static_cast<int>(threadIdx.x) % kGroupThreads / kLanes),
        lane_(static_cast<int>(threadIdx.x) % kLanes),
        part_(shared.tile.part[group_]),
        first_head_(kv_head * (t.heads / t.kv_heads) + part_.head),
        units_(shared.tile),
        queries_(shared.queries[group_]),
        slots_(shared_address(shared.slots)),
        full_(shared_address(shared.full)),
        empty_(shared_address(shared.empty)) {
    cached_ = part_.count > 0 ? part_.page : 0;
    own_ = part_.count == 0 ? -1
           : !C::kOpen      ? part_.page
                            : units_.cache + (part_.page != shared.tile.part[0].page);
  }

  __device__ void run() {
    int unit = 0;
    if (part_.count > 0) {
      load_queries();
      attend();
      write();
      unit = own_ + 1;
    }
    for (; unit < units_.all; ++unit) leave_out(unit);
  }

 private:
  __device__ void attend() {
#pragma unroll
    for (auto& product : y_)
#pragma unroll
      for (float& sum : product) sum = 0;
    int unit = next_used(0);
    multiply_keys(unit);
    products_wait<0>();
    pin(s_);
    release(2 * unit);
    weigh(unit);
    round_weights();
    while (unit != own_) {
      const int before = unit;
      unit = next_used(unit + 1);
      multiply_keys(unit);
      multiply_values(before);
      products_wait<1>();
      pin(s_);
      release(2 * unit);
      weigh(unit);
      wait_for_values(before);
      if (grown_) rescale();
      round_weights();
    }
    multiply_values(unit);
    wait_for_values(unit);
  }

  // The first page from `unit` on that this part reads. It has no part in those before.
  __device__ int next_used(int unit) {
    for (; unit >= cached_ && unit != own_; ++unit) leave_out(unit);
    return unit;
  }
  __device__ void leave_out(int unit) const {
    wait_full(2 * unit);
    release(2 * unit);
    wait_full(2 * unit + 1);
    release(2 * unit + 1);
  }
  __device__ void wait_full(int half) const {
    const Place<C> place(half);
    barrier_wait(full_ + 8 * place.slot, place.phase);
  }
  __device__ void release(int half) const {
    __syncwarp();
    warp_arrive(empty_ + 8 * Place<C>(half).slot);
  }
  __device__ uint32_t slot(int half) const { return slots_ + Place<C>(half).slot * C::kSlotBytes; }

  struct RowOf {
    int position, head;  // within the part
  };
  __device__ RowOf row(int i) const { return {i & ((1 << part_.shift) - 1), i >> part_.shift}; }
  __device__ bool is_real(const RowOf& r) const {
    return r.position < part_.count && r.head < part_.heads;
  }
  __device__ int64_t vector(const RowOf& r) const {  // of [rows, heads]
    return int64_t{part_.row + r.position} * t_.heads + first_head_ + r.head;
  }

  // Each warp copies its own 16 rows; rows of nobody are zero.
  __device__ void load_queries() {
    constexpr int kChunks = C::kDim / 8;
    const int64_t bytes = 2 * C::kDim + 16;
    for (int i = lane_; i < 16 * kChunks; i += kLanes) {
      const int at = 16 * warp_ + i / kChunks, chunk = i % kChunks;
      const RowOf r = row(at);
      uint4 v = {0, 0, 0, 0};
      if (is_real(r))
        v = *reinterpret_cast<const uint4*>(t_.queries + vector(r) * bytes + 16 * chunk);
      if constexpr (C::kKeyBits == 4)
        v = {low_halves(v.x, v.z), high_halves(v.x, v.z), low_halves(v.y, v.w),
             high_halves(v.y, v.w)};
      *reinterpret_cast<uint4*>(queries_ + chunk / 8 * kPanelBytes + swizzled(at, chunk % 8)) = v;
    }
    const int g = lane_ / 4, c = lane_ % 4;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const RowOf r = row(16 * warp_ + g + 8 * h);
      factor_[h] = 1;
      if (is_real(r))
        factor_[h] = *reinterpret_cast<const float*>(t_.queries + vector(r) * bytes + 2 * C::kDim);
    }
    if constexpr (C::kQueriesInRegisters) {
      __syncwarp();
#pragma unroll
      for (int k = 0; k < C::kDim / 16; ++k)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          q_[k][i] = *reinterpret_cast<const uint32_t*>(
              queries_ + k / 4 * kPanelBytes +
              swizzled(16 * warp_ + g + i % 2 * 8, k % 4 * 2 + i / 2) + 4 * c);
    } else {
      copy_engine_fence();
      warpgroup_sync(1 + group_);
    }
  }

  __device__ void multiply_keys(int unit) {
    wait_full(2 * unit);
    const uint32_t keys = slot(2 * unit);
    products_begin();
#pragma unroll
    for (int k = 0; k < C::kDim / 16; ++k) {
      const uint64_t b = swizzled_tile(keys + k / 4 * kPanelBytes) + k % 4 * 2;
      if constexpr (C::kQueriesInRegisters)
        multiply_halves<Panel::kRows>(s_, q_[k], b, k > 0);
      else
        multiply_halves<Panel::kRows>(
            s_, swizzled_tile(shared_address(queries_) + k / 4 * kPanelBytes) + k % 4 * 2, b,
            k > 0);
    }
    products_commit();
  }
  __device__ void multiply_values(int unit) {
    wait_full(2 * unit + 1);
    const uint32_t values = slot(2 * unit + 1);
    products_begin();
#pragma unroll
    for (int k = 0; k < kPrefillTokens / 16; ++k)
#pragma unroll
      for (int i = 0; i < C::kProducts; ++i)
        multiply_halves<Panel::kColumns>(y_[i], p_[k],
                                         swizzled_tile(values + i * kPanelBytes) + k * 128, true);
    products_commit();
  }
  __device__ void wait_for_values(int unit) {
    products_wait<0>();
#pragma unroll
    for (auto& product : y_) pin(product);
    release(2 * unit + 1);
  }

  // Scores to weights.
  __device__ void weigh(int unit) {
    const int c = lane_ % 4;
    float most[2] = {-INFINITY, -INFINITY};
    if (unit == own_) {
#pragma unroll
      for (int i = 0; i < 32; ++i)
        if (8 * (i / 4) + 2 * c + i % 2 > last_column(i / 2 % 2)) s_[i] = -INFINITY;
    }
#pragma unroll
    for (int i = 0; i < 32; ++i) most[i / 2 % 2] = fmaxf(most[i / 2 % 2], s_[i]);
    bool grow = false;
#pragma unroll
    for (int h = 0; h < 2; ++h) grow = grow || most[h] * factor_[h] > shift_[h] + kSlack;
    grown_ = __any_sync(~0u, grow) != 0;
    if (grown_) grow_shift(most);
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      const int h = i / 2 % 2;
      s_[i] = exp2_fast(fmaf(s_[i], factor_[h], -shift_[h]));
      mass_[h] += s_[i];
    }
  }
  __device__ int last_column(int h) const {  // of the own page that the row reads
    return part_.position % kPrefillTokens + row(16 * warp_ + lane_ / 4 + 8 * h).position;
  }
  __device__ void grow_shift(float (&most)[2]) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      most[h] = fmaxf(most[h], __shfl_xor_sync(~0u, most[h], 1));
      most[h] = fmaxf(most[h], __shfl_xor_sync(~0u, most[h], 2)) * factor_[h];
      by_[h] = 1;
      if (most[h] > shift_[h] + kSlack) {
        by_[h] = exp2_fast(shift_[h] - most[h]);
        shift_[h] = most[h];
      }
      mass_[h] *= by_[h];
    }
  }
  __device__ void rescale() {
#pragma unroll
    for (auto& product : y_)
#pragma unroll
      for (int i = 0; i < C::kSums; ++i) product[i] *= by_[i / 2 % 2];
  }
  __device__ void round_weights() {
#pragma unroll
    for (int i = 0; i < 16; ++i) p_[i / 4][i % 4] = as_halves(s_[2 * i], s_[2 * i + 1]);
  }

  __device__ void write() {
    const int g = lane_ / 4, c = lane_ % 4;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float mass = mass_[h];
      mass += __shfl_xor_sync(~0u, mass, 1);
      mass += __shfl_xor_sync(~0u, mass, 2);
      const RowOf r = row(16 * warp_ + g + 8 * h);
      if (!is_real(r)) continue;
      const float by = 1.0f / mass;
      float* y = t_.y + vector(r) * C::kDim;
#pragma unroll
      for (int i = 0; i < C::kDim / 8; ++i) {
        const float* sums = &y_[i / (C::kSums / 4)][i % (C::kSums / 4) * 4 + 2 * h];
        const float a = sums[0] * by, b = sums[1] * by;
        if constexpr (C::kValueBits == 4)
          y[8 * i + c] = a, y[8 * i + c + 4] = b;
        else
          *reinterpret_cast<float2*>(y + 8 * i + 2 * c) = make_float2(a, b);
      }
    }
  }

  const PrefillTask& t_;
  int group_, warp_, lane_;
  PrefillPart part_;
  int first_head_;
  Units<C> units_;
  uint8_t* queries_;
  uint32_t slots_, full_, empty_;
  int cached_, own_;  // units below cached_ are read, and unit own_, the last
  uint32_t q_[C::kQueriesInRegisters ? C::kDim / 16 : 1][4];
  float s_[32];                      // scores of a page, then weights
  uint32_t p_[4][4];                 // weights as f16
  float y_[C::kProducts][C::kSums];  // weights * values so far
  float factor_[2];                  // of a score to be one of base 2
  float shift_[2] = {-INFINITY, -INFINITY}, mass_[2] = {};
  float by_[2];  // what the last page's maximum shrinks the sums by, where grown_
  bool grown_ = false;
};

template <class C>
__global__ void __launch_bounds__(kThreads, 1)
    prefill_kernel(const __grid_constant__ PrefillTask task) {
  extern __shared__ __align__(1024) uint8_t memory[];
  Shared<C>& shared = *reinterpret_cast<Shared<C>*>(memory);
  if (threadIdx.x < C::kSlots) {
    barrier_init(shared_address(&shared.full[threadIdx.x]), kGroupThreads / kLanes * kWarpArrivals);
    barrier_init(shared_address(&shared.empty[threadIdx.x]),
                 kConsumers * kGroupThreads / kLanes * kWarpArrivals);
    barrier_init_fence();
  }
  constexpr int kWords = sizeof(PrefillTile) / 4;
  if (threadIdx.x < kWords)
    reinterpret_cast<uint32_t*>(&shared.tile)[threadIdx.x] =
        reinterpret_cast<const uint32_t*>(task.tiles + blockIdx.x / task.kv_heads)[threadIdx.x];
  __syncthreads();
  const int head = static_cast<int>(blockIdx.x) % task.kv_heads;
  if (threadIdx.x < kConsumers * kGroupThreads) {
    take_registers<216>();  // (2 * 216 + 72) * 128 = 384 * 168, what the launch took
    Consumer<C>(task, head, shared).run();
  } else {
    give_registers<72>();
    if constexpr (C::kCodes)
      CodeFeed<C>(task, head, shared).run();
    else
      HalfFeed<C>(task, head, shared).run();
  }
}

template <class C>
Status launch(const PrefillTask& task, Stream stream) {
  constexpr int kBytes = sizeof(Shared<C>);
  static_assert(kBytes <= 227 * 1024, "what a block may have");
  if (const Status status = allow_shared(prefill_kernel<C>, kBytes); status != 0) return status;
  return launch_kernel(
      prefill_kernel<C>,
      {dim3(static_cast<unsigned>(task.tile_count * task.kv_heads)), kThreads, kBytes, 1, false},
      stream, task);
}

// Every kernel of one head_dim.
template <int kDim>
Status launch_of(const PrefillTask& task, Stream stream) {
  const int key_bits = task.cache.side[0].bits, value_bits = task.cache.side[1].bits;
  const bool open = task.has_open_page != 0;
  if (key_bits == 16) return launch<Config<kDim, 16, 16, false>>(task, stream);
  if (value_bits == 8) return launch<Config<kDim, 8, 8, false>>(task, stream);
  if (key_bits == 8)
    return open ? launch<Config<kDim, 8, 4, true>>(task, stream)
                : launch<Config<kDim, 8, 4, false>>(task, stream);
  return open ? launch<Config<kDim, 4, 4, true>>(task, stream)
              : launch<Config<kDim, 4, 4, false>>(task, stream);
}

}  // namespace atom::backend::cuda::hopper::prefill
