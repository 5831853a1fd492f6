// Norm, and rows that exist in f32, of the formats that can_be_quick() takes (hopper_producers.h). A team of 8 threads has
// a tile of the row. Few rows: a block each, from memory to registers at once. Many: blocks that stay and take row after
// row, the next ones on their way to shared memory meanwhile; an order is followed there.
#include "backend/cuda/hopper.cuh"
#include "backend/cuda/hopper_launch.h"
#include "backend/cuda/hopper_quick.cuh"
#include "backend/cuda/hopper_warp.cuh"
#include "backend/cuda/shared_limit.cuh"

namespace atom::backend::cuda::hopper {
namespace {

constexpr int kMostThreads = 1024;
constexpr int kStages = 2;  // rows of a block in shared memory: in use, and on the way

struct QuickShared {
  alignas(16) double squares[2][kWarp];  // of warps; for this row and the next
  WideShared wide;
};

// Every lane gets the sum, in an order that the distances give.
__device__ __forceinline__ double sum_lanes(double value, int lanes) {
  for (int distance = 1; distance < lanes; distance *= 2)
    value += __shfl_xor_sync(kAllLanes, value, distance);
  return value;
}
__device__ __forceinline__ double squares_of(const Values& x) {
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
  return (part[0] + part[1]) + (part[2] + part[3]);
}
// 1 / sqrt(x), rounded once: an estimate of 20 bits, and one step of third order.
__device__ __forceinline__ float reciprocal_root(double x) {
  double y;
  asm("rsqrt.approx.ftz.f64 %0, %1;" : "=d"(y) : "d"(x));
  const double off = fma(-(x * y), y, 1.0);
  const auto root = static_cast<float>(fma(y * off, fma(off, 0.375, 0.5), y));
  return __double2hiint(x) == 0x7ff00000 && __double2loint(x) == 0 ? 0.0f : root;  // of infinity
}

// Byte offsets of the lane's values in a row of at most 2^14, two in a register.
struct Places {
  uint32_t pairs[kChunks][2];
  __device__ uint32_t at(int chunk, int i) const {
    return i % 2 == 0 ? pairs[chunk][i / 2] & 0xffffu : pairs[chunk][i / 2] >> 16;
  }
};
__device__ __forceinline__ void load_places(Places& to, const int32_t* order, const Part& p) {
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    const int4 v = __ldg(reinterpret_cast<const int4*>(order + p.first + c * kChunk));
    to.pairs[c][0] = __byte_perm(v.x, v.y, 0x5410) << 2;
    to.pairs[c][1] = __byte_perm(v.z, v.w, 0x5410) << 2;
  }
}
// Keeps the compiler from unpacking them before a loop, into as many registers more.
__device__ __forceinline__ void keep_packed(Places& places) {
#pragma unroll
  for (int i = 0; i < 2 * kChunks; ++i) asm volatile("" : "+r"(places.pairs[i / 2][i % 2]));
}
// row: bytes of f32.
__device__ __forceinline__ void gather(Values& v, const uint8_t* row, const Places& places) {
#pragma unroll
  for (int c = 0; c < kChunks; ++c)
#pragma unroll
    for (int i = 0; i < 4; ++i) v.at[c][i] = *reinterpret_cast<const float*>(row + places.at(c, i));
}

template <typename Load>
__device__ __forceinline__ void fill_values(Values& v, const float* at, const Load& load) {
#pragma unroll
  for (int c = 0; c < kChunks; ++c)
    put_four(v, c, load(reinterpret_cast<const float4*>(at + c * kChunk)));
}
__device__ __forceinline__ void get_values(Values& v, const Part& p, const float* row) {
  fill_values(v, row + p.first, [](const float4* at) { return *at; });
}
__device__ __forceinline__ void put_values(const Values& v, const Part& p, float* row) {
#pragma unroll
  for (int c = 0; c < kChunks; ++c) store_four(row + p.first + c * kChunk, v.at[c]);
}

// The gain, in the row's order, to `gains`, each thread's own; by way of `row`, where it is read as it lies.
__device__ __forceinline__ void put_gains(const float* gain, const Part& p, bool ordered,
                                          const Places& places, float* row, float* gains) {
  Values v;
  fill_values(v, gain + p.first, [](const float4* at) { return __ldg(at); });
  if (ordered) {
    put_values(v, p, row);
    __syncthreads();
    gather(v, reinterpret_cast<const uint8_t*>(row), places);
    __syncthreads();
  }
  put_values(v, p, gains);
}

// The sum of eight, in the order of sum_lanes().
__device__ __forceinline__ double sum_eight(const double* at) {
  double v[4];
#pragma unroll
  for (int i = 0; i < 8; i += 2) {
    const double2 two = *reinterpret_cast<const double2*>(at + i);
    v[i / 2] = two.x + two.y;
  }
  return (v[0] + v[1]) + (v[2] + v[3]);
}
// Every thread, from the sums of warps; zeros behind them.
__device__ __forceinline__ float row_factor(const double (&squares)[kWarp], double per_value,
                                            double epsilon) {
  double sum = sum_eight(squares);
#pragma unroll 1
  for (int i = 8; i < static_cast<int>(blockDim.x) / kWarp; i += 8) sum += sum_eight(squares + i);
  return reciprocal_root(fma(sum, per_value, epsilon));
}
__device__ __forceinline__ void scale_values(Values& v, const Part& p, float factor,
                                             const float* gains) {
  asm volatile(""
               : "+f"(factor)::"memory");  // no reads of gains before, which would take registers
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
#pragma unroll
    for (int i = 0; i < 4; ++i) v.at[c][i] *= factor;
    const float4 gain = *reinterpret_cast<const float4*>(gains + p.first + c * kChunk);
    v.at[c][0] *= gain.x, v.at[c][1] *= gain.y, v.at[c][2] *= gain.z, v.at[c][3] *= gain.w;
  }
}

