// The kernel of hopper_decode.h: the walk of a warp over its segments.
#pragma once

#include "backend/cuda/hopper_decode_merge.cuh"
#include "backend/cuda/hopper_decode_sums.cuh"
#include "backend/cuda/hopper_launch.h"
#include "backend/cuda/shared_limit.cuh"

namespace atom::backend::cuda::hopper::decode {

struct Segment {
  int row, head, unit, end, cache_units, tail, place, piece;
  bool more;
};
__device__ inline Segment load_segment(uint32_t header) {
  uint32_t a[4], b[4];
  load_words(a, header);
  load_words(b, header + 16);
  const auto word = [](uint32_t x) { return static_cast<int>(x); };
  return {word(a[0]),         word(a[1]), word(a[2]), word(a[3]),         word(b[0]),
          word(b[1]) % kMore, word(b[2]), word(b[3]), word(b[1]) >= kMore};
}

template <class C>
class Warp {
 public:
  __device__ Warp(const DecodeTask& t, Shared<C>& shared)
      : t_(t),
        shared_(shared),
        warp_(static_cast<int>(threadIdx.x) / kLanes),
        lane_(static_cast<int>(threadIdx.x) % kLanes),
        ring_(shared_address(shared.ring[warp_])),
        filled_(shared_address(shared.filled[warp_])),
        feed_(t, warp_) {}

  __device__ void set_up_barriers() const {
    if (lane_ < 2 * C::kStages) barrier_init(filled_ + 8 * lane_, 1);
    barrier_init_fence();
    __syncwarp();
  }

  // Starts the first copies. What the kernel before may have written waits for its end.
  __device__ void begin() {
    feed_.begin();
    deep_ = feed_.run_units() >= C::kDeepUnits;
    bool waited = t_.overlap == 0;
    Source sources[C::kStages];
#pragma unroll
    for (int i = 0; i < C::kStages; ++i) {
      if (i > 0 && !deep_) break;
      if (!waited && feed_.at_newest()) wait_for_previous_grid(), waited = true;
      sources[i] = feed_.next();
      if (sources[i].keys == nullptr) break;
      feed_.copy_keys(stage_at(i), sources[i], filled_ + 16 * i);
      feed_.copy_values(stage_at(i) + C::kValuesAt, sources[i], filled_ + 16 * i + 8);
    }
    feed_.begun();
    if (!waited) wait_for_previous_grid();
#pragma unroll
    for (int i = 0; i < C::kStages; ++i)
      feed_.copy_segment(stage_at(i), sources[i], filled_ + 16 * i);
    idle_ = sources[0].keys == nullptr;
    __syncwarp();
  }

  __device__ void run() {
    if (C::kStages > 1 && !deep_ && !idle_) {
      barrier_wait(filled_, 0);
      const Source source = feed_.next();
      if (source.keys != nullptr) {
        feed_.copy_segment(stage_at(1), source, filled_ + 16);
        feed_.copy_keys(stage_at(1), source, filled_ + 16);
        feed_.copy_values(stage_at(1) + C::kValuesAt, source, filled_ + 24);
      }
    }
    for (bool more = !idle_; more;) {
      const Segment s = load_segment(stage_at(stage_) + C::kHeaderAt);
      run_segment(s);
      more = s.more;
    }
  }

 private:
  __device__ uint32_t stage_at(int i) const { return ring_ + i * C::kStage; }

  __device__ void run_segment(const Segment& s) {
    const Heads heads = heads_of(t_, s.row, s.head);
    barrier_wait(filled_ + 16 * stage_, parity_);
    load_vectors(stage_at(stage_) + C::kQueriesAt, heads.count);
    Sums<C> sums;
    for (int unit = s.unit; unit < s.end; ++unit) {
      const bool last = unit == s.end - 1;
      if (C::kOpen && unit >= s.cache_units) {
        if (unit == s.cache_units || unit == s.unit) enter_open_page(sums);
        run_unit<8, 8, C::kOpenTokens>(sums, last ? s.tail : C::kOpenTokens);
      } else {
        run_unit<C::kKeyBits, C::kValueBits, C::kTokens>(sums, last ? s.tail : C::kTokens);
      }
    }
    finish(s, heads, sums);
  }

