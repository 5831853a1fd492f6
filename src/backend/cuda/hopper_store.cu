// K and V of a step's rows into their pages, queries in f16 beside them, on Hopper (hopper_store.h). A warp has one
// vector in its registers: lane l has values 64 c + 2 l and 64 c + 2 l + 1 of it, for every c. Codes, parameters and floats
// are those of store_kv.cu.
#include "backend/cuda/attention.cuh"
#include "backend/cuda/hopper.cuh"
#include "backend/cuda/hopper_launch.h"
#include "backend/cuda/hopper_store.h"

namespace atom::backend::cuda::hopper {
namespace {

constexpr int kWarps = 4;  // of a block
constexpr int kChunk = 64;
constexpr int kMostRows = 65535;  // of a grid

template <int kDim>
struct Vector {
  static constexpr int kChunks = kDim / kChunk;
  float at[kChunks][2];
};

template <int kDim>
__device__ __forceinline__ void load_vector(Vector<kDim>& to, const float* from, int lane) {
#pragma unroll
  for (int c = 0; c < kDim / kChunk; ++c) {
    const float2 v = __ldcg(reinterpret_cast<const float2*>(from + kChunk * c + 2 * lane));
    to.at[c][0] = v.x, to.at[c][1] = v.y;
  }
}

// The angles of the lane's pairs: of values i and i + kDim / 2.
template <int kDim>
struct Angles {
  static constexpr int kCount = kDim > kChunk ? kDim / kChunk / 2 : 1;
  float2 cosine[kCount], sine[kCount];
};
template <int kDim>
__device__ __forceinline__ void load_angles(Angles<kDim>& to, const AttentionTask& t, int position,
                                            int lane) {
  const int64_t from = int64_t{position} * (kDim / 2);
#pragma unroll
  for (int c = 0; c < Angles<kDim>::kCount; ++c) {
    const int at = kDim > kChunk ? kChunk * c + 2 * lane : 2 * (lane % (kWarp / 2));
    to.cosine[c] = __ldg(reinterpret_cast<const float2*>(t.rope_cos + from + at));
    to.sine[c] = __ldg(reinterpret_cast<const float2*>(t.rope_sin + from + at));
  }
}

// Every product and sum is rounded (RoPE, Su et al. 2021).
template <int kDim>
__device__ __forceinline__ void turn(Vector<kDim>& x, const Angles<kDim>& angles, int lane) {
  if constexpr (kDim > kChunk) {
    constexpr int kHalf = kDim / kChunk / 2;
#pragma unroll
    for (int c = 0; c < kHalf; ++c)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float a = x.at[c][i], b = x.at[c + kHalf][i];
        const float cosine = i == 0 ? angles.cosine[c].x : angles.cosine[c].y;
        const float sine = i == 0 ? angles.sine[c].x : angles.sine[c].y;
        x.at[c][i] = a * cosine - b * sine;
        x.at[c + kHalf][i] = b * cosine + a * sine;
      }
  } else {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float own = x.at[0][i], other = __shfl_xor_sync(kAllLanes, own, kWarp / 2);
      const float cosine = i == 0 ? angles.cosine[0].x : angles.cosine[0].y;
      const float sine = i == 0 ? angles.sine[0].x : angles.sine[0].y;
      x.at[0][i] = lane < kWarp / 2 ? own * cosine - other * sine : own * cosine + other * sine;
    }
  }
}

// Sums and differences of values `distance` apart, distances ascending, as format::hadamard has them.
template <int kDim>
__device__ __forceinline__ void transform(Vector<kDim>& x, int length, float norm, int lane) {
  constexpr int kChunks = kDim / kChunk;
  if (length == 0) return;
#pragma unroll
  for (int distance = 1; distance < min(kDim, 2 * kChunk); distance *= 2) {
    if (distance >= length) break;
#pragma unroll
    for (int c = 0; c < kChunks; ++c)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        if (distance > 1 && distance < kChunk) {
          const float other = __shfl_xor_sync(kAllLanes, x.at[c][i], distance / 2);
          x.at[c][i] = fmaf((lane & (distance / 2)) != 0 ? -1.0f : 1.0f, x.at[c][i], other);
          continue;
        }
        const bool first = distance == 1 ? i == 0 : c % 2 == 0;
        if (!first) continue;
        float& a = x.at[c][i];
        float& b = distance == 1 ? x.at[c][1] : x.at[(c + 1) % kChunks][i];
        const float sum = a + b, difference = a - b;
        a = sum, b = difference;
      }
  }
