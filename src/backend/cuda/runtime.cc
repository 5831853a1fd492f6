#include "backend/cuda/runtime.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace atom::backend::cuda {
namespace {

// 12040 -> "12.4"
std::string version_text(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

std::atomic<uint64_t> returns = 0;

std::string words(Status status) { return cudaGetErrorString(static_cast<cudaError_t>(status)); }

// The driver is asked first: the runtime answers "insufficient" also where there is none.
void require_driver() {
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0)
    fail("backend 'cuda': this machine has no NVIDIA driver (libcuda.so.1 does not load)");
  if (driver / 1000 < CUDART_VERSION / 1000)
    fail("backend 'cuda': the driver is too old, it serves CUDA {} and this build needs {}",
         version_text(driver), version_text(CUDART_VERSION / 1000 * 1000));
}

}  // namespace

void require(Status status, std::string_view what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // or the next launch would report it again
  fail("cuda: {}: {}", what, words(status));
}

Device open_device() {
  require_driver();
  int count = 0;
  const cudaError_t found = cudaGetDeviceCount(&count);
  if (found == cudaErrorNoDevice || (found == cudaSuccess && count == 0))
    fail("backend 'cuda': the driver shows no device (CUDA_VISIBLE_DEVICES may hide them)");
  if (found != cudaSuccess) fail("backend 'cuda': {}", words(found));
  require(cudaSetDevice(0), "choosing the device");
  cudaDeviceProp properties;
  require(cudaGetDeviceProperties(&properties, 0), "reading the device's properties");
  Device device{.name = properties.name,
                .major = properties.major,
                .minor = properties.minor,
                .multiprocessors = properties.multiProcessorCount,
                .memory = properties.totalGlobalMem,
                .most_shared = properties.sharedMemPerBlockOptin};
  if (const Status status = probe_kernels(); status != 0) {
    cudaGetLastError();
    fail("backend 'cuda': {} has compute capability {}.{}, and this build has code for {} ({})",
         device.name, device.major, device.minor, ATOM_CUDA_ARCHITECTURES, words(status));
  }
  return device;
}

void* allocate_device(size_t bytes) {
  void* data = nullptr;
  const cudaError_t status = cudaMalloc(&data, std::max<size_t>(bytes, 1));
  if (status == cudaSuccess) return data;
  cudaGetLastError();
  size_t free = 0, total = 0;
  if (status == cudaErrorMemoryAllocation && cudaMemGetInfo(&free, &total) == cudaSuccess)
    fail(
        "cuda: {} bytes of device memory were asked for, {} of {} are free; fewer bits of weights "
        "or KV-cache, fewer "
        "positions and fewer rows a step need less",
        bytes, free, total);
  fail("cuda: allocating {} bytes: {}", bytes, words(status));
}

void free_device(void* data) {
  if (data == nullptr) return;
  ++returns;
  cudaFree(data);  // what could fail here has failed, and was reported, before
}

uint64_t device_memory_returns() { return returns; }

DeviceMemory& DeviceMemory::operator=(DeviceMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

void DeviceMemory::reserve(size_t bytes) {
  if (bytes <= bytes_) return;
  free_device(std::exchange(data_, nullptr));
  bytes_ = 0;
  data_ = allocate_device(bytes);
  bytes_ = bytes;
}

void DeviceMemory::reserve_more(size_t bytes) {
  if (bytes > bytes_) reserve(2 * bytes);
}

Staging::~Staging() {
  for (const Slot& slot : slots_) {
    if (slot.copied != nullptr) cudaEventDestroy(slot.copied);
    if (slot.pinned != nullptr) cudaFreeHost(slot.pinned);
  }
}

void Staging::copy(void* device, const void* host, size_t bytes, Stream stream) {
  if (bytes == 0) return;
  if (bytes > kMostBytes) {
    require(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream), "upload");
    require(cudaStreamSynchronize(stream), "upload");  // `host` may change now
    return;
  }
  Slot& slot = slots_[next_];
  next_ = (next_ + 1) % kSlots;
  if (slot.copied == nullptr)
    require(cudaEventCreateWithFlags(&slot.copied, cudaEventDisableTiming), "creating an event");
  else
    require(cudaEventSynchronize(slot.copied), "upload");
  if (slot.bytes < bytes) {
    if (slot.pinned != nullptr)
      require(cudaFreeHost(std::exchange(slot.pinned, nullptr)), "upload");
    slot.bytes = 0;
    const size_t size = std::max<size_t>(2 * bytes, 4096);
    require(cudaMallocHost(&slot.pinned, size), "allocating pinned memory");
    slot.bytes = size;
  }
  std::memcpy(slot.pinned, host, bytes);
  require(cudaMemcpyAsync(device, slot.pinned, bytes, cudaMemcpyHostToDevice, stream), "upload");
  require(cudaEventRecord(slot.copied, stream), "upload");
}

}  // namespace atom::backend::cuda