  __device__ void load_vectors(uint32_t vectors, int count) {
    const int g = lane_ / 4, c = lane_ % 4;
    load_queries<C::kDim, C::kKeyBits, C::kKeyBits == 4>(
        queries_, vectors + (g < count ? g : 0) * C::kQueryBytes, g < count);
#pragma unroll
    for (int j = 0; j < C::kColumns; ++j) {
      const bool real = 2 * c + j < count;
      uint32_t v[2];
      load_words(v, vectors + (real ? 2 * c + j : 0) * C::kQueryBytes + 2 * C::kDim);
      scalars_.factor[j] = __uint_as_float(v[0]) * (C::kKeyBits < 16 ? 0x1p24f : 1.0f);
      scalars_.sum[j] = real ? __uint_as_float(v[1]) * 0x1p-24f : 0.0f;
    }
  }

  // From the cache to int8: bytes' odd dims are in the unit of the even ones, nibbles' are not.
  __device__ void enter_open_page(Sums<C>& sums) {
    if constexpr (C::kValueBits == 4) {
      sums.odd_unit = 0x1p24f;
#pragma unroll
      for (int i = 0; i < C::kDim / 16; ++i) sums.y[i][2] *= 0x1p-4f, sums.y[i][3] *= 0x1p-4f;
    }
    if constexpr (C::kKeyBits == 4) {
#pragma unroll
      for (int i = 0; i < C::kDim / 16; ++i)
        queries_.q[i][1] = scale_halves(queries_.q[i][1], 16.0f);
    }
  }

  template <int kKeyBits, int kValueBits, int kTokens>
  __device__ void run_unit(Sums<C>& sums, int left) {
    const uint32_t keys = stage_at(stage_), values = keys + C::kValuesAt;
    const uint32_t keys_filled = filled_ + 16 * stage_, values_filled = keys_filled + 8;
    float s[kTokens / 16][4] = {};
    barrier_wait(keys_filled, parity_);
    score_unit<C, kKeyBits, kTokens>(s, keys, queries_, scalars_, left);
    __syncwarp();
    const Source source = feed_.next();
    if (source.keys != nullptr) {
      feed_.copy_segment(keys, source, keys_filled);
      feed_.copy_keys(keys, source, keys_filled);
    }

    barrier_wait(values_filled, parity_);
    uint32_t params[kTokens / 8];
    float step = 0;
    if constexpr (kValueBits < 16)
      step = load_value_params<kTokens>(params, values + kTokens * C::kDim * kValueBits / 8, left);
    else if (left < kTokens)
      clear_values<C>(values, left);
    rescale<C, kTokens>(sums, s, scalars_, step);
    add_values<C, kValueBits, kTokens>(sums, s, scalars_, values, params);
    __syncwarp();
    if (source.keys != nullptr) feed_.copy_values(values, source, values_filled);
    if (++stage_ == C::kStages) stage_ = 0, parity_ ^= 1;
  }

  __device__ void finish(const Segment& s, const Heads& heads, Sums<C>& sums) {
    const int g = lane_ / 4, c = lane_ % 4;
    const bool whole = s.place == kWhole;
    float* to = whole               ? t_.y + heads.first * C::kDim
                : s.place == kPiece ? t_.pieces + s.piece * C::kPieceFloats
                                    : shared_.slot(s.place);
    const int stride = whole ? C::kDim : C::kDim + 4;
#pragma unroll
    for (int j = 0; j < C::kColumns; ++j) {
      float mass = sums.mass[j], lows = sums.lows[j];
#pragma unroll
      for (int lanes = 4; lanes < kLanes; lanes *= 2) {
        mass += __shfl_xor_sync(~0u, mass, lanes);
        lows += __shfl_xor_sync(~0u, lows, lanes);
      }
      const int head = 2 * c + j;
      if (head >= heads.count) continue;
      float* y = to + head * stride;
      write_head(y, sums, j, whole ? __fdividef(1.0f, mass) : 1.0f, lows);
      if (!whole && g == 0)
        *reinterpret_cast<float4*>(y + C::kDim) = make_float4(sums.shift[j], mass, 0, 0);
    }
  }

