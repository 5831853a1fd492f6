// The launch that both kernels for many rows share.
#pragma once

#include "backend/cuda/hopper_launch.h"
#include "backend/cuda/hopper_many_tiles.cuh"

namespace atom::backend::cuda::hopper::many {

// `kernel` takes the maps of both input segments and of the results, the task, and whether results go by boxes; S is
// its shape.
template <typename S, typename Kernel>
Status launch_tiles(Kernel kernel, const Task& t, int multiprocessors, Stream stream) {
  static const Status allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::kBytes);
  if (allowed != 0) return allowed;
  // By expert a box could reach into the next expert's rows.
  const Results y{t.y, t.y_f16, t.x.rows, t.w.n};
  const bool boxes = t.row_ends == nullptr && y.has_boxes();
  if (S::kRows > 128 && !boxes) return cudaErrorInvalidValue;
  InputMaps maps;
  if (const Status status = make_input_maps(t, S::kRows / S::kShare, maps); status != 0)
    return status;
  CUtensorMap results = maps.of4;
  if (boxes)
    if (const Status status = make_result_map(y, S::kTogether, results); status != 0) return status;
  constexpr int kCluster = S::kShare * S::kSplit, kGroupOutputs = S::kOutputs * S::kShare;
  const int tiles =
      (t.w.n + kGroupOutputs - 1) / kGroupOutputs * ((t.x.rows + S::kRows - 1) / S::kRows);
  // CTAs that share k take half a tile each, if all find room.
  int clusters = S::kSplit > 1 && 2 * tiles > multiprocessors ? (tiles + 1) / 2 : tiles;
  clusters = clusters < multiprocessors / kCluster ? clusters : multiprocessors / kCluster;
  return launch_kernel(
      kernel, {dim3(clusters * kCluster), S::kThreads, S::kBytes, kCluster, t.dependent != 0},
      stream, maps.of4, maps.of8, results, t, boxes ? 1 : 0);
}

}  // namespace atom::backend::cuda::hopper::many