__device__ __forceinline__ uint8_t* record_of(const InputView& y, int row) {
  return y.data + row * y.row_bytes;
}
// The thread's values of row `row`, to its stage.
__device__ __forceinline__ void fetch_row(const ProduceTask& t, const Part& p, int row, int k,
                                          const float* stage) {
  if (row < t.y.rows && p.exists) {
    const float* from = t.x + (int64_t{row} * k + p.first);
    const uint32_t to = shared_address(stage + p.first);
#pragma unroll
    for (int c = 0; c < kChunks; ++c) copy_quad_past(to + c * kChunk * 4, from + c * kChunk);
  }
}

// From values to the record. set: of the row, 0 and 1 in turn.
__device__ __forceinline__ void finish_quick(const InputView& y, const RowCut& cut, const Part& p,
                                             const Values& v, int set, WideShared& shared,
                                             uint8_t* record) {
  uint32_t key = quick_key(v, p);
  if (cut.wide[0] != 0 || cut.wide[1] != 0) {
    put_keys(cut, {p.segment == 0 ? key : 0, p.segment == 0 ? 0 : key}, set, shared);
    __syncthreads();
  }
  const uint2 keys = get_keys(cut, set, shared);
  if (__all_sync(kAllLanes, p.wide) == 0) key = team_max(key, kTeam);
  if (p.wide) key = p.segment == 0 ? keys.x : keys.y;
  const int sum = quick_write(y, p, v, quick_step(p, key), record);
  put_sums(cut, {p.segment == 0 ? sum : 0, p.segment == 0 ? 0 : sum}, set, shared);
}

