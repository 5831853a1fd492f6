// Linear layers, one kernel for every pair of formats. A block computes a tile of 64 outputs x 16 rows, a thread one
// output of four rows. It walks along k: a chunk of the weight and of the input goes to shared memory, codes widened
// to s8, then every thread sums its products. Two integer sides: dp4a, an exact s32 sum per group, then one fused
// multiply-add with the product of the two steps, groups in ascending order (docs/formats.md, section 5). Otherwise:
// products of values in f32, k ascending. So a result does not depend on the other rows of the batch.
//
// Bound by shared memory and by the few blocks of a decoding step; a fast path takes its place per pair of formats.
#include "backend/cuda/numbers.cuh"
#include "backend/cuda/tasks.h"

namespace atom::backend::cuda {
namespace {

constexpr int kOutputs = 64, kRows = 16;
constexpr int kThreads = 256;
constexpr int kThreadRows = kRows * kOutputs / kThreads;  // rows of a thread
constexpr int kChunk = 64;                                // codes along k, a multiple of kCodeRun
constexpr int kValueChunk = 32;                           // values along k

// Chunks in shared memory; one word more than the chunk keeps the lanes of a warp in different banks.
union Chunk {
  struct {
    int w[kOutputs][kChunk / 4 + 1];  // four s8 a word
    int x[kRows][kChunk / 4];
  } codes;
  struct {
    float w[kOutputs][kValueChunk + 1];
    float x[kRows][kValueChunk];
  } values;
};

struct Shared {
  Chunk chunk;
  const uint8_t* x_rows[kRows];  // records of the tile's rows
};

// What this thread computes. Outputs and rows beyond the end repeat the last one and are not stored.
struct Place {
  int first_output;  // of the tile
  int output, row;   // in the tile: the thread's output and the first of its rows
};

__device__ float x_scale(const InputSegment& x, const uint8_t* row, int group) {
  return reinterpret_cast<const float*>(row + x.scales_at)[group];
}

// Codes [begin, begin + kChunk) of both sides; 0 behind the end of the input, whatever the weight has there.
__device__ void load_codes(const WeightSegment& w, const InputSegment& x, int n, int begin,
                           const Place& place, Shared& shared) {
  const bool nibbles = w.element != Element::kInt8;
  const int words = nibbles ? kChunk / 8 : kChunk / 4;  // of a weight row in this chunk
  const int per_word = kChunk / words;
  for (int i = static_cast<int>(threadIdx.x); i < kOutputs * words; i += kThreads) {
    const int output = i / words, word = i % words;
    const uint8_t* row = w.codes + min(place.first_output + output, n - 1) * w.row_bytes;
    const int64_t at = int64_t{4} * (begin / per_word + word);
    const uint32_t stored = at < w.row_bytes ? *reinterpret_cast<const uint32_t*>(row + at) : 0;
    int* to = shared.chunk.codes.w[output];
    if (nibbles) {
      const EightCodes codes = widen_nibbles(stored, w.element);
      to[2 * word] = codes.first;
      to[2 * word + 1] = codes.second;
    } else {
      to[word] = static_cast<int>(stored);
    }
  }
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kChunk / 4; i += kThreads) {
    const int row = i / (kChunk / 4), word = i % (kChunk / 4);
    const int at = begin + 4 * word;
    const auto* codes = shared.x_rows[row] + x.codes_at;
    const int padded = (x.size + kCodeRun - 1) / kCodeRun * kCodeRun;
    shared.chunk.codes.x[row][word] = at < padded ? *reinterpret_cast<const int*>(codes + at) : 0;
  }
}

// Scales the sums of a group; those of a progressive weight are integers of the whole segment.
struct GroupSums {
  int sums[kThreadRows] = {};
  int totals[kThreadRows] = {};  // progressive: of multiplier * sum

