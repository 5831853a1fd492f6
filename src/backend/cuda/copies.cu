// Small arrays from pinned host memory, which the threads read over the bus all at once.
#include "backend/cuda/tasks.h"

namespace atom::backend::cuda {
namespace {

constexpr int kThreads = 256, kBytes = 16;  // of a thread

__global__ void copies_kernel(CopyTask t) {
  const CopyTask::Piece piece = t.at[blockIdx.y];
  const auto* from = static_cast<const uint8_t*>(piece.from);
  auto* to = static_cast<uint8_t*>(piece.to);
  int64_t at = kBytes * (int64_t{blockIdx.x} * kThreads + threadIdx.x);
  if (at + kBytes <= piece.bytes)
    *reinterpret_cast<uint4*>(to + at) = *reinterpret_cast<const uint4*>(from + at);
  else
    for (; at < piece.bytes; ++at) to[at] = from[at];
}

}  // namespace

Status launch_copies(const CopyTask& task, Stream stream) {
  int64_t most = 0;
  for (int i = 0; i < task.count; ++i) most = task.at[i].bytes > most ? task.at[i].bytes : most;
  if (most == 0) return 0;
  const int64_t blocks = (most + kThreads * kBytes - 1) / (kThreads * kBytes);
  copies_kernel<<<dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(task.count)), kThreads,
                  0, stream>>>(task);
  return cudaGetLastError();
}

}  // namespace atom::backend::cuda
