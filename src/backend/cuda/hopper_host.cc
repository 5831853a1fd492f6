// Tensor maps of hopper_linear.h's kernels, and their launch. Needs the CUDA headers alone.
#include <cuda.h>
#include <cuda_runtime_api.h>

#include "backend/cuda/hopper_launch.h"

namespace atom::backend::cuda::hopper {
namespace {

using EncodeTiled = decltype(&cuTensorMapEncodeTiled);

// The driver's function; null where it has none.
EncodeTiled find_encode() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  constexpr unsigned kVersion = 12000;
  if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, kVersion,
                                       cudaEnableDefault, &found) != cudaSuccess ||
      found != cudaDriverEntryPointSuccess)
    return nullptr;
  return reinterpret_cast<EncodeTiled>(function);
}

struct Matrix {
  CUtensorMapDataType type;
  void* data;
  int columns, rows;
  int64_t row_bytes;
  int box_columns, box_rows;
  CUtensorMapSwizzle swizzle = CU_TENSOR_MAP_SWIZZLE_128B;
};
Status make_map(const Matrix& m, CUtensorMap& map) {
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(m.columns), static_cast<cuuint64_t>(m.rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(m.row_bytes)};
  const cuuint32_t box[2] = {static_cast<cuuint32_t>(m.box_columns),
                             static_cast<cuuint32_t>(m.box_rows)};
  return encode_map({m.type, 2, m.data, sizes, strides, box, m.swizzle}, map);
}
Status make_input_map(const InputView& x, int segment, int box_rows, CUtensorMap& map) {
  const InputSegment& s = x.at[segment];
  return make_map({CU_TENSOR_MAP_DATA_TYPE_UINT8, x.data + s.codes_at, s.size, x.rows, x.row_bytes,
                   128, box_rows},
                  map);
}

}  // namespace

Status encode_map(const TensorShape& t, CUtensorMap& map) {
  static const EncodeTiled encode = find_encode();
  if (encode == nullptr) return cudaErrorNotSupported;
  const cuuint32_t steps[3] = {1, 1, 1};
  const CUresult result =
      encode(&map, t.type, static_cast<cuuint32_t>(t.dimensions), t.data, t.sizes, t.strides, t.box,
             steps, CU_TENSOR_MAP_INTERLEAVE_NONE, t.swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

Status make_input_maps(const Task& task, int box_rows, InputMaps& maps) {
  Status status = cudaSuccess;
  if (task.segment4 >= 0) status = make_input_map(task.x, task.segment4, box_rows, maps.of4);
  if (task.segment8 >= 0 && status == cudaSuccess)
    status = make_input_map(task.x, task.segment8, box_rows, maps.of8);
  if (task.segment4 < 0) maps.of4 = maps.of8;
  if (task.segment8 < 0) maps.of8 = maps.of4;
  return status;
}

Status make_scale_map(const Task& task, int segment, int box_rows, CUtensorMap& map) {
  const InputSegment& s = task.x.at[segment];
  return make_map({CU_TENSOR_MAP_DATA_TYPE_FLOAT32, task.x.data + s.scales_at, s.groups,
                   task.x.rows, task.x.row_bytes, 4, box_rows, CU_TENSOR_MAP_SWIZZLE_NONE},
                  map);
}

Status make_result_map(const Results& r, int together, CUtensorMap& map) {
  const bool half = r.y_f16 != nullptr;
  return make_map({half ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
                   half ? static_cast<void*>(r.y_f16) : r.y, r.n, r.rows,
                   int64_t{r.n} * (half ? 2 : 4), half ? 64 : 32, half ? 32 * together : 32},
                  map);
}

Status launch_linear(const Task& task, const Plan& plan, int multiprocessors, Stream stream) {
  if (task.w.n == 0 || task.x.rows == 0) return cudaSuccess;
  if (task.y_f16 != nullptr && task.add != 0) return cudaErrorInvalidValue;
  if (task.w.grouped != 0)
    return plan.many ? launch_grouped_many_rows(task, plan, multiprocessors, stream)
                     : launch_grouped_few_rows(task, plan, stream);
  return plan.many ? launch_many_rows(task, plan, multiprocessors, stream)
                   : launch_few_rows(task, plan, stream);
}

}  // namespace atom::backend::cuda::hopper