  __device__ void end(const WeightSegment& w, const InputSegment& x, int n, int group,
                      const Place& place, const Shared& shared, float (&acc)[kThreadRows]) {
    const int output = min(place.first_output + place.output, n - 1);
    const float step = w.steps[int64_t{w.progressive ? 0 : group} * n + output];
    const int multiplier = w.progressive ? w.multipliers[int64_t{group} * n + output] : 1;
    const bool last = group == w.groups - 1;
    for (int r = 0; r < kThreadRows; ++r) {
      totals[r] += multiplier * sums[r];
      sums[r] = 0;
      if (w.progressive && !last) continue;
      const float scale = x_scale(x, shared.x_rows[place.row + r], x.groups > 1 ? group : 0);
      acc[r] = fmaf(static_cast<float>(totals[r]), step * scale, acc[r]);
      totals[r] = 0;
    }
  }
};

__device__ void add_codes(const WeightSegment& w, const InputSegment& x, int n, const Place& place,
                          Shared& shared, float (&acc)[kThreadRows]) {
  GroupSums group_sums;
  int group = 0, left = w.group;
  for (int begin = 0; begin < w.size; begin += kChunk) {
    load_codes(w, x, n, begin, place, shared);
    __syncthreads();
    const int end = min(kChunk, w.size - begin);
    for (int k = 0; k < end; k += kCodeRun) {
      for (int word = k / 4; word < (k + kCodeRun) / 4; ++word) {
        const int code = shared.chunk.codes.w[place.output][word];
        for (int r = 0; r < kThreadRows; ++r)
          group_sums.sums[r] =
              __dp4a(code, shared.chunk.codes.x[place.row + r][word], group_sums.sums[r]);
      }
      left -= kCodeRun;
      if (left <= 0 || begin + k + kCodeRun >= w.size) {
        group_sums.end(w, x, n, group++, place, shared, acc);
        left = w.group;
      }
    }
    __syncthreads();
  }
}

// A weight's value; an integer one is rounded once: the product of multiplier and code is exact.
__device__ float weight_value(const WeightSegment& w, int n, int output, int k) {
  const uint8_t* row = w.codes + output * w.row_bytes;
  if (w.group == 0) return value_at(row, k, w.element);
  const int group = k / w.group;
  const float step = w.steps[int64_t{w.progressive ? 0 : group} * n + output];
  const int multiplier = w.progressive ? w.multipliers[int64_t{group} * n + output] : 1;
  return step * static_cast<float>(multiplier * code_at(row, k, w.element));
}

// An input's value as dequantize shows it.
__device__ float input_value(const InputSegment& x, const uint8_t* row, int k) {
  if (x.group == 0) return reinterpret_cast<const float*>(row + x.values_at)[k];
  const auto code = static_cast<float>(reinterpret_cast<const int8_t*>(row + x.codes_at)[k]);
  return x_scale(x, row, k / x.group) * code;
}

__device__ void load_values(const WeightSegment& w, const InputSegment& x, int n, int begin,
                            const Place& place, Shared& shared) {
  for (int i = static_cast<int>(threadIdx.x); i < kOutputs * kValueChunk; i += kThreads) {
    const int output = i / kValueChunk, k = i % kValueChunk;
    shared.chunk.values.w[output][k] =
        begin + k < w.size ? weight_value(w, n, min(place.first_output + output, n - 1), begin + k)
                           : 0;
  }
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kValueChunk; i += kThreads) {
    const int row = i / kValueChunk, k = i % kValueChunk;
    shared.chunk.values.x[row][k] =
        begin + k < x.size ? input_value(x, shared.x_rows[row], begin + k) : 0;
  }
}

__device__ void add_values(const WeightSegment& w, const InputSegment& x, int n, const Place& place,
                           Shared& shared, float (&acc)[kThreadRows]) {
  for (int begin = 0; begin < w.size; begin += kValueChunk) {
    load_values(w, x, n, begin, place, shared);
    __syncthreads();
    for (int k = 0; k < min(kValueChunk, w.size - begin); ++k) {
      const float value = shared.chunk.values.w[place.output][k];
      for (int r = 0; r < kThreadRows; ++r)
        acc[r] = fmaf(value, shared.chunk.values.x[place.row + r][k], acc[r]);
    }
    __syncthreads();
  }
}

__device__ void store_result(const LinearTask& t, int row, int output, float sum) {
  const float result = sum + (t.w.bias != nullptr ? t.w.bias[output] : 0.0f);
  const int64_t at = int64_t{row} * t.w.n + output;
  if (t.y_f16 != nullptr)
    t.y_f16[at] = f32_to_f16_saturated(result);
  else
    t.y[at] = t.add ? t.y[at] + result : result;
}

