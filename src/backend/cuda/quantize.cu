// Rows of f32 to the input of a linear, and back: order, block Hadamard transform, scales, codes. A block takes a
// row. Every result has the bits of format/quantize.h.
#include "backend/cuda/input_step.cuh"
#include "backend/cuda/tasks.h"
#include "backend/cuda/team.cuh"

namespace atom::backend::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarp;
constexpr int kLongestBlock = 128;  // of the Hadamard transform
constexpr int kWarpGroup = 128;     // groups of up to this many values are taken by a warp each

struct QuantizeShared {
  uint32_t partial[kWarps];
  float blocks[kWarps][kLongestBlock];
};

// Threads that share a group: their number, this one's place, and reductions over them.
struct WarpTeam {
  __device__ int rank() const { return static_cast<int>(threadIdx.x) % kWarp; }
  __device__ int size() const { return kWarp; }
  __device__ uint32_t max(uint32_t value) const { return warp_reduce(value, Max()); }
  __device__ bool any(bool flag) const { return __any_sync(kAllLanes, flag) != 0; }
};
struct BlockTeam {
  uint32_t* partial;
  __device__ int rank() const { return static_cast<int>(threadIdx.x); }
  __device__ int size() const { return kThreads; }
  __device__ uint32_t max(uint32_t value) const { return block_reduce(value, Max(), partial); }
  __device__ bool any(bool flag) const { return __syncthreads_or(flag) != 0; }
};

// Largest magnitude of x [size]; NaN when any value is NaN or infinite.
template <typename Team>
__device__ float absmax(const float* x, int size, const Team& team) {
  uint32_t largest = 0;  // magnitudes of floats order like their bits
  for (int i = team.rank(); i < size; i += team.size())
    largest = max(largest, magnitude_bits(x[i]));
  largest = team.max(largest);
  return largest >= kInfinityBits ? quiet_nan() : __uint_as_float(largest);
}

// The value of largest magnitude, the positive one where both signs have it.
template <typename Team>
__device__ float extreme(const float* x, int size, float largest, const Team& team) {
  bool positive = false;
  for (int i = team.rank(); i < size; i += team.size()) positive |= x[i] == largest;
  return team.any(positive) ? largest : -largest;
}

struct Group {
  const float* x;
  int size;
  Scaling scaling;
  float clip, global;
  int8_t* codes;
  float* scale;
};
template <typename Team>
__device__ void quantize_group(const Group& g, const Team& team) {
  const float largest = absmax(g.x, g.size, team);
  float step;
  if (g.scaling == Scaling::kInt4Signed) {
    const float value = extreme(g.x, g.size, largest, team);
    step = signed_step(value, g.clip);
  } else {
    step = input_step(g.scaling, largest, g.clip, g.global);
  }
  const float inv = 1.0f / step;
  for (int i = team.rank(); i < g.size; i += team.size())
    g.codes[i] = static_cast<int8_t>(input_code(g.scaling, g.x[i], inv));
  if (team.rank() == 0) *g.scale = step;
}

// x [size] are the segment's values; `row` begins the record that is written.
__device__ void write_segment(const InputSegment& s, const float* x, float clip, uint8_t* row,
                              QuantizeShared& shared) {
  if (s.group == 0) {
    auto* values = reinterpret_cast<float*>(row + s.values_at);
    for (int i = static_cast<int>(threadIdx.x); i < s.size; i += kThreads) values[i] = x[i];
    return;
  }
  auto* codes = reinterpret_cast<int8_t*>(row + s.codes_at);
  auto* scales = reinterpret_cast<float*>(row + s.scales_at);
  const BlockTeam block{shared.partial};
  const float global = s.scaling == Scaling::kNvfp4 ? nvfp4_global(absmax(x, s.size, block)) : 1.0f;
  if (s.group > kWarpGroup) {
    for (int g = 0; g < s.groups; ++g) {
      const int begin = g * s.group;
      quantize_group<BlockTeam>({x + begin, min(s.group, s.size - begin), s.scaling, clip, global,
                                 codes + begin, scales + g},
                                block);
    }
  } else {
    for (int g = static_cast<int>(threadIdx.x) / kWarp; g < s.groups; g += kWarps) {
      const int begin = g * s.group;
      quantize_group<WarpTeam>({x + begin, min(s.group, s.size - begin), s.scaling, clip, global,
                                codes + begin, scales + g},
                               WarpTeam());
    }
  }
  const int padded = (s.size + kCodeRun - 1) / kCodeRun * kCodeRun;
  if (static_cast<int>(threadIdx.x) < padded - s.size) codes[s.size + threadIdx.x] = 0;
  if (s.scaling != Scaling::kInt8) return;
  __syncthreads();  // the codes are written
  int sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < s.size; i += kThreads) sum += codes[i];
  const uint32_t total = block_reduce(static_cast<uint32_t>(sum), Sum(), shared.partial);
  if (threadIdx.x == 0) *reinterpret_cast<int32_t*>(row + s.sum_at) = static_cast<int32_t>(total);
}

// format::block_hadamard of x [size] in global memory; each warp takes every eighth block.
__device__ void transform(float* x, int size, int block, QuantizeShared& shared) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp,
            warp = static_cast<int>(threadIdx.x) / kWarp;
  float* values = shared.blocks[warp];
  for (int at = 0, index = 0; at < size; ++index) {
    const int length = hadamard_length(size - at, block);
    if (index % kWarps == warp) {
      for (int i = lane; i < length; i += kWarp) values[i] = x[at + i];
      warp_hadamard(values, length);
      for (int i = lane; i < length; i += kWarp) x[at + i] = values[i];
      __syncwarp();
    }
    at += length;
  }
}