#pragma unroll
  for (int c = 0; c < kChunks; ++c)
#pragma unroll
    for (int i = 0; i < 2; ++i) x.at[c][i] *= norm;
}

// Bits of a float as a signed integer that orders as the float does, -0 below 0; its own inverse.
__device__ __forceinline__ int ordered(int bits) { return bits ^ ((bits >> 31) & 0x7fffffff); }
__device__ __forceinline__ float unordered(int key) { return __int_as_float(ordered(key)); }

// The least and the largest value of a vector, and whether all are finite; of every lane.
struct Range {
  float least, most;
  bool finite;
};
template <int kDim>
__device__ __forceinline__ Range range_of(const Vector<kDim>& x) {
  int least = ordered(__float_as_int(x.at[0][0])), most = least;
#pragma unroll
  for (int c = 0; c < kDim / kChunk; ++c)
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int key = ordered(__float_as_int(x.at[c][i]));
      least = min(least, key);
      most = max(most, key);
    }
  Range range{unordered(__reduce_min_sync(kAllLanes, least)),
              unordered(__reduce_max_sync(kAllLanes, most)), true};
  range.finite = isfinite(range.least) && isfinite(range.most);  // NaN and infinity are at the ends
  return range;
}

template <int kDim>
__device__ __forceinline__ void store_floats(const Vector<kDim>& x, int bits, uint8_t* to,
                                             int lane) {
#pragma unroll
  for (int c = 0; c < kDim / kChunk; ++c) {
    const int at = kChunk * c + 2 * lane;
    const float a = x.at[c][0], b = x.at[c][1];
    if (bits == 32)
      *reinterpret_cast<float2*>(to + 4 * at) =
          make_float2(isnan(a) ? quiet_nan() : a, isnan(b) ? quiet_nan() : b);
    else
      *reinterpret_cast<uint32_t*>(to + 2 * at) = f32_to_f16(a) | uint32_t{f32_to_f16(b)} << 16;
  }
}

template <int kDim>
__device__ __forceinline__ void store_codes(const Vector<kDim>& x, const Range& range, int bits,
                                            float clip, const KvRow& to, int lane) {
  const float high = bits == 8 ? 255.0f : 15.0f;
  const KvParams params = kv_params(range.least, range.most, range.finite, high, clip);
  const float lo = f16_to_f32(params.lo), inv = 1.0f / f16_to_f32(params.step);
#pragma unroll
  for (int c = 0; c < kDim / kChunk; ++c) {
    const int a = clamped_code(x.at[c][0] - lo, inv, 0.0f, high);
    const int b = clamped_code(x.at[c][1] - lo, inv, 0.0f, high);
    if (bits == 8)
      *reinterpret_cast<uint16_t*>(to.codes + kChunk * c + 2 * lane) =
          static_cast<uint16_t>(a | b << 8);
    else
      to.codes[kChunk / 2 * c + lane] = static_cast<uint8_t>(a | b << 4);
  }
  if (lane == 0) *reinterpret_cast<uint32_t*>(to.params) = params.lo | uint32_t{params.step} << 16;
}

// A power of two brings the largest value to [8, 16): none overflows, and what is lost below is 2^-18 of the largest.
template <int kDim>
__device__ __forceinline__ void store_query(const Vector<kDim>& x, float scale, uint8_t* to,
                                            int lane) {
  const Range range = range_of(x);
  const float most = fmaxf(fabsf(range.least), fabsf(range.most));
  const int exponent =
      range.finite && most > 0
          ? max(min(3 + 127 - static_cast<int>(__float_as_uint(most) >> 23), 100), -100)
          : 0;
  const auto power = [](int of) { return __uint_as_float(static_cast<uint32_t>(of + 127) << 23); };
  const float up = power(exponent);
  float sum = 0;
#pragma unroll
  for (int c = 0; c < kDim / kChunk; ++c) {
    const __half2 value = range.finite ? __floats2half2_rn(x.at[c][0] * up, x.at[c][1] * up)
                                       : __floats2half2_rn(0.0f, 0.0f);
    *reinterpret_cast<__half2*>(to + 2 * (kChunk * c + 2 * lane)) = value;
    sum += __low2float(value) + __high2float(value);
  }
  sum = warp_reduce(sum, Sum());
  if (lane == 0)
    *reinterpret_cast<float2*>(to + 2 * kDim) =
        make_float2(range.finite ? scale * power(-exponent) : quiet_nan(), sum);
}

