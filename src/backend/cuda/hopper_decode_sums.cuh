// Attention of a decoding step for sm_90: warps walk over the segments of the host's plan (hopper_decode_plan.h) on their own,
// each with a ring of bulk copies, and keep an online softmax over the units of a segment; partial results of a row
// and head meet in shared memory, those of several blocks in global memory, where the last block to arrive adds them
// up in the plan's order. The same plan and input give the same bits.
//
// Bound by the reads of the cache. What counts next is the number of instructions a unit takes (about 650 for 64
// tokens of 128 nibbles).
#pragma once

#include "backend/cuda/hopper_decode_feed.cuh"
#include "backend/cuda/hopper_decode_math.cuh"

namespace atom::backend::cuda::hopper::decode {

// A weight is at most 2^kSlack times that of the largest score: sums are rescaled only when a score passes that.
inline constexpr float kSlack = 8;

// Sums over the tokens of a segment so far, of heads 2 c + j. Scores are logarithms of base 2.
template <class C>
struct Sums {
  float y[C::kDim / 16][4] = {};  // weights * steps * codes (multiply_values), over all lanes
  float mass[C::kColumns] = {};   // weights, over the lane's tokens
  float lows[C::kColumns] = {};   // weights * lo, over the lane's tokens
  float most[C::kColumns];        // largest score at the last rescaling
  float shift[C::kColumns];       // a weight is 2^(score - shift): most + log2(step_limit)
  float step_limit = 0;  // no smaller than the step of any V so far, so that weight * step fits f16
  float odd_unit = C::kValueBits == 4 ? 0x1p20f : 0x1p24f;  // of the odd dims of y

