// K and V of a step's rows into their pages, queries in f16 beside them, on Hopper (hopper_store.h). A warp has two
// vectors of one kind, each in the registers of 16 lanes: lane l of them has values 64 c + 4 l .. + 3, for every c; of
// head_dim 96 values 32 c + 2 l and the next. Codes, parameters and floats are those of store_kv.cu.
#include "backend/cuda/attention.cuh"
#include "backend/cuda/hopper.cuh"
#include "backend/cuda/hopper_decode.h"
#include "backend/cuda/hopper_launch.h"
#include "backend/cuda/hopper_store.h"
#include "backend/cuda/hopper_store_codes.cuh"
#include "backend/cuda/hopper_store_vector.cuh"

namespace atom::backend::cuda::hopper {
namespace {

constexpr int kWarps = 4;         // of a block
constexpr int kMostRows = 65535;  // of a grid

// Bits of a float as a signed integer that orders as the float does, -0 below 0; its own inverse.
__device__ __forceinline__ int ordered(int bits) { return bits ^ ((bits >> 31) & 0x7fffffff); }
__device__ __forceinline__ float unordered(int key) { return __int_as_float(ordered(key)); }

// The least and the largest value of a vector, and whether all are finite; of each of its lanes.
struct Range {
  float least, most;
  bool finite;
};
template <int kDim>
__device__ __forceinline__ Range range_of(const Vector<kDim>& x, bool second) {
  constexpr int kLeast = static_cast<int>(0x80000000u), kMost = 0x7fffffff;
  int least = kMost, most = kLeast;
#pragma unroll
  for (int c = 0; c < Vector<kDim>::kChunks; ++c)
#pragma unroll
    for (int i = 0; i < Vector<kDim>::kEach; ++i) {
      const int key = ordered(__float_as_int(x.at[c][i]));
      least = min(least, key);
      most = max(most, key);
    }
  // Of the warp's first vector, then of its second.
  const int least0 = __reduce_min_sync(kAllLanes, second ? kMost : least),
            least1 = __reduce_min_sync(kAllLanes, second ? least : kMost),
            most0 = __reduce_max_sync(kAllLanes, second ? kLeast : most),
            most1 = __reduce_max_sync(kAllLanes, second ? most : kLeast);
  Range range{unordered(second ? least1 : least0), unordered(second ? most1 : most0), true};
  range.finite = isfinite(range.least) && isfinite(range.most);  // NaN and infinity are at the ends
  return range;
}

__device__ __forceinline__ uint32_t f16_pair(float a, float b) {
  return f32_to_f16(a) | uint32_t{f32_to_f16(b)} << 16;
}
template <int kDim>
__device__ __forceinline__ void store_floats(const Vector<kDim>& x, int bits, uint8_t* to,
                                             int lane) {
  using V = Vector<kDim>;
  const auto stored = [](float of) { return isnan(of) ? quiet_nan() : of; };
#pragma unroll
  for (int c = 0; c < V::kChunks; ++c) {
    const int at = V::place(c, lane);
    const float(&v)[V::kEach] = x.at[c];
    if constexpr (V::kEach == 4) {
      if (bits == 32)
        *reinterpret_cast<float4*>(to + 4 * at) =
            make_float4(stored(v[0]), stored(v[1]), stored(v[2]), stored(v[3]));
      else
        *reinterpret_cast<uint2*>(to + 2 * at) =
            make_uint2(f16_pair(v[0], v[1]), f16_pair(v[2], v[3]));
    } else {
      if (bits == 32)
        *reinterpret_cast<float2*>(to + 4 * at) = make_float2(stored(v[0]), stored(v[1]));
      else
        *reinterpret_cast<uint32_t*>(to + 2 * at) = f16_pair(v[0], v[1]);
    }
  }
}

// bits: 8 or 4. `exists`: the lane's vector does.
template <int kDim>
__device__ __forceinline__ void store_codes(const Vector<kDim>& x, const Range& range, int bits,
                                            float clip, const KvRow& to, int lane, bool exists) {
  using V = Vector<kDim>;
  const float high = bits == 8 ? 255.0f : 15.0f;
  const KvParams params = quick_params(range.least, range.most, range.finite, high, clip);
  const float lo = f16_to_f32(params.lo), inv = quick_reciprocal(f16_to_f32(params.step));
#pragma unroll
  for (int c = 0; c < V::kChunks; ++c) {
    uint32_t code[V::kEach];
#pragma unroll
    for (int i = 0; i < V::kEach; ++i) code[i] = quick_code(x.at[c][i] - lo, inv, high);
    if (!exists) continue;
    uint8_t* at = to.codes + V::place(c, lane) * bits / 8;
    if constexpr (V::kEach == 4) {
      if (bits == 8)
        *reinterpret_cast<uint32_t*>(at) = __byte_perm(
            __byte_perm(code[0], code[1], 0x0040), __byte_perm(code[2], code[3], 0x0040), 0x5410);
      else
        *reinterpret_cast<uint16_t*>(at) =
            static_cast<uint16_t>(code[0] + (code[1] << 4) + (code[2] << 8) + (code[3] << 12));
    } else {
      if (bits == 8)
        *reinterpret_cast<uint16_t*>(at) =
            static_cast<uint16_t>(__byte_perm(code[0], code[1], 0x0040));
      else
        *at = static_cast<uint8_t>(code[0] + (code[1] << 4));
    }
  }
  if (lane == 0 && exists)
    *reinterpret_cast<uint32_t*>(to.params) = params.lo | uint32_t{params.step} << 16;
}

// A power of two brings the largest value to [8, 16), one of 2^104 or more to less than 2^15: none overflows, and what is lost
// below is 2^-18 of the largest.
template <int kDim>
__device__ __forceinline__ void store_query(const Vector<kDim>& x, const Range& range, float scale,
                                            uint8_t* to, int lane, bool exists) {
  using V = Vector<kDim>;
  const float most = fmaxf(fabsf(range.least), fabsf(range.most));
  const bool fits = range.finite && most < kMostQuery;
  const int exponent =
      fits && most > 0
          ? max(min(3 + 127 - static_cast<int>(__float_as_uint(most) >> 23), 100), -100)
          : 0;
  const auto power = [](int of) { return __uint_as_float(static_cast<uint32_t>(of + 127) << 23); };
  const float up = power(exponent);
  float sum = 0;
#pragma unroll
  for (int c = 0; c < V::kChunks; ++c) {
    uint32_t packed[V::kEach / 2];
#pragma unroll
    for (int i = 0; i < V::kEach / 2; ++i) {
      const __half2 value = fits ? __floats2half2_rn(x.at[c][2 * i] * up, x.at[c][2 * i + 1] * up)
                                 : __floats2half2_rn(0.0f, 0.0f);
      packed[i] = *reinterpret_cast<const uint32_t*>(&value);
      sum += __low2float(value) + __high2float(value);
    }
    if (!exists) continue;
    uint8_t* at = to + 2 * V::place(c, lane);
    if constexpr (V::kEach == 4)
      *reinterpret_cast<uint2*>(at) = make_uint2(packed[0], packed[1]);
    else
      *reinterpret_cast<uint32_t*>(at) = packed[0];
  }
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2)
    sum += __shfl_xor_sync(kAllLanes, sum, distance);
  if (lane == 0 && exists)
    *reinterpret_cast<float2*>(to + 2 * kDim) =
        make_float2(fits ? scale * power(-exponent) : quiet_nan(), sum);
}

// What does not depend on the head.
struct Constants {
  int query_pairs;  // warps of a row for query heads; 0 when they are not asked for
  int kv_pairs;     // for K, and for V
  Transform transform;
  float scale;  // of scores, to base 2
};

__device__ __forceinline__ const float* rows_of(const AttentionTask& t, const float*) {
  return t.qkv;
}
__device__ __forceinline__ const uint16_t* rows_of(const AttentionTask& t, const uint16_t*) {
  return t.qkv_f16;
}

// Grid: blocks of kWarps pairs of vectors of a row, rows. T: float, or uint16_t for f16.
template <int kDim, typename T>
__global__ void __launch_bounds__(kWarps* kWarp)
    store_kernel(const __grid_constant__ AttentionTask t,
                 const __grid_constant__ Constants constants) {
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const bool second = threadIdx.x % kWarp >= kLanes;
  // The shuffle tells the compiler that all lanes have the same.
  const int warp = __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / kWarp, 0);
  const int row = static_cast<int>(blockIdx.y);
  int pair = static_cast<int>(blockIdx.x) * kWarps + warp;
  if (pair >= constants.query_pairs + 2 * constants.kv_pairs) {
    wait_for_previous_grid();
    launch_dependents();
    return;
  }
  const bool is_query = pair < constants.query_pairs;
  if (!is_query) pair -= constants.query_pairs;
  const int side = !is_query && pair >= constants.kv_pairs ? kValue : kKey;
  if (side == kValue) pair -= constants.kv_pairs;
  const bool turns = side == kKey;  // queries too
  const int heads = is_query ? t.heads : t.kv_heads, own = 2 * pair + (second ? 1 : 0);
  const bool exists = own < heads;  // else the last head once more
  const int head = min(own, heads - 1);
  const RowPlace place = t.places[row];  // uploaded before the step
  Angles<kDim> angles;
  if (turns) load_angles(angles, t, place.position, lane);
  KvRow to{};
  if (!is_query) to = cached_row(t, place, side, head, place.position);
  const int before = is_query ? 0 : t.heads + side * t.kv_heads;
  const T* from = rows_of(t, static_cast<const T*>(nullptr)) + head_begin(t, row, before + head);
  wait_for_previous_grid();
  launch_dependents();  // not sooner: blocks of several kernels that only wait spread those of the next unevenly
  Vector<kDim> x;
  load_vector(x, from, lane);
  if (turns) {
    turn(x, angles, lane);
    transform(x, constants.transform, lane);
  }
  if (is_query) {
    store_query(x, range_of(x, second), constants.scale,
                t.queries + (int64_t{row} * t.heads + head) * t.query_bytes, lane, exists);
    return;
  }
  if (side == kKey && t.key_offset != nullptr) {
    Vector<kDim> offset;
    load_vector(offset, t.key_offset + head * kDim, lane);
#pragma unroll
    for (int c = 0; c < Vector<kDim>::kChunks; ++c)
#pragma unroll
      for (int i = 0; i < Vector<kDim>::kEach; ++i) x.at[c][i] -= offset.at[c][i];
  }
  const int bits = t.cache.side[side].bits;
  const Range range = range_of(x, second);
  if (bits < 16)
    store_codes(x, range, bits, bits == 4 ? t.kv_clip : 1.0f, to, lane, exists);
  else if (exists)
    store_floats(x, bits, to.codes, lane);
  if (t.has_open_page == 0) return;
  store_codes(x, range, 8, 1.0f,
              goes_to_fresh(t, place) ? fresh_row(t, row, side, head)
                                      : open_row(t, place, side, head, place.position),
              lane, exists);
}

