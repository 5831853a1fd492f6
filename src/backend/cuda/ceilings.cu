#include <cuda_runtime.h>

#include "backend/cuda/ceilings.h"

namespace atom::backend::cuda {
namespace {

constexpr int kThreads = 256, kUnrolled = 8;

__global__ void __launch_bounds__(kThreads)
    read_kernel(const uint4* data, size_t count, uint32_t* words) {
  uint32_t sum = 0;
  const size_t stride = size_t{gridDim.x} * kThreads * kUnrolled;
  for (size_t at = blockIdx.x * size_t{kThreads} * kUnrolled + threadIdx.x; at < count;
       at += stride) {
    uint4 v[kUnrolled];
#pragma unroll
    for (int i = 0; i < kUnrolled; ++i) v[i] = __ldcs(data + at + i * kThreads);
#pragma unroll
    for (int i = 0; i < kUnrolled; ++i) sum += v[i].x + v[i].y + v[i].z + v[i].w;
  }
  if (sum == 0x12345678u) words[blockIdx.x] = sum;  // as good as never, but the sum is needed
}

}  // namespace

Status launch_read(const void* data, size_t bytes, int multiprocessors, uint32_t* words,
                   Stream stream) {
  read_kernel<<<multiprocessors * kReadBlocks, kThreads, 0, stream>>>(
      static_cast<const uint4*>(data), bytes / sizeof(uint4), words);
  return cudaGetLastError();
}

}  // namespace atom::backend::cuda
