// The first and the last step of attention: K and V of a step's rows into their pages, and, with open pages, in int8
// beside them; afterwards the rows of each sequence's last page into its open page. For a decoding step on Hopper also
// the queries as its kernel reads them. A warp takes one vector.
#include "backend/cuda/attention.cuh"
#include "backend/cuda/hopper_decode.h"

namespace atom::backend::cuda {
namespace {

// By one warp: x [head_dim] as floats or codes of `bits` bits. NaN is stored as the quiet NaN without payload.
__device__ void store_floats(const float* x, int size, int bits, uint8_t* to) {
  for (int i = static_cast<int>(threadIdx.x); i < size; i += kWarp) {
    if (bits == 32)
      reinterpret_cast<float*>(to)[i] = isnan(x[i]) ? quiet_nan() : x[i];
    else
      reinterpret_cast<uint16_t*>(to)[i] = f32_to_f16(x[i]);
  }
}

__device__ void store_codes(const float* x, int size, int bits, float clip, const KvRow& to) {
  const int lane = static_cast<int>(threadIdx.x);
  const float high = bits == 8 ? 255.0f : 15.0f;
  float least = x[0], most = x[0];
  bool finite = true;
  for (int i = lane; i < size; i += kWarp) {
    finite = finite && isfinite(x[i]);
    least = fminf(least, x[i]);
    most = fmaxf(most, x[i]);
  }
  finite = __all_sync(kAllLanes, finite) != 0;
  const KvParams params =
      kv_params(warp_reduce(least, Min()), warp_reduce(most, Max()), finite, high, clip);
  const float lo = f16_to_f32(params.lo), inv = 1.0f / f16_to_f32(params.step);
  const auto code = [&](int i) {
    return static_cast<uint8_t>(clamped_code(x[i] - lo, inv, 0.0f, high));
  };
  if (bits == 8) {
    for (int i = lane; i < size; i += kWarp) to.codes[i] = code(i);
  } else {
    for (int i = lane; i < size / 2; i += kWarp)
      to.codes[i] = static_cast<uint8_t>(code(2 * i) | (code(2 * i + 1) << 4));
  }
  if (lane == 0) {
    store_u16(to.params, params.lo);
    store_u16(to.params + 2, params.step);
  }
}

// Query head `head` for hopper::launch_decode. The power of two brings the largest value to [8, 16), one of 2^104 or more to less
// than 2^15: none overflows, and what is lost below is 2^-18 of the largest.
__device__ void store_query(const AttentionTask& t, int row, int head, int position, float* x) {
  const int lane = static_cast<int>(threadIdx.x);
  turn_head(t, head_vector(t, row, head), position, x);
  __syncwarp();
  float most = 0, sum = 0;
  bool finite = true;
  for (int i = lane; i < t.head_dim; i += kWarp) {
    most = fmaxf(most, fabsf(x[i]));
    finite = finite && isfinite(x[i]);
  }
  most = warp_reduce(most, Max());
  const bool fits = __all_sync(kAllLanes, finite) != 0 && most < hopper::kMostQuery;
  const int exponent = fits && most > 0 ? max(min(3 - ilogbf(most), 100), -100) : 0;
  const float up = ldexpf(1.0f, exponent);
  uint8_t* to = t.queries + (int64_t{row} * t.heads + head) * t.query_bytes;
  for (int i = lane; i < t.head_dim; i += kWarp) {
    const __half value = __float2half_rn(fits ? x[i] * up : 0.0f);
    reinterpret_cast<__half*>(to)[i] = value;
    sum += __half2float(value);
  }
  sum = warp_reduce(sum, Sum());
  if (lane != 0) return;
  auto* scalars = reinterpret_cast<float*>(to + 2 * t.head_dim);
  const double scale = 1.4426950408889634 / sqrt(static_cast<double>(t.head_dim));
  scalars[0] = fits ? ldexpf(static_cast<float>(scale), -exponent) : quiet_nan();
  scalars[1] = sum;
}

// Block: one warp. Grid: rows x KV heads x (sides, then, when asked for, query heads). Shared memory: [head_dim].
__global__ void store_kv_kernel(AttentionTask t) {
  extern __shared__ float x[];
  const int row = static_cast<int>(blockIdx.x), head = static_cast<int>(blockIdx.y);
  const int side = static_cast<int>(blockIdx.z), lane = static_cast<int>(threadIdx.x);
  const RowPlace place = t.places[row];
  if (side > kValue) {
    store_query(t, row, head * (t.heads / t.kv_heads) + side - kValue - 1, place.position, x);
    return;
  }
  const HeadVector from = head_vector(t, row, t.heads + side * t.kv_heads + head);
  if (side == kKey) {
    turn_head(t, from, place.position, x);
    if (t.key_offset != nullptr)
      for (int i = lane; i < t.head_dim; i += kWarp) x[i] -= t.key_offset[head * t.head_dim + i];
  } else {
    for (int i = lane; i < t.head_dim; i += kWarp) x[i] = from[i];
  }
  __syncwarp();
  const KvRow to = cached_row(t, place, side, head, place.position);
  const int bits = t.cache.side[side].bits;
  if (bits >= 16)
    store_floats(x, t.head_dim, bits, to.codes);
  else
    store_codes(x, t.head_dim, bits, bits == 4 ? t.kv_clip : 1.0f, to);
  if (!t.has_open_page) return;
  store_codes(x, t.head_dim, 8, 1.0f,
              goes_to_fresh(t, place) ? fresh_row(t, row, side, head)
                                      : open_row(t, place, side, head, place.position));
}

__global__ void keep_open_pages_kernel(AttentionTask t) {
  const int row = static_cast<int>(blockIdx.x), head = static_cast<int>(blockIdx.y);
  const int side = static_cast<int>(blockIdx.z), lane = static_cast<int>(threadIdx.x);
  const RowPlace place = t.places[row];
  if (place.position < place.last_position - place.last_position % t.open.tokens ||
      !goes_to_fresh(t, place))
    return;
  const KvRow from = fresh_row(t, row, side, head);
  const KvRow to = open_row(t, place, side, head, place.position);
  for (int i = lane; i < t.head_dim; i += kWarp) to.codes[i] = from.codes[i];
  if (lane < 4) to.params[lane] = from.params[lane];
}

dim3 grid_of(const AttentionTask& t) {
  return {static_cast<unsigned>(t.rows), static_cast<unsigned>(t.kv_heads), 2};
}

}  // namespace

Status launch_store_kv(const AttentionTask& task, Stream stream) {
  if (task.rows == 0) return 0;
  dim3 grid = grid_of(task);
  if (task.queries != nullptr) grid.z += static_cast<unsigned>(task.heads / task.kv_heads);
  store_kv_kernel<<<grid, kWarp, task.head_dim * sizeof(float), stream>>>(task);
  return cudaGetLastError();
}

Status launch_keep_open_pages(const AttentionTask& task, Stream stream) {
  if (task.rows == 0) return 0;
  keep_open_pages_kernel<<<grid_of(task), kWarp, 0, stream>>>(task);
  return cudaGetLastError();
}

}  // namespace atom::backend::cuda