  __device__ void write_head(float* y, const Sums<C>& sums, int j, float by, float lows) {
    const int g = lane_ / 4;
    if constexpr (C::kValueBits == 16) {
#pragma unroll
      for (int i = 0; i < C::kDim / 16; ++i)
        y[16 * i + g] = sums.y[i][j] * by, y[16 * i + g + 8] = sums.y[i][2 + j] * by;
    } else {
      const float even = 0x1p24f * by, odd = sums.odd_unit * by, low = lows * by;
#pragma unroll
      for (int i = 0; i < C::kDim / 32; ++i)
        *reinterpret_cast<float4*>(y + 32 * i + 4 * g) = make_float4(
            fmaf(sums.y[2 * i][j], even, low), fmaf(sums.y[2 * i][2 + j], odd, low),
            fmaf(sums.y[2 * i + 1][j], even, low), fmaf(sums.y[2 * i + 1][2 + j], odd, low));
    }
  }

  const DecodeTask& t_;
  Shared<C>& shared_;
  int warp_, lane_;
  uint32_t ring_, filled_;
  int stage_ = 0;
  uint32_t parity_ = 0;
  bool idle_ = false, deep_;
  Feed<C> feed_;
  Queries<C::kDim> queries_;
  HeadScalars<C> scalars_;
};

template <class C>
__global__ void __launch_bounds__(kThreads, 1)
    decode_kernel(const __grid_constant__ DecodeTask task) {
  extern __shared__ __align__(128) uint8_t memory[];
  Shared<C>& shared = *reinterpret_cast<Shared<C>*>(memory);
  // Only one block fits a multiprocessor: the next kernel's begin when these end.
  if (task.overlap != 0) launch_dependents();
  Warp<C> warp(task, shared);
  warp.set_up_barriers();
  warp.begin();
  Merges<C> merges(task, shared);
  merges.load();
  warp.run();
  merges.run();
}

template <class C>
Status launch(const DecodeTask& task, Stream stream) {
  constexpr int kBytes = sizeof(Shared<C>);
  static_assert(kBytes <= 227 * 1024, "what a block may have");
  if (const Status status = allow_shared(decode_kernel<C>, kBytes); status != 0) return status;
  return launch_kernel(
      decode_kernel<C>,
      {dim3(static_cast<unsigned>(task.blocks)), kThreads, kBytes, 1, task.overlap != 0}, stream,
      task);
}

// The kernels of one head_dim and cache, for one query head a KV head and for several.
template <int kDim, int kKeyBits, int kValueBits, bool kOpen>
Status launch_for(const DecodeTask& task, Stream stream) {
  if (task.heads > task.kv_heads)
    return launch<Config<kDim, kKeyBits, kValueBits, kOpen, 2>>(task, stream);
  return launch<Config<kDim, kKeyBits, kValueBits, kOpen, 1>>(task, stream);
}

// Every kernel of one head_dim.
template <int kDim>
Status launch_of(const DecodeTask& task, Stream stream) {
  const int key_bits = task.cache.side[0].bits, value_bits = task.cache.side[1].bits;
  const bool open = task.has_open_page != 0;
  if (key_bits == 16) return launch_for<kDim, 16, 16, false>(task, stream);
  if (value_bits == 8) return launch_for<kDim, 8, 8, false>(task, stream);
  if (key_bits == 8)
    return open ? launch_for<kDim, 8, 4, true>(task, stream)
                : launch_for<kDim, 8, 4, false>(task, stream);
  return open ? launch_for<kDim, 4, 4, true>(task, stream)
              : launch_for<kDim, 4, 4, false>(task, stream);
}

}  // namespace atom::backend::cuda::hopper::decode
