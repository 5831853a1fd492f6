// A kernel's limit of dynamic shared memory, raised once for each kernel and device: the call takes a good part of a launch. It
// is one limit for all threads, and the call also lowers it, so that what was allowed is known to all of them.
//
//   if (const Status status = allow_shared(kernel, bytes); status != 0) return status;
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <mutex>
#include <vector>

#include "backend/cuda/tasks.h"

namespace atom::backend::cuda {

inline Status allow_shared_bytes(const void* kernel, int bytes) {
  struct Allowed {
    const void* kernel;
    int device, bytes;
  };
  static std::mutex mutex;
  static std::vector<Allowed> all;
  int device = 0;
  if (const cudaError_t status = cudaGetDevice(&device); status != cudaSuccess) return status;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto at = std::find_if(all.begin(), all.end(), [&](const Allowed& a) {
    return a.kernel == kernel && a.device == device;
  });
  if (at != all.end() && at->bytes >= bytes) return cudaSuccess;
  const cudaError_t status =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (status != cudaSuccess) return status;
  if (at == all.end())
    all.push_back({kernel, device, bytes});
  else
    at->bytes = bytes;
  return cudaSuccess;
}

template <typename... Parameters>
Status allow_shared(void (*kernel)(Parameters...), int bytes) {
  return allow_shared_bytes(reinterpret_cast<const void*>(kernel), bytes);
}

}  // namespace atom::backend::cuda
