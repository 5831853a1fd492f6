// The same linear by cuBLASLt in f16, FP8 or INT8, for comparison: of the heuristic's first five algorithms the fastest.
#pragma once

#include <cublasLt.h>

#include <algorithm>
#include <vector>

#include "bench/cuda/device.cuh"

namespace atom::bench {

enum class Number { kF16, kFp8, kInt8 };  // fp8: e4m3, one scale a tensor, fast sums
inline constexpr Number kNumbers[] = {Number::kF16, Number::kFp8, Number::kInt8};
inline constexpr int kNumberCount = 3;
inline const char* name_of(Number number) {
  return number == Number::kF16 ? "f16" : number == Number::kFp8 ? "fp8" : "int8";
}
inline size_t bytes_of(Number number) { return number == Number::kF16 ? 2 : 1; }

struct LibrarySpace {
  cublasLtHandle_t handle;
  void* workspace;
  void* y;  // f16, or s32 of INT8
};
inline constexpr size_t kWorkspace = size_t{64} << 20;

// Weights [n, k], several to rotate over, and inputs [rows, k] of normal data.
struct LibraryData {
  std::vector<void*> weights;
  void* x = nullptr;
};
inline void* normal_array(Number number, size_t count, uint64_t seed) {
  void* data = device_array<uint8_t>(count * bytes_of(number));
  constexpr Fill kFills[kNumberCount] = {Fill::kHalf, Fill::kFp8, Fill::kInt8};
  fill(data, count, kFills[static_cast<int>(number)], seed);
  return data;
}
inline LibraryData library_data(Number number, int n, int k, int most_rows, double rotated_bytes) {
  LibraryData d;
  d.x = normal_array(number, size_t{1} * most_rows * k, 6);
  const size_t count = size_t{1} * n * k;
  const auto bytes = static_cast<double>(count * bytes_of(number));
  for (int i = 0; i < std::max(2, static_cast<int>(rotated_bytes / bytes)); ++i)
    d.weights.push_back(normal_array(number, count, 7 + i));
  return d;
}

// y = x w^T with f32 sums and f16 results, or s32 sums and results.
struct LibraryCall {
  Number number = Number::kF16;
  int rows = 0;  // computed: more than asked for where the library has no kernel for those
  cublasLtMatmulDesc_t operation;
  cublasLtMatrixLayout_t a, b, c;
  cublasLtMatmulAlgo_t algorithm;

  void run(const LibrarySpace& space, const LibraryData& d, int copy, cudaStream_t stream) const {
    const float one = 1, zero = 0;
    const int one_int = 1, zero_int = 0;
    const bool ints = number == Number::kInt8;
    const void* alpha = ints ? static_cast<const void*>(&one_int) : &one;
    const void* beta = ints ? static_cast<const void*>(&zero_int) : &zero;
    ATOM_REQUIRE(cublasLtMatmul(space.handle, operation, alpha, d.weights[copy % d.weights.size()],
                                a, d.x, b, beta, space.y, c, space.y, c, &algorithm,
                                space.workspace, kWorkspace, stream));
  }
};

// Describes the call; what the heuristic finds goes to `found`. Returns how many.
inline int find_algorithms(const LibrarySpace& space, int n, int k, LibraryCall& call,
                           cublasLtMatmulHeuristicResult_t (&found)[5]) {
  const bool ints = call.number == Number::kInt8;
  const cudaDataType_t in = ints                          ? CUDA_R_8I
                            : call.number == Number::kFp8 ? CUDA_R_8F_E4M3
                                                          : CUDA_R_16F;
  const cudaDataType_t out = ints ? CUDA_R_32I : CUDA_R_16F;
  const cublasOperation_t transposed = CUBLAS_OP_T;
  const int8_t fast = 1;
  ATOM_REQUIRE(cublasLtMatmulDescCreate(&call.operation,
                                        ints ? CUBLAS_COMPUTE_32I : CUBLAS_COMPUTE_32F,
                                        ints ? CUDA_R_32I : CUDA_R_32F));
  ATOM_REQUIRE(cublasLtMatmulDescSetAttribute(call.operation, CUBLASLT_MATMUL_DESC_TRANSA,
                                              &transposed, sizeof transposed));
  if (call.number == Number::kFp8)
    ATOM_REQUIRE(cublasLtMatmulDescSetAttribute(call.operation, CUBLASLT_MATMUL_DESC_FAST_ACCUM,
                                                &fast, sizeof fast));
  ATOM_REQUIRE(cublasLtMatrixLayoutCreate(&call.a, in, k, n, k));
  ATOM_REQUIRE(cublasLtMatrixLayoutCreate(&call.b, in, k, call.rows, k));
  ATOM_REQUIRE(cublasLtMatrixLayoutCreate(&call.c, out, n, call.rows, n));
  cublasLtMatmulPreference_t preference;
  ATOM_REQUIRE(cublasLtMatmulPreferenceCreate(&preference));
  ATOM_REQUIRE(cublasLtMatmulPreferenceSetAttribute(
      preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kWorkspace, sizeof kWorkspace));
  int count = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      space.handle, call.operation, call.a, call.b, call.c, call.c, preference, 5, found, &count);
  ATOM_REQUIRE(cublasLtMatmulPreferenceDestroy(preference));
  return status == CUBLAS_STATUS_SUCCESS ? count : 0;
}

// The fastest algorithm for these rows, or for the next multiple of 16. nodes: of the graphs that time them.
inline LibraryCall pick_library(const LibrarySpace& space, const LibraryData& d, Number number,
                                int n, int k, int rows, int nodes) {
  LibraryCall call{};
  call.number = number;
  call.rows = rows;
  cublasLtMatmulHeuristicResult_t found[5];
  int count = find_algorithms(space, n, k, call, found);
  if (count == 0) {
    call.rows = (rows + 15) / 16 * 16;
    count = find_algorithms(space, n, k, call, found);
  }
  if (count == 0) {
    std::fprintf(stderr, "cuBLASLt has no %s kernel for %d x %d x %d\n", name_of(number), rows, n,
                 k);
    std::exit(1);
  }
  float least = 1e30f;
  for (int i = 0; i < count; ++i) {
    LibraryCall candidate = call;
    candidate.algorithm = found[i].algo;
    const float time = graph_microseconds(
        nodes, [&](int j, cudaStream_t stream) { candidate.run(space, d, j, stream); }, 2);
    if (time < least) least = time, call.algorithm = found[i].algo;
  }
  return call;
}

}  // namespace atom::bench
