// silu(gate) * up for a lane's 16 values of a tile (hopper_quick.cuh), from rows in f32 or f16.
#pragma once

#include "backend/cuda/hopper_quick.cuh"
#include "backend/cuda/hopper_silu.cuh"

namespace atom::backend::cuda::hopper {

Status launch_few_gate(const ProduceTask& task, int blocks, Stream stream);  // hopper_few_gate.cu

// Rows in f32 (float) or f16 (uint16_t), read 16 bytes at a time.
template <typename T>
struct RowOf;
template <>
struct RowOf<float> {
  static constexpr int kRun = 4, kQuads = 4;  // values of 16 bytes; 16 bytes of a lane's values
  static __device__ const float* of(const ProduceTask& t) { return t.x; }
  static __device__ float widened(float x) { return x; }
  static __device__ __forceinline__ void widen(Values& v, int quad, const uint4& q) {
    const uint32_t word[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) v.at[quad][i] = __uint_as_float(word[i]);
  }
  // v *= up.
  static __device__ __forceinline__ void multiply(Values& v, int quad, const uint4& up) {
    const uint32_t word[4] = {up.x, up.y, up.z, up.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) v.at[quad][i] *= __uint_as_float(word[i]);
  }
};
template <>
struct RowOf<uint16_t> {
  static constexpr int kRun = 8, kQuads = 2;
  static __device__ const uint16_t* of(const ProduceTask& t) { return t.x_f16; }
  static __device__ float widened(uint16_t x) { return f16_to_f32(x); }
  static __device__ __forceinline__ void widen(Values& v, int quad, const uint4& q) {
    const uint32_t word[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float(&to)[4] = v.at[2 * quad + i / 2];
      to[i % 2 * 2] = f16_to_f32(static_cast<uint16_t>(word[i]));
      to[i % 2 * 2 + 1] = f16_to_f32(static_cast<uint16_t>(word[i] >> 16));
    }
  }
  static __device__ __forceinline__ void multiply(Values& v, int quad, const uint4& up) {
    uint32_t word[4] = {up.x, up.y, up.z, up.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float(&to)[4] = v.at[2 * quad + i / 2];
      asm("" : "+r"(word[i]), "+f"(to[i % 2 * 2]), "+f"(to[i % 2 * 2 + 1]));
      to[i % 2 * 2] *= f16_to_f32(static_cast<uint16_t>(word[i]));
      to[i % 2 * 2 + 1] *= f16_to_f32(static_cast<uint16_t>(word[i] >> 16));
    }
  }
};

// As silu_but(), from f16 by the table of its offsets, in shared memory.
__device__ __forceinline__ uint32_t silu_of_table(Values& v, const uint4 (&gate)[2],
                                                  const int8_t* offsets) {
  uint32_t most = 0;
#pragma unroll
  for (int quad = 0; quad < 2; ++quad) {
    const uint32_t word[4] = {gate[quad].x, gate[quad].y, gate[quad].z, gate[quad].w};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const uint32_t bits = i % 2 == 0 ? word[i / 2] & 0xffffu : word[i / 2] >> 16;
      if (i % 2 == 0) most = __vmaxu2(most, word[i / 2]);
      v.at[2 * quad + i / 4][i % 4] =
          silu_by_offset(f16_to_f32(static_cast<uint16_t>(bits)), offsets[bits]);
    }
  }
  return max(most & 0xffffu, most >> 16) < kSiluComputed ? 0u : 0xffffu;
}

// silu(gate) * up; `one(i)` computes value i from what was read, with silu's definition. offsets: of the table in shared
// memory; null: none.
template <typename T, bool kTable, typename One>
__device__ __forceinline__ void gate_values(Values& v, const uint4 (&gate)[RowOf<T>::kQuads],
                                            const uint4 (&up)[RowOf<T>::kQuads],
                                            const int8_t* offsets, bool exists, const One& one) {
  uint32_t left = 0;
  if constexpr (kTable) {
    left = silu_of_table(v, gate, offsets);
  } else {
#pragma unroll
    for (int quad = 0; quad < RowOf<T>::kQuads; ++quad) RowOf<T>::widen(v, quad, gate[quad]);
    left = silu_but(v.at);
  }
  if (!exists) left = 0;
#pragma unroll
  for (int quad = 0; quad < RowOf<T>::kQuads; ++quad) RowOf<T>::multiply(v, quad, up[quad]);
#pragma unroll 1
  for (; left != 0; left &= left - 1) {  // seldom
    const int place = 31 - __clz(static_cast<int>(left & (~left + 1)));
    const float value = one(place);
#pragma unroll
    for (int i = 0; i < 4 * kChunks; ++i)
      if (place == i) v.at[i / 4][i % 4] = value;
  }
}
// The values that silu's definition computes are read again, from where they came.
template <typename T>
__device__ __forceinline__ float defined_gate(const T* from, int k, int i) {
  const T* at = from + chunk_at<RowOf<T>::kRun>(i / 4) + i % 4;
  return silu_of_f64(RowOf<T>::widened(*at)) * RowOf<T>::widened(at[k]);
}

}  // namespace atom::backend::cuda::hopper
