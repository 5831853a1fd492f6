// Host side of the Hopper kernels' launches: tensor maps of inputs, and launches with clusters and dependence.
// Included by .cu files only.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include "backend/cuda/hopper_linear.h"

namespace atom::backend::cuda::hopper {

// A tensor of at most three dimensions as the copy engine sees it; outside, boxes read zeros. strides: bytes, of all
// dimensions but the first.
struct TensorShape {
  CUtensorMapDataType type;
  int dimensions;
  void* data;
  const cuuint64_t *sizes, *strides;
  const cuuint32_t* box;
  CUtensorMapSwizzle swizzle;
};
Status encode_map(const TensorShape& tensor, CUtensorMap& map);

// Both segments' codes as matrices [rows, size] with boxes of 128 columns x `box_rows`, 128-byte swizzle; outside
// they read zeros.
struct InputMaps {
  CUtensorMap of4, of8;
};
Status make_input_maps(const Task& task, int box_rows, InputMaps& maps);
// A segment's scales as a matrix [rows, groups] of f32 with boxes of 4 columns x `box_rows`, not swizzled.
Status make_scale_map(const Task& task, int segment, int box_rows, CUtensorMap& map);
// Results [rows, n]: y, f32, or y_f16 where that is not null.
struct Results {
  float* y;
  uint16_t* y_f16;
  int rows, n;

  // Whether the copy engine takes rows of this length.
  bool has_boxes() const { return n % (y_f16 != nullptr ? 8 : 4) == 0; }
};
// Boxes of 128 bytes of outputs: 32 of y x 32 rows, or 64 of y_f16 x 32 * `together` rows; 128-byte swizzle. With
// has_boxes().
Status make_result_map(const Results& results, int together, CUtensorMap& map);

struct Launch {
  dim3 grid;
  int threads;
  int shared_bytes;
  int cluster;
  bool dependent;
};

template <typename... Parameters, typename... Arguments>
Status launch_kernel(void (*kernel)(Parameters...), const Launch& how, Stream stream,
                     const Arguments&... arguments) {
  cudaLaunchAttribute attributes[2] = {};
  cudaLaunchConfig_t config = {};
  config.gridDim = how.grid;
  config.blockDim = dim3(how.threads);
  config.dynamicSmemBytes = how.shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  if (how.dependent) {
    cudaLaunchAttribute& a = attributes[config.numAttrs++];
    a.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    a.val.programmaticStreamSerializationAllowed = 1;
  }
  if (how.cluster > 1) {
    cudaLaunchAttribute& a = attributes[config.numAttrs++];
    a.id = cudaLaunchAttributeClusterDimension;
    a.val.clusterDim.x = how.cluster;
    a.val.clusterDim.y = a.val.clusterDim.z = 1;
  }
  return cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
}

Status launch_few_rows(const Task& task, const Plan& plan, Stream stream);
Status launch_many_rows(const Task& task, const Plan& plan, int multiprocessors, Stream stream);
Status launch_grouped_few_rows(const Task& task, const Plan& plan, Stream stream);
Status launch_grouped_many_rows(const Task& task, const Plan& plan, int multiprocessors,
                                Stream stream);

}  // namespace atom::backend::cuda::hopper