__global__ void quantize_kernel(QuantizeTask t) {
  __shared__ QuantizeShared shared;
  const int k = t.y.at[0].size + t.y.at[1].size;
  const int64_t row = blockIdx.x;
  const float* x = t.x + row * k;
  if (t.ordered != nullptr) {
    float* ordered = t.ordered + row * k;
    for (int i = static_cast<int>(threadIdx.x); i < k; i += kThreads)
      ordered[i] = x[t.order != nullptr ? t.order[i] : i];
    __syncthreads();
    if (t.hadamard != 0) {
      transform(ordered, t.y.at[0].size, t.hadamard, shared);
      __syncthreads();
    }
    x = ordered;
  }
  uint8_t* to = t.y.data + row * t.y.row_bytes;
  for (const InputSegment& s : t.y.at) {
    if (s.size == 0) continue;
    write_segment(s, x, t.clip, to, shared);
    x += s.size;
  }
}

__global__ void dequantize_kernel(InputView x, float* y) {
  const int k = x.at[0].size + x.at[1].size;
  const int64_t row = blockIdx.x;
  const uint8_t* from = x.data + row * x.row_bytes;
  float* to = y + row * k;
  for (const InputSegment& s : x.at) {
    const auto* values = reinterpret_cast<const float*>(from + s.values_at);
    const auto* codes = reinterpret_cast<const int8_t*>(from + s.codes_at);
    const auto* scales = reinterpret_cast<const float*>(from + s.scales_at);
    for (int i = static_cast<int>(threadIdx.x); i < s.size; i += kThreads)
      to[i] = s.group == 0 ? values[i] : scales[i / s.group] * static_cast<float>(codes[i]);
    to += s.size;
  }
}

// Bytes of `codes` that are `low` or `high`, of which `lows` and `highs` hold four.
__device__ int at_ends(uint32_t codes, uint32_t lows, uint32_t highs) {
  return __popc(__vcmpeq4(codes, lows) | __vcmpeq4(codes, highs)) / 8;
}

// A block takes a row, its warps take groups: 16 codes a lane. Groups begin where such a run begins, and end where one
// ends, or with zeros, which are no ends.
__global__ void count_saturated_kernel(SaturationTask t) {
  __shared__ uint64_t partial[kWarps];
  const uint8_t* row = t.x.data + blockIdx.x * t.x.row_bytes;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  uint64_t own = 0;
  for (int i = 0; i < 2; ++i) {
    const InputSegment& s = t.x.at[i];
    if (s.size == 0 || s.group == 0) continue;
    const uint32_t lows = 0x01010101u * static_cast<uint8_t>(t.low[i]),
                   highs = 0x01010101u * static_cast<uint8_t>(t.high[i]);
    for (int g = static_cast<int>(threadIdx.x) / kWarp; g < s.groups; g += kWarps) {
      const int begin = g * s.group, end = min(begin + s.group, s.size);
      int count = 0;
      for (int at = begin + lane * kCodeRun; at < end; at += kWarp * kCodeRun) {
        const uint4 run = *reinterpret_cast<const uint4*>(row + s.codes_at + at);
        count += at_ends(run.x, lows, highs) + at_ends(run.y, lows, highs) +
                 at_ends(run.z, lows, highs) + at_ends(run.w, lows, highs);
      }
      count = warp_reduce(count, Sum());
      if (lane == 0 && count > 1) own += static_cast<uint64_t>(count - 1);
    }
  }
  own = block_reduce(own, Sum(), partial);
  if (threadIdx.x == 0 && own != 0) atomicAdd(t.count, static_cast<unsigned long long>(own));
}

// Records are whole 16-byte pieces.
__global__ void gather_kernel(InputView from, const int32_t* row_index, const int32_t* count,
                              InputView to) {
  const int rows = min(*count, to.rows);
  for (int row = static_cast<int>(blockIdx.x); row < rows; row += static_cast<int>(gridDim.x)) {
    const auto* source = reinterpret_cast<const int4*>(from.data + row_index[row] * from.row_bytes);
    auto* target = reinterpret_cast<int4*>(to.data + row * to.row_bytes);
    for (int i = static_cast<int>(threadIdx.x); i < from.row_bytes / 16; i += kThreads)
      target[i] = source[i];
  }
}

}  // namespace

Status launch_gather(const InputView& from, const int32_t* row_index, const int32_t* count,
                     const InputView& to, Stream stream) {
  if (to.rows == 0) return 0;
  constexpr int kMostBlocks = 4096;
  gather_kernel<<<min(to.rows, kMostBlocks), kThreads, 0, stream>>>(from, row_index, count, to);
  return cudaGetLastError();
}

Status launch_quantize(const QuantizeTask& task, Stream stream) {
  if (task.y.rows == 0) return 0;
  quantize_kernel<<<task.y.rows, kThreads, 0, stream>>>(task);
  return cudaGetLastError();
}

Status launch_dequantize(const InputView& x, float* y, Stream stream) {
  if (x.rows == 0) return 0;
  dequantize_kernel<<<x.rows, kThreads, 0, stream>>>(x, y);
  return cudaGetLastError();
}

Status launch_count_saturated(const SaturationTask& task, Stream stream) {
  if (task.x.rows == 0) return 0;
  count_saturated_kernel<<<task.x.rows, kThreads, 0, stream>>>(task);
  return cudaGetLastError();
}

Status probe_kernels() {
  cudaFuncAttributes attributes;
  return cudaFuncGetAttributes(&attributes, quantize_kernel);
}

}  // namespace atom::backend::cuda
