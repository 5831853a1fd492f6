// Results of the Hopper linears on their way from registers to y, or to y_f16 where that is not null.
#pragma once

#include "backend/cuda/hopper.cuh"
#include "backend/cuda/hopper_linear.h"

namespace atom::backend::cuda::hopper {

// At `at` of y, as the task, of any kind, wants it.
template <typename AnyTask>
__device__ __forceinline__ void store_one(const AnyTask& t, int64_t at, float result) {
  if (t.y_f16 != nullptr)
    t.y_f16[at] = to_half(result);
  else if (t.add != 0)
    add_to(t.y + at, result);
  else
    t.y[at] = result;
}

// Four results of a row, of a task of any kind.
template <typename AnyTask>
__device__ __forceinline__ void store_four(const AnyTask& t, int row, int output, const float4& v) {
  const int64_t at = int64_t{row} * t.w.n + output;
  const float values[4] = {v.x, v.y, v.z, v.w};
  if (t.w.n % 4 == 0) {
    if (output >= t.w.n) return;
    if (t.y_f16 != nullptr)
      *reinterpret_cast<uint2*>(t.y_f16 + at) = {to_halves(v.x, v.y), to_halves(v.z, v.w)};
    else if (t.add != 0)
      add_to(reinterpret_cast<float4*>(t.y + at), v);
    else
      *reinterpret_cast<float4*>(t.y + at) = v;
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i)
    if (output + i < t.w.n) store_one(t, at + i, values[i]);
}

// ---- many rows: a part, 32 rows x the 64 outputs of a warpgroup, passes through boxes in shared memory

inline constexpr int kPartRows = 32;
inline constexpr int kPartSums =
    kPartRows / 2;  // results of a thread, in the order of hopper.cuh's Product
inline constexpr int kBoxBytes = kPartRows * 128;
inline constexpr int kPartBytes =
    2 * kBoxBytes;  // boxes of 32 outputs in f32; in f16, where one has 64, two parts

// To boxes: rows of 128 bytes, 128-byte swizzle. thread: of the warpgroup.
__device__ __forceinline__ void put_floats(const float (&values)[kPartSums], uint8_t* boxes,
                                           int thread) {
  const int column = thread / 32 * 16 + thread % 32 / 4;  // and column + 8
  // Row 2 (t % 4) + e of every eight, 16-byte chunk (column + 8 h) / 4 % 8 swizzled by the row: bits are exchanged one by one.
  const int start = column / 32 * kBoxBytes + thread % 4 * 256 +
                    ((column % 32 / 4) ^ (thread % 4 * 2)) * 16 + column % 4 * 4;
#pragma unroll
  for (int i = 0; i < kPartSums; ++i) {
    const int e = i % 2, h = i / 2 % 2;
    const int at = (start ^ (h * 32 + e * 16)) + e * 128 + i / 4 * 1024;
    *reinterpret_cast<float*>(boxes + at) = values[i];
  }
}
// A tile has 8 rows and 8 of a warp's 16 outputs; lanes 8 i .. give the rows' addresses of the i-th of four.
__device__ __forceinline__ void put_halves(const float (&values)[kPartSums], const uint8_t* box,
                                           int thread) {
  const int lane = thread % 32;
  const uint32_t at = shared_address(box) + lane / 16 * 1024 + lane % 8 * 128 +
                      ((thread / 32 * 2 + lane / 8 % 2) ^ (lane % 8)) * 16;
#pragma unroll
  for (int i = 0; i < kPartSums; i += 8)
    store_tiles(at + i / 8 * 2048, to_halves(values[i], values[i + 1]),
                to_halves(values[i + 2], values[i + 3]), to_halves(values[i + 4], values[i + 5]),
                to_halves(values[i + 6], values[i + 7]));
}

// A warpgroup's parts of a tile, one after the other. f32: each is sent, through two boxes, from one half of the memory
// while the next goes to the other. f16: kTogether (1 or 2) parts are sent in one box. kCopies: results may also be null.
template <typename AnyTask, int kTogether, bool kCopies>
class PartWriter {
 public:
  // results: a map with boxes of result_box_rows() rows, null where y is written without the copy engine. memory: of the
  // warpgroup, 2 * kPartBytes.
  __device__ PartWriter(const AnyTask& t, const CUtensorMap* results, uint8_t* memory)
      : t_(t), results_(results), memory_(memory) {}

  // Part `part` of the tile's, which begins at row `row`; output: the warpgroup's first; end: of the rows; thread: of the
  // warpgroup. Before the warpgroup meets, one thread waits until the other half of the memory has been read: it is free
  // then.
  __device__ __forceinline__ void write(const float (&values)[kPartSums], int part, int output,
                                        int row, int end, int thread) {
    uint8_t* boxes = memory_ + half_ * kPartBytes;
    const int before = part % kTogether;  // parts that wait in the box
    if (t_.y_f16 != nullptr) {
      put_halves(values, boxes + before * kBoxBytes, thread);
      if (before + 1 < kTogether) return;
      row -= before * kPartRows;
    } else {
      put_floats(values, boxes, thread);
    }
    copy_engine_fence();
    if (thread == 0) boxes_wait_read<0>();
    warpgroup_sync(static_cast<int>(threadIdx.x) / 128 + 1);
    if (!kCopies || results_ != nullptr) {
      if (thread == 0) send(boxes, output, row);
    } else {
      copy(boxes, output, row, end, thread);
    }
    half_ ^= 1;
  }
  // Before the thread ends: the copy engine still reads its memory. What it writes is there when the grid has ended.
  __device__ __forceinline__ void finish() const {
    if (results_ != nullptr && threadIdx.x % 128 == 0) boxes_wait_read<0>();
  }

 private:
  __device__ __forceinline__ void send(const uint8_t* boxes, int output, int row) const {
    const uint32_t from = shared_address(boxes);
    if (t_.add != 0) {
      add_box(results_, output, row, from);
      add_box(results_, output + 32, row, from + kBoxBytes);
    } else {
      store_box(results_, output, row, from);
      if (t_.y_f16 == nullptr) store_box(results_, output + 32, row, from + kBoxBytes);
    }
    boxes_commit();
  }
  // Where boxes would reach too far, or may not begin: by all threads, each its column.
  __device__ __forceinline__ void copy(const uint8_t* boxes, int output, int row, int end,
                                       int thread) const {
    const int column = thread % kBlockOutputs;
    const bool half = t_.y_f16 != nullptr;
    const int byte = half ? 2 * column : 4 * column;
    const uint8_t* from = boxes + byte / 128 * kBoxBytes + byte % 16;
    const int most = half ? kTogether * kPartRows : kPartRows;
    const int rows = output + column < t_.w.n ? min(most, end - row) : 0;
#pragma unroll 1
    for (int r = thread / kBlockOutputs; r < rows; r += 128 / kBlockOutputs) {
      const uint8_t* result = from + r * 128 + ((byte % 128 / 16) ^ (r % 8)) * 16;
      const int64_t to = int64_t{row + r} * t_.w.n + output + column;
      if (half)
        t_.y_f16[to] = *reinterpret_cast<const uint16_t*>(result);
      else if (t_.add != 0)
        add_to(t_.y + to, *reinterpret_cast<const float*>(result));
      else
        t_.y[to] = *reinterpret_cast<const float*>(result);
    }
  }

  const AnyTask& t_;
  const CUtensorMap* results_;
  uint8_t* memory_;
  int half_ = 0;
};

}  // namespace atom::backend::cuda::hopper