template <int kDim, typename T>
Status launch(const AttentionTask& t, Stream stream) {
  constexpr int kChunk = Vector<kDim>::kChunk;
  const auto norm = [](int length) {
    return length == 0 ? 1.0f : static_cast<float>(1.0 / sqrt(static_cast<double>(length)));
  };
  // Of 96 values the first 64 at most: format::hadamard_length.
  const int length = min(t.hadamard, kDim == 3 * kChunk ? 2 * kChunk : kDim);
  const Constants constants{
      .query_pairs = t.queries == nullptr ? 0 : (t.heads + 1) / 2,
      .kv_pairs = (t.kv_heads + 1) / 2,
      .transform = {length, norm(length), norm(min(length, kChunk))},
      .scale = static_cast<float>(1.4426950408889634 / sqrt(static_cast<double>(kDim)))};
  const int pairs = constants.query_pairs + 2 * constants.kv_pairs;
  const dim3 grid((pairs + kWarps - 1) / kWarps, t.rows);
  return launch_kernel(store_kernel<kDim, T>, {grid, kWarps * kWarp, 0, 1, true}, stream, t,
                       constants);
}
template <typename T>
Status launch_rows(const AttentionTask& t, Stream stream) {
  if (t.head_dim == 64) return launch<64, T>(t, stream);
  if (t.head_dim == 96) return launch<96, T>(t, stream);
  return t.head_dim == 128 ? launch<128, T>(t, stream) : launch<256, T>(t, stream);
}

bool is_power_of_two(int value) { return (value & (value - 1)) == 0; }

// Loads and stores of up to four values a lane.
bool is_aligned(const AttentionTask& t) {
  for (const void* data :
       {static_cast<const void*>(t.qkv), static_cast<const void*>(t.qkv_f16),
        static_cast<const void*>(t.rope_cos), static_cast<const void*>(t.rope_sin),
        static_cast<const void*>(t.key_offset)})
    if (reinterpret_cast<uintptr_t>(data) % 16 != 0) return false;
  return t.fresh_bytes % 4 == 0 && t.query_bytes % 8 == 0;
}

}  // namespace

bool can_store(const AttentionTask& t) {
  return has_attention(t.head_dim) && t.hadamard <= 128 && is_power_of_two(t.hadamard) &&
         is_aligned(t) && t.rows <= kMostRows;
}

Status launch_store(const AttentionTask& task, Stream stream) {
  if (task.rows == 0) return cudaSuccess;
  return task.qkv_f16 != nullptr ? launch_rows<uint16_t>(task, stream)
                                 : launch_rows<float>(task, stream);
}

}  // namespace atom::backend::cuda::hopper
