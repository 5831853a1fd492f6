// Tensor maps of hopper_half_linear.h's kernels, and their launch. Needs the CUDA headers alone.
#include <cuda.h>
#include <cuda_runtime_api.h>

#include "backend/cuda/hopper_half_launch.h"

namespace atom::backend::cuda::hopper {
Status make_half_input_map(const HalfRows& x, int box_rows, int panels, CUtensorMap& map) {
  const int pitch = HalfRows::pitch(x.k);
  const cuuint64_t sizes[3] = {kPanelInputs, static_cast<cuuint64_t>(x.rows),
                               static_cast<cuuint64_t>(pitch / kPanelInputs)};
  const cuuint64_t strides[2] = {static_cast<cuuint64_t>(pitch) * 2, kPanelInputs * 2};
  const cuuint32_t box[3] = {kPanelInputs, static_cast<cuuint32_t>(box_rows),
                             static_cast<cuuint32_t>(panels)};
  return encode_map({CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 3, x.values, sizes, strides, box,
                     CU_TENSOR_MAP_SWIZZLE_128B},
                    map);
}

Status launch_half_linear(const HalfTask& task, const Plan& plan, int multiprocessors,
                          Stream stream) {
  if (task.w.n == 0 || task.x.rows == 0) return cudaSuccess;
  if (task.y_f16 != nullptr && task.add != 0) return cudaErrorInvalidValue;
  if (!has_half_kernel(task.w.kind, plan)) return cudaErrorInvalidValue;
  return plan.many ? launch_half_many_rows(task, plan, multiprocessors, stream)
                   : launch_half_few_rows(task, plan, stream);
}

}  // namespace atom::backend::cuda::hopper
