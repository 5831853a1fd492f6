// Norm, and rows that exist in f32, to a linear's input (hopper_producers.h). A team of 8 threads has a tile of the
// row, which stays in its registers; only an order sends the row through shared memory.
#include "backend/cuda/hopper.cuh"
#include "backend/cuda/hopper_half_values.cuh"
#include "backend/cuda/hopper_launch.h"
#include "backend/cuda/hopper_tile.cuh"
#include "backend/cuda/shared_limit.cuh"

namespace atom::backend::cuda::hopper {
namespace {

constexpr int kMostThreads = 1024;

struct NormShared {
  double squares[kMostThreads / kTeam];  // of tiles
  float factor;
};

// 1 / sqrt(mean(x^2) + epsilon). The sum is f64, so that the factor has one rounding; its order follows from the
// tiles, so that a row's result does not depend on the batch.
__device__ __forceinline__ float row_factor(const Values& x, double per_value, float epsilon,
                                            NormShared& shared) {
  double part[kChunks];
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    part[c] = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const double v = x.at[c][i];
      part[c] = fma(v, v, part[c]);  // the square is exact
    }
  }
  const double tile = team_sum((part[0] + part[1]) + (part[2] + part[3]));
  if (threadIdx.x % kTeam == 0) shared.squares[threadIdx.x / kTeam] = tile;
  __syncthreads();
  if (threadIdx.x < kWarp) {
    const int teams = static_cast<int>(blockDim.x) / kTeam;
    double sum = 0;
    for (int i = static_cast<int>(threadIdx.x); i < teams; i += kWarp) sum += shared.squares[i];
    sum = warp_reduce(sum, Sum());
    if (threadIdx.x == 0)
      shared.factor = static_cast<float>(rsqrt(fma(sum, per_value, static_cast<double>(epsilon))));
  }
  __syncthreads();
  return shared.factor;
}

// Places in a row of at most 2^16 values, two in a register.
struct Order {
  uint32_t pairs[kChunks][2];
  __device__ int at(int chunk, int i) const {
    return static_cast<int>(i % 2 == 0 ? pairs[chunk][i / 2] & 0xffffu : pairs[chunk][i / 2] >> 16);
  }
};
__device__ __forceinline__ void load_order(Order& to, const int32_t* from, const Tile& tile) {
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    int4 v = make_int4(0, 0, 0, 0);
    if (tile.has(c)) v = __ldg(reinterpret_cast<const int4*>(from + tile.at(c)));
    to.pairs[c][0] = __byte_perm(v.x, v.y, 0x5410);
    to.pairs[c][1] = __byte_perm(v.z, v.w, 0x5410);
  }
}

// The row goes to shared memory and comes back in its order.
__device__ __forceinline__ void reorder(Values& v, const Order& order, const Tile& tile, int begin,
                                        float* row) {
#pragma unroll
  for (int c = 0; c < kChunks; ++c)
    if (tile.has(c)) store_four(row + begin + tile.at(c), v.at[c]);
  __syncthreads();
#pragma unroll
  for (int c = 0; c < kChunks; ++c)
    if (tile.has(c))
#pragma unroll
      for (int i = 0; i < 4; ++i) v.at[c][i] = row[order.at(c, i)];
}

// plain: where the row's values go in f32 from this segment on, or null.
__device__ __forceinline__ void scale_tile(Values& v, const Values& gain, float factor,
                                           const Tile& tile, float* plain) {
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      v.at[c][i] = tile.has(c) ? (v.at[c][i] * factor) * gain.at[c][i] : 0.0f;
    if (plain != nullptr && tile.has(c)) store_four(plain + tile.at(c), v.at[c]);
  }
}

