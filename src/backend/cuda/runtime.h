// The CUDA runtime as this backend uses it: errors as sentences, memory, and host arrays on their way to the device.
//
//   require(launch_gate(task, stream), "gate");
//   DeviceMemory scratch;  scratch.reserve(bytes);
//   staging.copy(device, host, bytes, stream);   // `host` may change at once, nothing waits
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "backend/cuda/tasks.h"

struct CUevent_st;

namespace atom::backend::cuda {

// Throws Error "cuda: <what>: <the runtime's words>" when status is not 0.
void require(Status status, std::string_view what);

// The device that CUDA_VISIBLE_DEVICES puts first, made current.
struct Device {
  std::string name;
  int major = 0, minor = 0;  // compute capability
  int multiprocessors = 0;
  size_t memory = 0;       // bytes
  size_t most_shared = 0;  // bytes of shared memory that a block may ask for
};
// Error, one sentence: no driver, one that is too old, no device, a device that the kernels were not built for.
Device open_device();

// Error: how much was asked for, how much is free.
void* allocate_device(size_t bytes);
void free_device(void* data);  // waits for the device
uint64_t
device_memory_returns();  // how often memory was given back so far: what was at an address may not be there

// Owns device memory. Movable.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  explicit DeviceMemory(size_t bytes) { reserve(bytes); }
  DeviceMemory(DeviceMemory&& other) noexcept { *this = std::move(other); }
  DeviceMemory& operator=(DeviceMemory&& other) noexcept;
  ~DeviceMemory() { free_device(data_); }

  void reserve(size_t bytes);  // at least; what was there is lost when it grows
  void reserve_more(
      size_t
          bytes);  // the same, and when it grows, room for twice as much: for what grows by and by
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

// Small host arrays go through pinned memory, in turn, so that a copy is only enqueued. A slot is reused when its
// copy has ended.
class Staging {
 public:
  Staging() = default;
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;
  ~Staging();

  void copy(void* device, const void* host, size_t bytes, Stream stream);

 private:
  struct Slot {
    void* pinned = nullptr;
    size_t bytes = 0;
    CUevent_st* copied = nullptr;
  };
  static constexpr size_t kSlots = 32;
  static constexpr size_t kMostBytes = size_t{1} << 20;  // larger ones go directly, and wait

  Slot slots_[kSlots];
  size_t next_ = 0;
};

}  // namespace atom::backend::cuda
