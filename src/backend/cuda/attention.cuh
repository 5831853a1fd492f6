// What the two halves of attention share: a head's vector after RoPE, and where rows of the cache lie.
#pragma once

#include <cstdint>

#include "backend/cuda/numbers.cuh"
#include "backend/cuda/tasks.h"
#include "backend/cuda/team.cuh"

namespace atom::backend::cuda {

enum Side { kKey = 0, kValue = 1 };

// A head's vector as a linear left it, in f32 or f16.
struct HeadVector {
  const float* f32;
  const uint16_t* f16;  // where f32 is null
  __device__ float operator[](int i) const { return f32 != nullptr ? f32[i] : f16_to_f32(f16[i]); }
};
// From the first value of the step's.
__device__ inline int64_t head_begin(const AttentionTask& t, int64_t row, int head) {
  return (row * (t.heads + 2 * t.kv_heads) + head) * t.head_dim;
}
__device__ inline HeadVector head_vector(const AttentionTask& t, int64_t row, int head) {
  const int64_t at = head_begin(t, row, head);
  if (t.qkv != nullptr) return {t.qkv + at, nullptr};
  return {nullptr, t.qkv_f16 + at};
}

// By one warp: x [head_dim] turned by the angles of the position, then transformed, into `to`. Every product and sum
// is rounded.
__device__ inline void turn_head(const AttentionTask& t, const HeadVector& x, int position,
                                 float* to) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, half = t.head_dim / 2;
  const float* cosines = t.rope_cos + int64_t{position} * half;
  const float* sines = t.rope_sin + int64_t{position} * half;
  for (int i = lane; i < half; i += kWarp) {
    const float a = x[i], b = x[i + half], c = cosines[i], s = sines[i];
    to[i] = a * c - b * s;
    to[i + half] = b * c + a * s;
  }
  __syncwarp();
  if (t.hadamard == 0) return;
  for (int at = 0; at < t.head_dim;) {
    const int length = hadamard_length(t.head_dim - at, t.hadamard);
    warp_hadamard(to + at, length);
    at += length;
  }
}

// One vector of the cache: its codes or floats, and {lo, step}.
struct KvRow {
  uint8_t* codes;
  uint8_t* params;
};
__device__ inline KvRow kv_row(const KvView& kv, uint8_t* page, int side, int head, int token) {
  const KvSide& of = kv.side[side];
  uint8_t* base = page + of.offset + head * of.head_bytes;
  return {base + token * of.row_bytes, base + kv.tokens * of.row_bytes + int64_t{4} * token};
}
__device__ inline KvRow cached_row(const AttentionTask& t, const RowPlace& place, int side,
                                   int head, int position) {
  uint8_t* page = t.cache.pages + place.page_table[position / t.cache.tokens] * t.cache.page_bytes;
  return kv_row(t.cache, page, side, head, position % t.cache.tokens);
}
__device__ inline KvRow open_row(const AttentionTask& t, const RowPlace& place, int side, int head,
                                 int position) {
  uint8_t* page = t.open.pages + place.open_page * t.open.page_bytes;
  return kv_row(t.open, page, side, head, position % t.open.tokens);
}
// Whether a row's K and V in int8 go to AttentionTask::fresh; else to the open page.
__device__ inline bool goes_to_fresh(const AttentionTask& t, const RowPlace& place) {
  return t.fresh != nullptr &&
         (t.single_rows_apart == 0 || place.first_position != place.last_position);
}
__device__ inline KvRow fresh_row(const AttentionTask& t, int64_t row, int side, int head) {
  uint8_t* codes = t.fresh + ((row * 2 + side) * t.kv_heads + head) * t.fresh_bytes;
  return {codes, codes + t.head_dim};
}

}  // namespace atom::backend::cuda