  __device__ Sums() {
    for (int j = 0; j < C::kColumns; ++j) most[j] = shift[j] = -INFINITY;
  }
  __device__ void scale(int j, float by) {
    mass[j] *= by;
    lows[j] *= by;
#pragma unroll
    for (int i = 0; i < C::kDim / 16; ++i) y[i][j] *= by, y[i][2 + j] *= by;
  }
};

// What scores need of the queries beside the vectors, for heads 2 c + j.
template <class C>
struct HeadScalars {
  float factor[C::kColumns];  // of what multiply_keys gives
  float sum[C::kColumns];     // of the queries, in the same unit
};

// Scores of a unit before `factor`: K = lo + step * code.
template <class C, int kBits, int kTokens>
__device__ void score_unit(float (&s)[kTokens / 16][4], uint32_t keys,
                           const Queries<C::kDim>& queries, const HeadScalars<C>& scalars,
                           int left) {
  const int g = static_cast<int>(threadIdx.x) % kLanes / 4;
  multiply_keys<C::kDim, kBits, kTokens>(s, keys, queries);
#pragma unroll
  for (int r = 0; r < kTokens / 8; ++r) {
    float(&row)[4] = s[r / 2];
    if constexpr (kBits < 16) {
      const float2 params =
          as_floats(load_word(keys + kTokens * C::kDim * kBits / 8 + 4 * (8 * r + g)));
#pragma unroll
      for (int j = 0; j < C::kColumns; ++j)
        row[r % 2 * 2 + j] = fmaf(params.y, row[r % 2 * 2 + j], params.x * scalars.sum[j]);
    }
  }
  if (left >= kTokens) return;
#pragma unroll
  for (int r = 0; r < kTokens / 8; ++r)
#pragma unroll
    for (int j = 0; j < C::kColumns; ++j)
      if (8 * r + g >= left) s[r / 2][r % 2 * 2 + j] = -INFINITY;
}

// Makes room in `sums` for the scores and steps of a unit, when they need it.
template <class C, int kTokens>
__device__ void rescale(Sums<C>& sums, const float (&s)[kTokens / 16][4],
                        const HeadScalars<C>& scalars, float step) {
  float most[C::kColumns];
  bool grow = step > sums.step_limit;
#pragma unroll
  for (int j = 0; j < C::kColumns; ++j) {
    most[j] = s[0][j];
#pragma unroll
    for (int m = 0; m < kTokens / 16; ++m) most[j] = fmaxf(most[j], fmaxf(s[m][j], s[m][2 + j]));
    most[j] *= scalars.factor[j];
    grow = grow || most[j] > sums.most[j] + kSlack;
  }
  if (__any_sync(~0u, grow) == 0) return;
#pragma unroll
  for (int lanes = 4; lanes < kLanes; lanes *= 2) {
    step = fmaxf(step, __shfl_xor_sync(~0u, step, lanes));
#pragma unroll
    for (int j = 0; j < C::kColumns; ++j)
      most[j] = fmaxf(most[j], __shfl_xor_sync(~0u, most[j], lanes));
  }
  sums.step_limit = fmaxf(sums.step_limit, fmaxf(step, 0x1p-24f));
  const float bits = C::kValueBits < 16 ? log2f(sums.step_limit) : 0.0f;
#pragma unroll
  for (int j = 0; j < C::kColumns; ++j) {
    sums.most[j] = fmaxf(sums.most[j], most[j]);
    const float shift = sums.most[j] + bits;
    sums.scale(j, exp2_fast(sums.shift[j] - shift));
    sums.shift[j] = shift;
  }
}

// Adds V of a unit. `params` are those of tokens 8 r + g as stored, zero behind the last.
template <class C, int kBits, int kTokens>
__device__ void add_values(Sums<C>& sums, const float (&s)[kTokens / 16][4],
                           const HeadScalars<C>& scalars, uint32_t values,
                           const uint32_t (&params)[kTokens / 8]) {
#pragma unroll
  for (int m = 0; m < kTokens / 16; ++m) {
    float p[4] = {};
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float2 v = kBits < 16 ? as_floats(params[2 * m + r]) : make_float2(0, 1);
#pragma unroll
      for (int j = 0; j < C::kColumns; ++j) {
        const float weight = exp2_fast(fmaf(s[m][2 * r + j], scalars.factor[j], -sums.shift[j]));
        sums.mass[j] += weight;
        if constexpr (kBits < 16) sums.lows[j] = fmaf(weight, v.x, sums.lows[j]);
        p[2 * r + j] = kBits < 16 ? weight * v.y : weight;
      }
    }
    const uint32_t p0 = transpose_tile(as_halves(p[0], p[1])),
                   p1 = transpose_tile(as_halves(p[2], p[3]));
    multiply_values<C::kDim, kBits>(sums.y, values + 16 * m * (C::kDim * kBits / 8), p0, p1);
  }
}

// {lo, step} of V of tokens 8 r + g; zero behind the last, whatever the page holds there. Returns the largest step.
template <int kTokens>
__device__ float load_value_params(uint32_t (&params)[kTokens / 8], uint32_t at, int left) {
  const int g = static_cast<int>(threadIdx.x) % kLanes / 4;
#pragma unroll
  for (int r = 0; r < kTokens / 8; ++r) params[r] = load_word(at + 4 * (8 * r + g));
  if (left < kTokens) {
#pragma unroll
    for (int r = 0; r < kTokens / 8; ++r)
      if (8 * r + g >= left) params[r] = 0;
  }
  __half2 most = *reinterpret_cast<const __half2*>(&params[0]);
#pragma unroll
  for (int r = 1; r < kTokens / 8; ++r)
    most = __hmax2(most, *reinterpret_cast<const __half2*>(&params[r]));
  return __high2float(most);
}

// Zeros over the rows of V behind the last token: f16 garbage could be NaN, and NaN times a weight of 0 is NaN.
template <class C>
__device__ void clear_values(uint32_t values, int left) {
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  for (uint32_t at = left * C::kValueRow + 16 * lane; at < C::kTokens * C::kValueRow;
       at += 16 * kLanes)
    clear_words(values + at);
  copy_engine_fence();  // before the copy that fills it next
  __syncwarp();
}

}  // namespace atom::backend::cuda::hopper::decode
