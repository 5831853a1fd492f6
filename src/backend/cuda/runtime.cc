#include "backend/cuda/runtime.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>
#include <utility>

#include "base/error.h"

namespace atom::backend::cuda {
namespace {

// 12040 -> "12.4"
std::string version_text(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

std::atomic<uint64_t> returns = 0;

// What allocate_device() gave and has not got back: address -> bytes.
std::mutex allocations_mutex;
std::map<uintptr_t, size_t>& allocations() {
  static std::map<uintptr_t, size_t> all;
  return all;
}

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

std::string words(Status status) { return cudaGetErrorString(static_cast<cudaError_t>(status)); }

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

std::string toolkit_version() { return version_text(CUDART_VERSION); }

std::string driver_version() {
  int driver = 0;
  require(cudaDriverGetVersion(&driver), "asking for the driver's version");
  return version_text(driver);
}

void* allocate_device(size_t bytes) {
  void* data = nullptr;
  const cudaError_t status = cudaMalloc(&data, std::max<size_t>(bytes, 1));
  if (status == cudaSuccess) {
    const std::scoped_lock lock(allocations_mutex);
    allocations()[reinterpret_cast<uintptr_t>(data)] = std::max<size_t>(bytes, 1);
    return data;
  }
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
  {
    const std::scoped_lock lock(allocations_mutex);
    allocations().erase(reinterpret_cast<uintptr_t>(data));
  }
  cudaFree(data);  // what could fail here has failed, and was reported, before
}

bool is_device_memory(const void* data) {
  const auto at = reinterpret_cast<uintptr_t>(data);
  const std::scoped_lock lock(allocations_mutex);
  const auto after = allocations().upper_bound(at);
  if (after == allocations().begin()) return false;
  const auto& [begin, bytes] = *std::prev(after);
  return at - begin < bytes;
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

PinnedMemory::PinnedMemory(size_t bytes) {
  require(cudaMallocHost(&data_, bytes), "allocating pinned memory");
}

PinnedMemory::~PinnedMemory() { cudaFreeHost(data_); }

StreamMark::StreamMark() {
  require(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "creating an event");
}

StreamMark::~StreamMark() { cudaEventDestroy(event_); }

void StreamMark::record(Stream stream) {
  require(cudaEventRecord(event_, stream), "recording an event");
}

bool StreamMark::reached() const {
  if (cudaEventQuery(event_) != cudaErrorNotReady) return true;
  cudaGetLastError();  // or the next launch would report it
  return false;
}

void StreamMark::wait() const { require(cudaEventSynchronize(event_), "waiting for the device"); }

// slots_[next_], with at least `bytes`, once nothing reads it any more.
Staging::Slot& Staging::free_slot(size_t bytes) {
  Slot& slot = slots_[next_];
  if (slot.copied == nullptr) slot.copied = std::make_unique<StreamMark>();
  slot.copied->wait();
  if (slot.bytes < bytes) {
    slot.bytes = 0;
    slot.pinned.reset();
    const size_t size = std::max(2 * bytes, kLeastBytes);
    slot.pinned = std::make_unique<PinnedMemory>(size);
    slot.bytes = size;
  }
  return slot;
}

void Staging::copy(void* device, const void* host, size_t bytes, Stream stream) {
  send(stream);
  if (bytes == 0) return;
  if (bytes > kMostBytes) {
    require(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream), "upload");
    require(cudaStreamSynchronize(stream), "upload");  // `host` may change now
    return;
  }
  Slot& slot = free_slot(bytes);
  std::memcpy(pinned(), host, bytes);
  require(cudaMemcpyAsync(device, pinned(), bytes, cudaMemcpyHostToDevice, stream), "upload");
  slot.copied->record(stream);
  next_ = (next_ + 1) % kSlots;
}

void Staging::add(void* device, const void* host, size_t bytes, Stream stream) {
  if (bytes == 0) return;
  if (bytes > kMostBytes) return copy(device, host, bytes, stream);
  size_t at = (used_ + 15) / 16 * 16;
  if (copies_.count == CopyTask::kMost || at + bytes > slots_[next_].bytes) send(stream);
  if (copies_.count == 0) free_slot(bytes), at = 0;
  std::memcpy(pinned() + at, host, bytes);
  copies_.at[copies_.count++] = {
      .from = pinned() + at, .to = device, .bytes = static_cast<int64_t>(bytes)};
  used_ = at + bytes;
}

void Staging::send_by_kernel(Stream stream) {
  if (copies_.count == 0) return;
  const Status status = launch_copies(copies_, stream);
  end_sending(stream, status);
}

void Staging::send(Stream stream) {
  if (copies_.count == 0) return;
  Status status = 0;
  for (int i = 0; i < copies_.count && status == 0; ++i) {
    const auto& copy = copies_.at[i];
    status = cudaMemcpyAsync(copy.to, copy.from, static_cast<size_t>(copy.bytes),
                             cudaMemcpyHostToDevice, stream);
  }
  end_sending(stream, status);
}

void Staging::end_sending(Stream stream, Status status) {
  copies_.count = 0;
  slots_[next_].copied->record(stream);
  next_ = (next_ + 1) % kSlots;
  require(status, "upload");
}

}  // namespace atom::backend::cuda
