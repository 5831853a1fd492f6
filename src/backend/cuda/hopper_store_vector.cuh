// A vector of one head in the registers of 16 lanes, for hopper_store.cu: loads, RoPE, the block Hadamard transform.
#pragma once

#include "backend/cuda/hopper.cuh"
#include "backend/cuda/numbers.cuh"
#include "backend/cuda/tasks.h"
#include "backend/cuda/team.cuh"

namespace atom::backend::cuda::hopper {

inline constexpr int kLanes = 16;  // of a vector

template <int kDim>
struct Vector {
  static constexpr int kEach = kDim % 64 == 0 ? 4 : 2;  // values of a lane in a chunk
  static constexpr int kChunk = kEach * kLanes, kChunks = kDim / kChunk, kHalf = kDim / 2;
  // RoPE's pairs, kHalf apart, are in one lane; else in lanes kLanes / 2 apart.
  static constexpr bool kHasPairs = kHalf % kChunk == 0;
  static_assert(kDim % kChunk == 0 && (kHasPairs || kChunks == 1 || kChunks == 3));
  float at[kChunks][kEach];

  static __device__ __forceinline__ int place(int c, int lane) { return kChunk * c + kEach * lane; }
};

__device__ __forceinline__ void load_values(float (&to)[4], const float* from) {
  const float4 v = __ldcg(reinterpret_cast<const float4*>(from));
  to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
}
__device__ __forceinline__ void load_values(float (&to)[2], const float* from) {
  const float2 v = __ldcg(reinterpret_cast<const float2*>(from));
  to[0] = v.x, to[1] = v.y;
}
__device__ __forceinline__ void widen(float* to, uint32_t pair) {
  to[0] = f16_to_f32(static_cast<uint16_t>(pair));
  to[1] = f16_to_f32(static_cast<uint16_t>(pair >> 16));
}
__device__ __forceinline__ void load_values(float (&to)[4], const uint16_t* from) {
  const uint2 v = __ldcg(reinterpret_cast<const uint2*>(from));
  widen(to, v.x);
  widen(to + 2, v.y);
}
__device__ __forceinline__ void load_values(float (&to)[2], const uint16_t* from) {
  widen(to, __ldcg(reinterpret_cast<const uint32_t*>(from)));
}
template <int kDim, typename T>
__device__ __forceinline__ void load_vector(Vector<kDim>& to, const T* from, int lane) {
#pragma unroll
  for (int c = 0; c < Vector<kDim>::kChunks; ++c)
    load_values(to.at[c], from + Vector<kDim>::place(c, lane));
}

// The angles of the lane's pairs: of values i and i + kHalf.
template <int kDim>
struct Angles {
  using V = Vector<kDim>;
  static constexpr int kCount = V::kHasPairs ? V::kChunks / 2 : V::kChunks;
  float cosine[kCount][V::kEach], sine[kCount][V::kEach];
};
__device__ __forceinline__ void load_table(float (&to)[4], const float* from) {
  const float4 v = __ldg(reinterpret_cast<const float4*>(from));
  to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
}
__device__ __forceinline__ void load_table(float (&to)[2], const float* from) {
  const float2 v = __ldg(reinterpret_cast<const float2*>(from));
  to[0] = v.x, to[1] = v.y;
}
template <int kDim>
__device__ __forceinline__ void load_angles(Angles<kDim>& to, const AttentionTask& t, int position,
                                            int lane) {
  using V = Vector<kDim>;
  const int64_t from = int64_t{position} * V::kHalf;
#pragma unroll
  for (int c = 0; c < Angles<kDim>::kCount; ++c) {
    const int at = V::kHasPairs ? V::place(c, lane) : V::place(c, lane) % V::kHalf;
    load_table(to.cosine[c], t.rope_cos + from + at);
    load_table(to.sine[c], t.rope_sin + from + at);
  }
}

// Every product and sum is rounded (RoPE, Su et al. 2021).
template <int kDim>
__device__ __forceinline__ void turn(Vector<kDim>& x, const Angles<kDim>& angles, int lane) {
  using V = Vector<kDim>;
  constexpr int kCount = Angles<kDim>::kCount;
  if constexpr (V::kHasPairs) {
#pragma unroll
    for (int c = 0; c < kCount; ++c)
#pragma unroll
      for (int i = 0; i < V::kEach; ++i) {
        const float a = x.at[c][i], b = x.at[c + kCount][i];
        const float cosine = angles.cosine[c][i], sine = angles.sine[c][i];
        x.at[c][i] = a * cosine - b * sine;
        x.at[c + kCount][i] = b * cosine + a * sine;
      }
  } else {
    const bool low = lane < kLanes / 2;
    Vector<kDim> opposite;  // of the lane kLanes / 2 apart
#pragma unroll
    for (int c = 0; c < kCount; ++c)
#pragma unroll
      for (int i = 0; i < V::kEach; ++i)
        opposite.at[c][i] = __shfl_xor_sync(kAllLanes, x.at[c][i], kLanes / 2);
#pragma unroll
    for (int c = 0; c < kCount; ++c)
#pragma unroll
      for (int i = 0; i < V::kEach; ++i) {
        // Of three chunks, one and a half on or back.
        const float own = x.at[c][i], other = low ? opposite.at[(c + 1) % kCount][i]
                                                  : opposite.at[(c + 2) % kCount][i];
        const float cosine = angles.cosine[c][i], sine = angles.sine[c][i];
        x.at[c][i] = V::place(c, lane) < V::kHalf ? own * cosine - other * sine
                                                  : own * cosine + other * sine;
      }
  }
}

// The block Hadamard transform: of blocks of one length, at most two chunks, and of what is left behind them, the last
// chunk of three. Length 0: none.
struct Transform {
  int length;
  float norm, norm_of_rest;
};
// Sums and differences of values `distance` apart, distances ascending, as format::hadamard has them.
template <int kDim>
__device__ __forceinline__ void transform(Vector<kDim>& x, const Transform& of, int lane) {
  using V = Vector<kDim>;
  constexpr int kEach = V::kEach, kAll = V::kChunks * kEach;
  if (of.length == 0) return;
  float* const at = &x.at[0][0];
#pragma unroll
  for (int distance = 1; distance < min(kDim, 2 * V::kChunk); distance *= 2) {
    if (distance >= of.length) break;
    if (distance >= kEach && distance < V::kChunk) {
      const float sign = (lane & (distance / kEach)) != 0 ? -1.0f : 1.0f;
#pragma unroll
      for (int i = 0; i < kAll; ++i)
        at[i] = fmaf(sign, at[i], __shfl_xor_sync(kAllLanes, at[i], distance / kEach));
      continue;
    }
    const int step = distance < kEach ? distance : kEach;  // between registers
#pragma unroll
    for (int i = 0; i < kAll; ++i) {
      if ((i & step) != 0 || i + step >= kAll) continue;
      const float a = at[i], b = at[i + step];
      at[i] = a + b, at[i + step] = a - b;
    }
  }
#pragma unroll
  for (int i = 0; i < kAll; ++i)
    at[i] *= V::kChunks == 3 && i >= 2 * kEach ? of.norm_of_rest : of.norm;
}

}  // namespace atom::backend::cuda::hopper
