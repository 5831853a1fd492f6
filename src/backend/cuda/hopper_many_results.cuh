// Part of the kernels for many rows: a warpgroup's results on their way to y.
#pragma once

#include "backend/cuda/hopper_many_tiles.cuh"

namespace atom::backend::cuda::hopper::many {

template <typename S>
class ResultWriter {
 public:
  // results: null where y is written directly
  __device__ ResultWriter(const Task& t, const CUtensorMap* results, uint8_t* shared)
      : t_(t), results_(results), lane_(static_cast<int>(threadIdx.x) % kWarpgroup) {
    boxes_ = shared + S::kResultsAt + static_cast<int>(threadIdx.x) / kWarpgroup * 4 * S::kBoxBytes;
  }

  // Bits of f32, as hopper.cuh's Product leaves them. output: the thread's first; row: the tile's; end: of the rows.
  __device__ __forceinline__ void write(const int (&results)[S::kRows / 2], int output, int row,
                                        int end) const {
    if (S::kRows > 128 || results_ != nullptr)
      store_boxes(results, output, row);
    else
      store(results, output, row, end);
  }
  // Before the thread ends.
  __device__ __forceinline__ void finish() const {
    if (results_ != nullptr && threadIdx.x % kWarpgroup == 0) boxes_wait();
  }

 private:
  __device__ __forceinline__ void store(const int (&results)[S::kRows / 2], int output, int row,
                                        int end) const {
    const float bias[2] = {bias_of(output), bias_of(output + 8)};
    const int64_t n = t_.w.n;
    const int first = row + static_cast<int>(threadIdx.x) % 4 * 2;
    float* y = t_.y + first * n + output;
#pragma unroll
    for (int i = 0; i < S::kRows / 2; ++i) {
      if (first + i / 4 * 8 + i % 2 < end && output + i / 2 % 2 * 8 < n) {
        const float result = __int_as_float(results[i]) + bias[i / 2 % 2];
        float* at = y + i % 2 * n + i / 2 % 2 * 8;
        if (t_.add != 0)
          add_to(at, result);
        else
          *at = result;
      }
      if (i % 4 == 3) y += 8 * n;
    }
  }

  // Through shared memory, kBoxRows rows at a time; the copy engine writes while the next tile is multiplied.
  __device__ __forceinline__ void store_boxes(const int (&results)[S::kRows / 2], int output,
                                              int row) const {
    const float bias[2] = {bias_of(output), bias_of(output + 8)};
    const int thread = static_cast<int>(threadIdx.x) % kWarpgroup;
    const int group = static_cast<int>(threadIdx.x) / kWarpgroup;
    const int column = lane_.output;  // and column + 8, of the warpgroup's 64
    const int first_output = output - column;
    // Row 2 (t % 4) + e of every eight, 16-byte chunk (column + 8 h) / 4 % 8 swizzled by the row: bits are exchanged one by one.
    const int start = column / 32 * S::kBoxBytes + thread % 4 * 256 +
                      ((column % 32 / 4) ^ (thread % 4 * 2)) * 16 + column % 4 * 4;
#pragma unroll
    for (int pass = 0; pass < S::kRows / S::kBoxRows; ++pass) {
      uint8_t* boxes = boxes_ + pass % 2 * 2 * S::kBoxBytes;
      if (thread == 0) boxes_wait_read<1>();
      warpgroup_sync(group + 1);
#pragma unroll
      for (int i = 0; i < S::kBoxRows / 2; ++i) {
        const int e = i % 2, h = i / 2 % 2;
        const int at = (start ^ (h * 32 + e * 16)) + e * 128 + i / 4 * 1024;
        *reinterpret_cast<float*>(boxes + at) =
            __int_as_float(results[pass * (S::kBoxRows / 2) + i]) + bias[h];
      }
      copy_engine_fence();
      warpgroup_sync(group + 1);
      if (thread == 0) {
        for (int half = 0; half < 2; ++half) {
          const uint32_t from = shared_address(boxes + half * S::kBoxBytes);
          if (t_.add != 0)
            add_box(results_, first_output + half * 32, row + pass * S::kBoxRows, from);
          else
            store_box(results_, first_output + half * 32, row + pass * S::kBoxRows, from);
        }
        boxes_commit();
      }
    }
  }
  __device__ float bias_of(int output) const {
    return t_.w.bias != nullptr && output < t_.w.n ? t_.w.bias[output] : 0.0f;
  }

  const Task& t_;
  const CUtensorMap* results_;
  Lane lane_;
  uint8_t* boxes_;
};

}  // namespace atom::backend::cuda::hopper::many