// What does not depend on the head.
struct Constants {
  int first;    // vectors of a row that are left out: the query heads, when they are not asked for
  int vectors;  // of a row
  int length;   // of the Hadamard transform; 0: none
  float norm;   // of the transform
  float scale;  // of scores, to base 2
};

// Grid: blocks of kWarps vectors of a row, rows.
template <int kDim>
__global__ void __launch_bounds__(kWarps* kWarp)
    store_kernel(const __grid_constant__ AttentionTask t,
                 const __grid_constant__ Constants constants) {
  launch_dependents();
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  // The shuffle tells the compiler that all lanes have the same.
  const int warp = __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / kWarp, 0);
  const int vector = static_cast<int>(blockIdx.x) * kWarps + warp;
  const int row = static_cast<int>(blockIdx.y);
  if (vector >= constants.vectors) {
    wait_for_previous_grid();
    return;
  }
  const int head = constants.first + vector;
  const RowPlace place = t.places[row];  // uploaded before the step
  const int kv_head = head - t.heads;    // negative: a query
  const int side = kv_head >= t.kv_heads ? kValue : kKey, of_side = kv_head - side * t.kv_heads;
  const bool turns = side == kKey;  // queries too
  Angles<kDim> angles;
  if (turns) load_angles(angles, t, place.position, lane);
  KvRow to{};
  if (kv_head >= 0) to = cached_row(t, place, side, of_side, place.position);
  wait_for_previous_grid();
  Vector<kDim> x;
  load_vector(x, head_vector(t, row, head), lane);
  if (turns) {
    turn(x, angles, lane);
    transform(x, constants.length, constants.norm, lane);
  }
  if (kv_head < 0) {
    store_query(x, constants.scale, t.queries + (int64_t{row} * t.heads + head) * t.query_bytes,
                lane);
    return;
  }
  if (side == kKey && t.key_offset != nullptr) {
    Vector<kDim> offset;
    load_vector(offset, t.key_offset + of_side * kDim, lane);
#pragma unroll
    for (int c = 0; c < kDim / kChunk; ++c)
      x.at[c][0] -= offset.at[c][0], x.at[c][1] -= offset.at[c][1];
  }
  const int bits = t.cache.side[side].bits;
  const Range range = range_of(x);
  if (bits >= 16)
    store_floats(x, bits, to.codes, lane);
  else
    store_codes(x, range, bits, bits == 4 ? t.kv_clip : 1.0f, to, lane);
  if (t.has_open_page == 0) return;
  store_codes(x, range, 8, 1.0f,
              goes_to_fresh(t, place) ? fresh_row(t, row, side, of_side)
                                      : open_row(t, place, side, of_side, place.position),
              lane);
}

template <int kDim>
Status launch(const AttentionTask& t, Stream stream) {
  const int first = t.queries == nullptr ? t.heads : 0;
  const int length = min(t.hadamard, kDim);
  const Constants constants{
      .first = first,
      .vectors = t.heads + 2 * t.kv_heads - first,
      .length = length,
      .norm = length == 0 ? 1.0f : static_cast<float>(1.0 / sqrt(static_cast<double>(length))),
      .scale = static_cast<float>(1.4426950408889634 / sqrt(static_cast<double>(kDim)))};
  const dim3 grid((constants.vectors + kWarps - 1) / kWarps, t.rows);
  return launch_kernel(store_kernel<kDim>, {grid, kWarps * kWarp, 0, 1, true}, stream, t,
                       constants);
}

bool is_power_of_two(int value) { return (value & (value - 1)) == 0; }

}  // namespace

bool can_store(const AttentionTask& t) {
  return (t.head_dim == 64 || t.head_dim == 128 || t.head_dim == 256) && t.hadamard <= 128 &&
         is_power_of_two(t.hadamard) && t.fresh_bytes % 4 == 0 && t.rows <= kMostRows;
}

Status launch_store(const AttentionTask& task, Stream stream) {
  if (task.rows == 0) return cudaSuccess;
  if (task.head_dim == 64) return launch<64>(task, stream);
  return task.head_dim == 128 ? launch<128>(task, stream) : launch<256>(task, stream);
}

}  // namespace atom::backend::cuda::hopper
