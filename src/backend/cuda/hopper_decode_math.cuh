// What a warp of the decode kernel does with the codes of one unit in shared memory: both products by
// mma.m16n8k16 with the cache as operand A, so that one instruction takes 256 cached values and its 8 columns are
// query heads.
//   scores^T [token, head] = K [token, dim] Q^T [dim, head]      y^T [dim, head] = V^T [dim, token] P^T [token, head]
//
// Codes become f16 by masks alone: a code n in the low bits of a half is the subnormal n * 2^-24, four bits further up
// n * 2^-20. The contraction order of dims is permuted to suit the canonical rows, and Q alike.
//   K: lane (g, c) = (lane / 4, lane % 4) reads a quarter of a token's row; its dims are those of the quarter
//   V: ldmatrix.trans moves pairs of bytes; the halves of a register are then the same dims of two tokens
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "backend/cuda/hopper_warp.cuh"

namespace atom::backend::cuda::hopper::decode {

__device__ inline uint32_t as_halves(float low, float high) {
  const __half2 h = __floats2half2_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&h);
}
__device__ inline float2 as_floats(uint32_t halves) {
  return __half22float2(*reinterpret_cast<const __half2*>(&halves));
}
__device__ inline uint32_t scale_halves(uint32_t x, float by) {
  const __half2 y = __hmul2(*reinterpret_cast<const __half2*>(&x), __float2half2_rn(by));
  return *reinterpret_cast<const uint32_t*>(&y);
}

__device__ inline uint32_t low_nibbles(uint32_t w) { return w & 0x000f000fu; }
__device__ inline uint32_t high_nibbles(uint32_t w) {
  return w & 0x00f000f0u;
}  // 16 times as large
__device__ inline uint32_t low_bytes(uint32_t w) { return w & 0x00ff00ffu; }
__device__ inline uint32_t high_bytes(uint32_t w) { return __byte_perm(w, 0, 0x4341); }
__device__ inline uint32_t low_halves(uint32_t a, uint32_t b) { return __byte_perm(a, b, 0x5410); }
__device__ inline uint32_t high_halves(uint32_t a, uint32_t b) { return __byte_perm(a, b, 0x7632); }

// Queries of a row as operand B: q[2 i], q[2 i + 1] take the i-th eight dims of the lane. For codes these are
// c * dim / 4 + 8 i + {0, 4}, {1, 5} and {2, 6}, {3, 7}; for f16 32 i + 8 c + {0, 1}, {2, 3} and {4, 5}, {6, 7}.
template <int kDim>
struct Queries {
  uint32_t q[kDim / 16][2];
};

// `from`: f16 [kDim] in shared memory; not `real`: zeros. With kNibbles q[.][1] is for codes 16 times as large.
template <int kDim, int kBits, bool kNibbles>
__device__ void load_queries(Queries<kDim>& queries, uint32_t from, bool real) {
  const int c = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int i = 0; i < kDim / 32; ++i) {
    uint32_t v[4];
    load_words(v, from + 2 * (kBits == 16 ? 32 * i + 8 * c : c * (kDim / 4) + 8 * i));
#pragma unroll
    for (uint32_t& word : v) word = real ? word : 0;
    uint32_t(&a)[2] = queries.q[2 * i];
    uint32_t(&b)[2] = queries.q[2 * i + 1];
    if constexpr (kBits == 16) {
      a[0] = v[0], a[1] = v[1], b[0] = v[2], b[1] = v[3];
    } else {
      a[0] = low_halves(v[0], v[2]), a[1] = high_halves(v[0], v[2]);
      b[0] = low_halves(v[1], v[3]), b[1] = high_halves(v[1], v[3]);
      if constexpr (kNibbles)
        a[1] = scale_halves(a[1], 0x1p-4f), b[1] = scale_halves(b[1], 0x1p-4f);
    }
  }
}

