// Part of the kernels for many rows: a warpgroup's results on their way to y.
#pragma once

#include "backend/cuda/hopper_many_tiles.cuh"

namespace atom::backend::cuda::hopper::many {

template <typename S>
class ResultWriter {
 public:
  // results: null where y is written directly
  __device__ ResultWriter(const Task& t, const CUtensorMap* results, uint8_t* shared)
      : t_(t),
        parts_(
            t, results,
            shared + S::kResultsAt + static_cast<int>(threadIdx.x) / kWarpgroup * 2 * kPartBytes) {}

  // A part of the tile's, without bias. output: the thread's first; row: the part's; end: of the rows.
  __device__ __forceinline__ void write_part(const float (&results)[kPartSums],
                                             const float (&bias)[2], int output, int part, int row,
                                             int end) {
    int thread = static_cast<int>(threadIdx.x) % kWarpgroup;
    if constexpr (S::kScarce) asm volatile("" : "+r"(thread));  // nothing of it is kept
    float values[kPartSums];
#pragma unroll
    for (int i = 0; i < kPartSums; ++i) values[i] = results[i] + bias[i / 2 % 2];
    parts_.write(values, part, output - thread / 32 * 16 - thread % 32 / 4, row, end, thread);
  }
  // All of the tile's rows; bits of f32.
  __device__ __forceinline__ void write(const int (&results)[S::kRows / 2], int output, int row,
                                        int end) {
    const float bias[2] = {bias_of(output), bias_of(output + 8)};
#pragma unroll
    for (int part = 0; part < S::kRows / kPartRows; ++part) {
      float values[kPartSums];
#pragma unroll
      for (int i = 0; i < kPartSums; ++i) values[i] = __int_as_float(results[part * kPartSums + i]);
      write_part(values, bias, output, part, row + part * kPartRows, end);
    }
  }
  __device__ float bias_of(int output) const {
    return t_.w.bias != nullptr && output < t_.w.n ? t_.w.bias[output] : 0.0f;
  }
  // Before the thread ends.
  __device__ __forceinline__ void finish() const { parts_.finish(); }

 private:
  const Task& t_;
  PartWriter<Task, S::kTogether, (S::kRows <= 128)> parts_;
};

}  // namespace atom::backend::cuda::hopper::many