__global__ void linear_kernel(LinearTask t) {
  __shared__ Shared shared;
  const int n = t.w.n;
  const Place place{static_cast<int>(blockIdx.x) * kOutputs,
                    static_cast<int>(threadIdx.x) % kOutputs,
                    static_cast<int>(threadIdx.x) / kOutputs * kThreadRows};
  const int first = t.row_ends == nullptr || t.expert == 0 ? 0 : t.row_ends[t.expert - 1];
  const int end = t.row_ends == nullptr ? t.x.rows : t.row_ends[t.expert];
  const int stride = static_cast<int>(gridDim.y) * kRows;
  for (int tile = first + static_cast<int>(blockIdx.y) * kRows; tile < end; tile += stride) {
    if (threadIdx.x < kRows) {
      const int row = min(tile + static_cast<int>(threadIdx.x), end - 1);
      const int from = t.row_index != nullptr ? t.row_index[row] : row;
      shared.x_rows[threadIdx.x] = t.x.data + from * t.x.row_bytes;
    }
    __syncthreads();
    float acc[kThreadRows] = {};
    for (int s = 0; s < 2; ++s) {
      const WeightSegment& w = t.w.at[s];
      const InputSegment& x = t.x.at[s];
      if (w.group != 0 && x.group != 0)
        add_codes(w, x, n, place, shared, acc);
      else
        add_values(w, x, n, place, shared, acc);
    }
    const int output = place.first_output + place.output;
    for (int r = 0; r < kThreadRows && output < n; ++r) {
      const int row = tile + place.row + r;
      if (row >= end) break;
      store_result(t, row, output, acc[r]);
    }
    __syncthreads();  // before x_rows changes
  }
}

// Few outputs in f32, such as a router's: a warp computes one output of kFewRows rows, lanes along k. What a row gives
// does not depend on the others.
constexpr int kMostFewOutputs = 512, kFewRows = 4, kWarp = 32;

bool has_few_outputs(const LinearTask& t) {
  const WeightSegment& w = t.w.at[0];
  return t.w.n <= kMostFewOutputs && t.w.at[1].size == 0 && w.group == 0 &&
         w.element == Element::kF32 && t.x.at[0].group == 0 && t.row_ends == nullptr &&
         t.row_index == nullptr;
}

__device__ __forceinline__ float dot(const float4& a, const float4& b, float sum) {
  return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}

__global__ void few_outputs_kernel(LinearTask t) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int output = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x) / kWarp;
  if (output >= t.w.n) return;
  const int size = t.w.at[0].size, first = static_cast<int>(blockIdx.y) * kFewRows;
  const auto* w = reinterpret_cast<const float*>(t.w.at[0].codes + output * t.w.at[0].row_bytes);
  const float* x[kFewRows];
  float sums[kFewRows] = {};
  for (int r = 0; r < kFewRows; ++r)
    x[r] = reinterpret_cast<const float*>(t.x.data + min(first + r, t.x.rows - 1) * t.x.row_bytes +
                                          t.x.at[0].values_at);
  for (int k = 4 * lane; k + 3 < size; k += 4 * kWarp) {
    const float4 weights = *reinterpret_cast<const float4*>(w + k);
    for (int r = 0; r < kFewRows; ++r)
      sums[r] = dot(weights, *reinterpret_cast<const float4*>(x[r] + k), sums[r]);
  }
  if (const int k = size / 4 * 4 + lane; k < size)
    for (int r = 0; r < kFewRows; ++r) sums[r] = fmaf(w[k], x[r][k], sums[r]);
  for (int r = 0; r < kFewRows; ++r) {
    for (int distance = kWarp / 2; distance > 0; distance /= 2)
      sums[r] += __shfl_xor_sync(0xffffffffu, sums[r], distance);
    if (lane == 0 && first + r < t.x.rows) store_result(t, first + r, output, sums[r]);
  }
}

}  // namespace

Status launch_linear(const LinearTask& task, Stream stream) {
  if (task.w.n == 0) return 0;
  if (task.y_f16 != nullptr && task.add != 0) return cudaErrorInvalidValue;
  // By expert the number of rows is known on the device only: blocks stride over them.
  constexpr int kMostTiles = 32768;
  const int tiles = min((task.x.rows + kRows - 1) / kRows, kMostTiles);
  if (tiles == 0) return 0;
  if (has_few_outputs(task) && task.x.rows <= kMostTiles * kFewRows) {
    constexpr int kWarps = kThreads / kWarp;
    few_outputs_kernel<<<dim3((task.w.n + kWarps - 1) / kWarps,
                              (task.x.rows + kFewRows - 1) / kFewRows),
                         kThreads, 0, stream>>>(task);
    return cudaGetLastError();
  }
  const dim3 grid((task.w.n + kOutputs - 1) / kOutputs, tiles);
  linear_kernel<<<grid, kThreads, 0, stream>>>(task);
  return cudaGetLastError();
}

}  // namespace atom::backend::cuda