// Adds to s[m] the products of tokens 16 m + g (s[.][0], s[.][1]: heads 2 c, 2 c + 1) and 16 m + g + 8 (s[.][2], s[.][3]).
// In units of 2^-24 but for f16.
template <int kDim, int kBits, int kTokens>
__device__ void multiply_keys(float (&s)[kTokens / 16][4], uint32_t keys,
                              const Queries<kDim>& queries) {
  constexpr int kRow = kDim * kBits / 8;
  // Of one load: what divides a quarter of a row, and with it its alignment.
  constexpr int kWords = kRow % 64 == 0 ? 4 : kRow % 32 == 0 ? 2 : 1;
  constexpr int kEights = kWords * 4 * 8 / kBits / 8;  // dims of one load, in eights
  const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, c = lane % 4;
  const uint32_t at = keys + g * kRow + c * (kBits == 16 ? 16 : kRow / 4);
#pragma unroll
  for (int part = 0; part < kRow / 16 / kWords; ++part) {
    uint32_t w[kTokens / 8][kWords];  // rows g, g + 8, g + 16, ...
#pragma unroll
    for (int r = 0; r < kTokens / 8; ++r)
      load_words(w[r], at + r * 8 * kRow + part * (kBits == 16 ? 64 : 4 * kWords));
#pragma unroll
    for (int i = 0; i < kEights; ++i) {
      const uint32_t(&first)[2] = queries.q[2 * (part * kEights + i)];
      const uint32_t(&second)[2] = queries.q[2 * (part * kEights + i) + 1];
#pragma unroll
      for (int m = 0; m < kTokens / 16; ++m) {
        const uint32_t *x = w[2 * m], *y = w[2 * m + 1];
        if constexpr (kBits == 4) {
          multiply(s[m],
                   {low_nibbles(x[i]), low_nibbles(y[i]), high_nibbles(x[i]), high_nibbles(y[i])},
                   first[0], first[1]);
          const uint32_t u = x[i] >> 8, v = y[i] >> 8;
          multiply(s[m], {low_nibbles(u), low_nibbles(v), high_nibbles(u), high_nibbles(v)},
                   second[0], second[1]);
        } else if constexpr (kBits == 8) {
          uint32_t u = low_halves(x[2 * i], x[2 * i + 1]), v = low_halves(y[2 * i], y[2 * i + 1]);
          multiply(s[m], {low_bytes(u), low_bytes(v), high_bytes(u), high_bytes(v)}, first[0],
                   first[1]);
          u = high_halves(x[2 * i], x[2 * i + 1]), v = high_halves(y[2 * i], y[2 * i + 1]);
          multiply(s[m], {low_bytes(u), low_bytes(v), high_bytes(u), high_bytes(v)}, second[0],
                   second[1]);
        } else {
          multiply(s[m], {x[0], y[0], x[1], y[1]}, first[0], first[1]);
          multiply(s[m], {x[2], y[2], x[3], y[3]}, second[0], second[1]);
        }
      }
    }
  }
}

// Adds to y the products of 16 tokens from `values` on with their weights p0 (tokens 2 c, 2 c + 1) and p1 (8 more) of
// head g. For codes y[2 i], y[2 i + 1] are dims 32 i + 4 g + {0 1 2 3} = {y[2i][0], y[2i][2], y[2i+1][0], y[2i+1][2]}
// of head 2 c; for f16 y[i] are dims 16 i + g and 16 i + g + 8. In units of 2^-24, of 2^-20 for odd dims of nibbles.
template <int kDim, int kBits>
__device__ void multiply_values(float (&y)[kDim / 16][4], uint32_t values, uint32_t p0,
                                uint32_t p1) {
  constexpr int kRow = kDim * kBits / 8;
  const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, c = lane % 4;
  if constexpr (kBits == 4) {
    const uint32_t at = values + lane % 16 * kRow + lane / 16 * 16;
    // Of dims 32 i .. 32 i + 31.
    const auto multiply_nibbles = [&](int i, uint32_t u, uint32_t v) {
      multiply(y[2 * i], {low_nibbles(u), high_nibbles(u), low_nibbles(v), high_nibbles(v)}, p0,
               p1);
      u >>= 8, v >>= 8;
      multiply(y[2 * i + 1], {low_nibbles(u), high_nibbles(u), low_nibbles(v), high_nibbles(v)}, p0,
               p1);
    };
#pragma unroll
    for (int pair = 0; pair < kDim / 64; ++pair) {
      uint32_t w[4];
      load_transposed(w, at + 32 * pair);
      multiply_nibbles(2 * pair, w[0], w[1]);
      multiply_nibbles(2 * pair + 1, w[2], w[3]);
    }
    if constexpr (kDim % 64 != 0) {  // by the addresses of the first sixteen lanes
      uint32_t w[2];
      load_transposed(w, at + 32 * (kDim / 64));
      multiply_nibbles(kDim / 32 - 1, w[0], w[1]);
    }
  } else if constexpr (kBits == 8) {
    const uint32_t at = values + 2 * c * kRow + 4 * g;
#pragma unroll
    for (int i = 0; i < kDim / 32; ++i) {
      const uint32_t w0 = load_word(at + 32 * i), w1 = load_word(at + 32 * i + kRow);
      const uint32_t w2 = load_word(at + 32 * i + 8 * kRow), w3 = load_word(at + 32 * i + 9 * kRow);
      uint32_t u = low_halves(w0, w1), v = low_halves(w2, w3);
      multiply(y[2 * i], {low_bytes(u), high_bytes(u), low_bytes(v), high_bytes(v)}, p0, p1);
      u = high_halves(w0, w1), v = high_halves(w2, w3);
      multiply(y[2 * i + 1], {low_bytes(u), high_bytes(u), low_bytes(v), high_bytes(v)}, p0, p1);
    }
  } else {
    const uint32_t at = values + (lane % 8 + lane / 16 * 8) * kRow + lane / 8 % 2 * 16;
#pragma unroll
    for (int i = 0; i < kDim / 16; ++i) {
      uint32_t w[4];
      load_transposed(w, at + 32 * i);
      multiply(y[i], {w[0], w[1], w[2], w[3]}, p0, p1);
    }
  }
}

}  // namespace atom::backend::cuda::hopper::decode