template <bool kNorm, bool kFew>
__global__ void __launch_bounds__(kMostThreads, 1)
    quick_rows_kernel(const __grid_constant__ ProduceTask t, const __grid_constant__ RowCut cut,
                      double per_value, double epsilon, float seventh) {
  extern __shared__ float memory
      [];  // kNorm: gain [k]; [size of the second segment]; kFew: [k], with an order; else [kStages, k]
  __shared__ QuickShared shared;
  launch_dependents();
  if (kNorm && threadIdx.x < kWarp)
    shared.squares[0][threadIdx.x] = shared.squares[1][threadIdx.x] = 0;
  const int k = t.y.at[0].size + t.y.at[1].size;
  const Part p = part_at(t, cut, seventh, static_cast<int>(threadIdx.x) / kTeam);
  const bool ordered = t.order != nullptr, wide = cut.wide[0] != 0 || cut.wide[1] != 0;
  Places places;
  float* const kept = memory + (kNorm ? k : 0);
  float* const rows = kept + t.y.at[1].size;
  if (ordered) load_places(places, t.order, p);
  if constexpr (kNorm) __syncthreads();  // the zeros come first
  if constexpr (kNorm) put_gains(t.gain, p, ordered, places, rows, memory);
  wait_for_previous_grid();
  const int step = static_cast<int>(gridDim.x);
  if constexpr (!kFew) fetch_row(t, p, static_cast<int>(blockIdx.x), k, rows);
  int set = 0;  // and the stage
  int row = static_cast<int>(blockIdx.x);
#pragma unroll 1
  for (; row < t.y.rows; row += step) {
    if constexpr (!kFew) keep_packed(places);
    float* held = kFew ? rows : rows + set * k;
    Values v;
    if constexpr (kFew) {
      fill_values(v, t.x + (int64_t{row} * k + p.first),
                  [](const float4* at) { return __ldcg(at); });
      if (ordered) put_values(v, p, held);
    } else {
      copies_wait();
      if (kNorm) get_values(v, p, held);
    }
    if constexpr (kNorm) {
      const double sum = sum_lanes(p.exists ? squares_of(v) : 0.0, kWarp);
      if (lane_of_warp() == 0) shared.squares[set][warp_of_block()] = sum;
    }
    if (kNorm || !kFew || ordered) __syncthreads();
    if constexpr (!kFew) {  // the stage of the row before is free
      fetch_row(t, p, row + step, k, rows + (set ^ 1) * k);
      if (wide && row >= step)
        write_wide_sums(t.y, cut, set ^ 1, shared.wide, record_of(t.y, row - step));
    }
    float factor = 1.0f;
    if constexpr (kNorm) factor = row_factor(shared.squares[set], per_value, epsilon);
    if (ordered)
      gather(v, reinterpret_cast<const uint8_t*>(held), places);
    else if (!kNorm && !kFew)
      get_values(v, p, held);
    if constexpr (kNorm) scale_values(v, p, factor, memory);
    quick_transform(v, p, t.hadamard, t.y, kept);
    finish_quick(t.y, cut, p, v, set, shared.wide, record_of(t.y, row));
    set ^= 1;
  }
  if (!wide) return;
  __syncthreads();
  write_wide_sums(t.y, cut, set ^ 1, shared.wide, record_of(t.y, row - step));
}

template <bool kNorm, bool kFew>
Status launch(const ProduceTask& t, const RowCut& cut, const Launch& how, Stream stream) {
  const auto kernel = quick_rows_kernel<kNorm, kFew>;
  if (const Status status = allow_shared(kernel, how.shared_bytes); status != 0) return status;
  return launch_kernel(kernel, how, stream, t, cut, 1.0 / (t.y.at[0].size + t.y.at[1].size),
                       static_cast<double>(t.epsilon), t.clip / 7.0f);
}

}  // namespace

Status launch_quick_rows(const ProduceTask& t, int multiprocessors, Stream stream) {
  constexpr int kRegisterThreads = 1024;  // of a multiprocessor
  const RowCut cut = row_cut(t.y);
  const int row_bytes = cut.count() * kTile * static_cast<int>(sizeof(float));
  const int threads = (cut.count() * kTeam + kWarp - 1) / kWarp * kWarp;
  const int blocks = multiprocessors * (kRegisterThreads / threads);
  const bool few = t.y.rows <= blocks, norm = t.source == Source::kNorm;
  const int turns = (t.y.rows + blocks - 1) / blocks;
  const int held = few ? (t.order != nullptr ? 1 : 0) : kStages;
  const int kept = t.y.at[1].size * static_cast<int>(sizeof(float));
  const Launch how = {dim3(few ? t.y.rows : (t.y.rows + turns - 1) / turns), threads,
                      row_bytes * (held + (norm ? 1 : 0)) + kept, 1, t.dependent != 0};
  if (norm)
    return few ? launch<true, true>(t, cut, how, stream) : launch<true, false>(t, cut, how, stream);
  return few ? launch<false, true>(t, cut, how, stream) : launch<false, false>(t, cut, how, stream);
}

}  // namespace atom::backend::cuda::hopper
