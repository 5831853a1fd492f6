// Part of the kernels for many rows: a warpgroup's results on their way to y.
#pragma once

#include "backend/cuda/hopper_many_tiles.cuh"

namespace atom::backend::cuda::hopper::many {

inline constexpr int kPartRows = 32;             // rows that become results at a time
inline constexpr int kPartSums = kPartRows / 2;  // of a thread

template <typename S>
class ResultWriter {
 public:
  // results: null where y is written directly
  __device__ ResultWriter(const Task& t, const CUtensorMap* results, uint8_t* shared)
      : t_(t), results_(results) {
    boxes_ = shared + S::kResultsAt + static_cast<int>(threadIdx.x) / kWarpgroup * 4 * S::kBoxBytes;
  }

  // Rows row .. of a part, without bias, in the order of hopper.cuh's Product. output: the thread's first; end: of the
  // rows. They pass through shared memory, kBoxRows rows at a time; the copy engine writes while the next ones are computed.
  // Before the warpgroup meets, one thread waits until the other half of the boxes has been read: it is free then.
  __device__ __forceinline__ void write_part(const float (&results)[kPartSums],
                                             const float (&bias)[2], int output, int row, int end) {
    const int thread = static_cast<int>(threadIdx.x) % kWarpgroup;
    const int column = thread / 32 * 16 + thread % 32 / 4;  // and column + 8, of the warpgroup's 64
    const int first_output = output - column;
    // Row 2 (t % 4) + e of every eight, 16-byte chunk (column + 8 h) / 4 % 8 swizzled by the row: bits are exchanged one by one.
    const int start = column / 32 * S::kBoxBytes + thread % 4 * 256 +
                      ((column % 32 / 4) ^ (thread % 4 * 2)) * 16 + column % 4 * 4;
#pragma unroll
    for (int pass = 0; pass < kPartRows / S::kBoxRows; ++pass) {
      uint8_t* boxes = boxes_ + half_ * 2 * S::kBoxBytes;
#pragma unroll
      for (int i = 0; i < S::kBoxRows / 2; ++i) {
        const int e = i % 2, h = i / 2 % 2;
        const int at = (start ^ (h * 32 + e * 16)) + e * 128 + i / 4 * 1024;
        *reinterpret_cast<float*>(boxes + at) = results[pass * (S::kBoxRows / 2) + i] + bias[h];
      }
      copy_engine_fence();
      if (thread == 0) boxes_wait_read<0>();
      warpgroup_sync(static_cast<int>(threadIdx.x) / kWarpgroup + 1);
      if (S::kRows > 128 || results_ != nullptr) {
        if (thread == 0) send(boxes, first_output, row + pass * S::kBoxRows);
      } else {
        copy(boxes, first_output, row + pass * S::kBoxRows, end);
      }
      half_ ^= 1;
    }
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
      write_part(values, bias, output, row + part * kPartRows, end);
    }
  }
  __device__ float bias_of(int output) const {
    return t_.w.bias != nullptr && output < t_.w.n ? t_.w.bias[output] : 0.0f;
  }
  // Before the thread ends.
  __device__ __forceinline__ void finish() const {
    if (results_ != nullptr && threadIdx.x % kWarpgroup == 0) boxes_wait();
  }

 private:
  // Where boxes would reach too far, or may not begin: by all threads.
  __device__ __forceinline__ void copy(const uint8_t* boxes, int output, int row, int end) const {
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x) % kWarpgroup; i < S::kBoxRows * kBlockOutputs;
         i += kWarpgroup) {
      const int r = i / kBlockOutputs, column = i % kBlockOutputs;
      if (row + r >= end || output + column >= t_.w.n) continue;
      const int at = column / 32 * S::kBoxBytes + r * 128 + ((column % 32 / 4) ^ (r % 8)) * 16 +
                     column % 4 * 4;
      const float result = *reinterpret_cast<const float*>(boxes + at);
      float* to = t_.y + int64_t{row + r} * t_.w.n + output + column;
      if (t_.add != 0)
        add_to(to, result);
      else
        *to = result;
    }
  }
  __device__ __forceinline__ void send(const uint8_t* boxes, int output, int row) const {
    for (int half = 0; half < 2; ++half) {
      const uint32_t from = shared_address(boxes + half * S::kBoxBytes);
      if (t_.add != 0)
        add_box(results_, output + half * 32, row, from);
      else
        store_box(results_, output + half * 32, row, from);
    }
    boxes_commit();
  }

  const Task& t_;
  const CUtensorMap* results_;
  uint8_t* boxes_;
  int half_ = 0;
};

}  // namespace atom::backend::cuda::hopper::many