// The row in f16, zeros behind its end. of_warps: of RowShared.
__device__ __forceinline__ void write_halves(const HalfRows& to, const Tile& tile, const Values& v,
                                             uint32_t (&of_warps)[kWarp]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  uint32_t most = 0;
#pragma unroll
  for (int i = 0; i < 4 * kChunks; ++i) most = larger_finite(most, v.at[i / 4][i % 4]);
  most = __reduce_max_sync(kAllLanes, most);
  if (lane == 0) of_warps[threadIdx.x / kWarp] = most;
  __syncthreads();
  const bool exists = lane < static_cast<int>(blockDim.x) / kWarp;
  const HalfFactor factor(__reduce_max_sync(kAllLanes, exists ? of_warps[lane] : 0u));
  const int pitch = half_pitch(to.k);
  if (tile.segment == 0) {
    uint16_t* row = to.values + int64_t{blockIdx.x} * pitch + tile.first + 4 * tile.lane;
#pragma unroll
    for (int c = 0; c < kChunks; ++c)
      *reinterpret_cast<uint2*>(row + c * kChunk) = scaled_halves(v.at[c], factor.inverse());
  }
  if (threadIdx.x == 0) to.factors[blockIdx.x] = factor.value();
}

template <bool kNorm>
__global__ void __launch_bounds__(kMostThreads, 1)
    rows_kernel(const __grid_constant__ ProduceTask t, const __grid_constant__ RowCut cut,
                double per_value) {
  extern __shared__ float4 memory[];  // [k / 4], with an order
  __shared__ RowShared shared;
  __shared__ NormShared norm;
  launch_dependents();
  const Tile tile = tile_at(t.y, cut, static_cast<int>(threadIdx.x) / kTeam);
  const int begin = segment_begin(t.y, tile), k = t.y.at[0].size + t.y.at[1].size;
  const int64_t row = blockIdx.x;
  Values v, gain;
  Order order;
  if constexpr (kNorm) load_tile<Constant>(gain, t.gain + begin, tile);
  if (t.order != nullptr) load_order(order, t.order + begin, tile);
  wait_for_previous_grid();
  load_tile<FromL2>(v, t.x + row * k + begin, tile);
  if constexpr (kNorm) {
    const float factor = row_factor(v, per_value, t.epsilon, norm);
    scale_tile(v, gain, factor, tile, t.plain != nullptr ? t.plain + row * k + begin : nullptr);
  }
  if (t.order != nullptr) reorder(v, order, tile, begin, reinterpret_cast<float*>(memory));
  transform_tile(v, tile, t.hadamard);
  finish_row(t, cut, tile, v, shared);
  if (t.half.values != nullptr) write_halves(t.half, tile, v, shared.most[0]);
}

template <bool kNorm>
Status launch(const ProduceTask& t, Stream stream) {
  const int k = t.y.at[0].size + t.y.at[1].size;
  const RowCut cut = row_cut(t.y);
  const int threads = (cut.count() * kTeam + kWarp - 1) / kWarp * kWarp;
  const int bytes = t.order != nullptr ? k * static_cast<int>(sizeof(float)) : 0;
  const auto kernel = rows_kernel<kNorm>;
  if (const Status status = allow_shared(kernel, bytes); status != 0) return status;
  return launch_kernel(kernel, {dim3(t.y.rows), threads, bytes, 1, t.dependent != 0}, stream, t,
                       cut, 1.0 / k);
}

}  // namespace

Status launch_gate_rows(const ProduceTask& task, Stream stream);  // hopper_gate.cu
Status launch_quick_rows(const ProduceTask& task, int multiprocessors, Stream stream);
Status launch_quick_gate(const ProduceTask& task, int multiprocessors, Stream stream);
Status launch_half_gate(const ProduceTask& task, int multiprocessors, Stream stream);

Status launch_produce(const ProduceTask& task, Stream stream) {
  if (task.y.rows == 0) return cudaSuccess;
  const bool halves_gate = task.half.values != nullptr && task.source == Source::kGate;
  if (halves_gate || can_be_quick(task)) {
    int device = 0, multiprocessors = 0;
    if (const cudaError_t status = cudaGetDevice(&device); status != cudaSuccess) return status;
    if (const cudaError_t status =
            cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
        status != cudaSuccess)
      return status;
    if (halves_gate) return launch_half_gate(task, multiprocessors, stream);
    return task.source == Source::kGate ? launch_quick_gate(task, multiprocessors, stream)
                                        : launch_quick_rows(task, multiprocessors, stream);
  }
  if (task.source == Source::kGate) return launch_gate_rows(task, stream);
  return task.source == Source::kNorm ? launch<true>(task, stream) : launch<false>(task, stream);
}

}  // namespace atom::backend::cuda::hopper
