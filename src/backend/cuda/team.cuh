// Reductions and transforms by the threads of a warp or of a block. All lanes of a warp, or all threads of a
// block, call together; every thread gets the result. The order of additions depends on the block's size alone,
// so that a result does not depend on the batch.
#pragma once

#include <cstdint>

namespace atom::backend::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

struct Sum {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Max {
  __device__ uint32_t operator()(uint32_t a, uint32_t b) const { return a > b ? a : b; }
  __device__ float operator()(float a, float b) const { return fmaxf(a, b); }  // drops a NaN
};
struct Min {
  __device__ uint64_t operator()(uint64_t a, uint64_t b) const { return a < b ? a : b; }
  __device__ float operator()(float a, float b) const { return fminf(a, b); }
};

template <typename T, typename Op>
__device__ T warp_reduce(T value, Op op) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2)
    value = op(value, __shfl_xor_sync(kAllLanes, value, distance));
  return value;
}

// blockDim.x is a multiple of 32. `partial` is shared memory of blockDim.x / 32 values; it is free again on
// return.
template <typename T, typename Op>
__device__ T block_reduce(T value, Op op, T* partial) {
  const int warps = static_cast<int>(blockDim.x) / kWarp,
            warp = static_cast<int>(threadIdx.x) / kWarp;
  value = warp_reduce(value, op);
  if (threadIdx.x % kWarp == 0) partial[warp] = value;
  __syncthreads();
  T result = partial[0];
  for (int i = 1; i < warps; ++i) result = op(result, partial[i]);
  __syncthreads();
  return result;
}

// format::hadamard by one warp, in place; x is memory that the warp alone uses meanwhile.
__device__ inline void warp_hadamard(float* x, int length) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  __syncwarp();
  for (int distance = 1; distance < length; distance *= 2) {
    for (int pair = lane; pair < length / 2; pair += kWarp) {
      const int i = pair / distance * 2 * distance + pair % distance;
      const float a = x[i], b = x[i + distance];
      x[i] = a + b;
      x[i + distance] = a - b;
    }
    __syncwarp();
  }
  const float norm = static_cast<float>(1.0 / sqrt(static_cast<double>(length)));
  for (int i = lane; i < length; i += kWarp) x[i] *= norm;
  __syncwarp();
}

// The length of the block that begins with `left` values to go: `block`, or the largest power of two that fits.
__device__ inline int hadamard_length(int left, int block) {
  return left >= block ? block : 1 << (31 - __clz(left));
}

}  // namespace atom::backend::cuda
