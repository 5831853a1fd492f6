// What the stand-alone tests and benchmarks of the kernels share: device arrays, seeded data, times of CUDA graphs.
// They are built by nvcc alone.
#pragma once

#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

namespace atom::bench {

#define ATOM_REQUIRE(call)                                                        \
  do {                                                                            \
    const int require_status = static_cast<int>(call);                            \
    if (require_status != 0) {                                                    \
      std::fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call,          \
                   cudaGetErrorString(static_cast<cudaError_t>(require_status))); \
      std::exit(1);                                                               \
    }                                                                             \
  } while (0)

template <typename T>
T* device_array(size_t count) {
  void* data = nullptr;
  ATOM_REQUIRE(cudaMalloc(&data, std::max<size_t>(count * sizeof(T), 16)));
  ATOM_REQUIRE(cudaMemset(data, 0, count * sizeof(T)));
  return static_cast<T*>(data);
}
template <typename T>
std::vector<T> host_copy(const T* device, size_t count) {
  std::vector<T> values(count);
  ATOM_REQUIRE(cudaMemcpy(values.data(), device, count * sizeof(T), cudaMemcpyDeviceToHost));
  return values;
}

// SplitMix64 (Steele, Lea, Flood 2014) at place i of stream `seed`.
__host__ __device__ inline uint64_t random_at(uint64_t seed, uint64_t i) {
  uint64_t z = (seed << 32) + (i + 1) * 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}
// About normal, variance 1: the sum of four uniform numbers.
__host__ __device__ inline float normal_at(uint64_t seed, uint64_t i) {
  const uint64_t bits = random_at(seed, i);
  float sum = 0;
  for (int part = 0; part < 4; ++part)
    sum += static_cast<float>((bits >> (16 * part)) & 0xffff) / 65536.0f - 0.5f;
  return sum * 1.7320508f;
}

enum class Fill { kInt4Pairs, kInt8, kHalf, kFp8, kFloat, kMultiplier, kScale, kSignedHalfScale };
static __global__ void fill_kernel(void* data, size_t count, Fill fill, uint64_t seed) {
  for (size_t i = blockIdx.x * size_t{blockDim.x} + threadIdx.x; i < count;
       i += size_t{gridDim.x} * blockDim.x) {
    const float x = normal_at(seed, i), y = normal_at(seed + 7777, i);
    const auto code = [](float v, float most) {
      return static_cast<int>(fminf(fmaxf(rintf(v * most / 3.0f), -most), most));
    };
    if (fill == Fill::kInt4Pairs)
      static_cast<uint8_t*>(data)[i] =
          static_cast<uint8_t>((code(x, 7) & 15) | (code(y, 8) & 15) << 4);
    if (fill == Fill::kInt8) static_cast<int8_t*>(data)[i] = static_cast<int8_t>(code(x, 127));
    if (fill == Fill::kHalf) static_cast<__half*>(data)[i] = __float2half(x);
    if (fill == Fill::kFp8) static_cast<__nv_fp8_e4m3*>(data)[i] = __nv_fp8_e4m3(x);
    if (fill == Fill::kFloat) static_cast<float*>(data)[i] = x;
    if (fill == Fill::kMultiplier) {
      const int m = 1 + static_cast<int>(random_at(seed, i) % 15);
      static_cast<int8_t*>(data)[i] = static_cast<int8_t>(random_at(seed + 1, i) % 2 ? m : -m);
    }
    if (fill == Fill::kScale) static_cast<float*>(data)[i] = 0.002f + 0.001f * fabsf(x);
    if (fill == Fill::kSignedHalfScale)  // f32 values of f16 scales
      static_cast<float*>(data)[i] =
          __half2float(__float2half((x < 0 ? -0.01f : 0.01f) + 0.005f * x));
  }
}
inline void fill(void* data, size_t count, Fill what, uint64_t seed) {
  if (count > 0) fill_kernel<<<2048, 256>>>(data, count, what, seed);
  ATOM_REQUIRE(cudaGetLastError());
}

// Microseconds of one call of `enqueue(i, stream)`, i = 0 .. nodes - 1, captured in one graph: the least of `replays`,
// after the graph has kept the device busy for `warm_milliseconds`, as long as it takes the clock to settle. For profilers:
// where ATOM_BENCH_ONCE is set in the environment, the first four calls at most, once, without a graph or a time.
inline float graph_microseconds(int nodes, const std::function<void(int, cudaStream_t)>& enqueue,
                                int replays = 5, float warm_milliseconds = 0) {
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  cudaEvent_t begin, end;
  ATOM_REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  if (std::getenv("ATOM_BENCH_ONCE") != nullptr) {
    for (int i = 0; i < std::min(nodes, 4); ++i) enqueue(i, stream);
    ATOM_REQUIRE(cudaStreamSynchronize(stream));
    ATOM_REQUIRE(cudaStreamDestroy(stream));
    return 1;
  }
  ATOM_REQUIRE(cudaEventCreate(&begin));
  ATOM_REQUIRE(cudaEventCreate(&end));
  ATOM_REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < nodes; ++i) enqueue(i, stream);
  ATOM_REQUIRE(cudaStreamEndCapture(stream, &graph));
  ATOM_REQUIRE(cudaGraphInstantiate(&executable, graph, 0));
  ATOM_REQUIRE(cudaGraphLaunch(executable, stream));
  float least = 1e30f, spent = 0;
  for (int i = 0; i < replays; ++i) {
    ATOM_REQUIRE(cudaEventRecord(begin, stream));
    ATOM_REQUIRE(cudaGraphLaunch(executable, stream));
    ATOM_REQUIRE(cudaEventRecord(end, stream));
    ATOM_REQUIRE(cudaEventSynchronize(end));
    float milliseconds = 0;
    ATOM_REQUIRE(cudaEventElapsedTime(&milliseconds, begin, end));
    const bool warm = spent >= warm_milliseconds;
    spent += milliseconds;
    if (!warm) {
      --i;
      continue;
    }
    least = std::min(least, milliseconds * 1000.0f / static_cast<float>(nodes));
  }
  ATOM_REQUIRE(cudaGraphExecDestroy(executable));
  ATOM_REQUIRE(cudaGraphDestroy(graph));
  ATOM_REQUIRE(cudaEventDestroy(begin));
  ATOM_REQUIRE(cudaEventDestroy(end));
  ATOM_REQUIRE(cudaStreamDestroy(stream));
  return least;
}

}  // namespace atom::bench
