// The CUDA runtime as this backend uses it: errors as sentences, memory, and host arrays on their way to the device.
//
//   require(launch_gate(task, stream), "gate");
//   DeviceMemory scratch;  scratch.reserve(bytes);
//   staging.copy(device, host, bytes, stream);   // `host` may change at once, nothing waits
//   staging.add(a, host_a, 512, stream), staging.add(b, host_b, 64, stream), staging.send(stream);
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backend/cuda/tasks.h"

struct CUevent_st;

namespace atom::backend::cuda {

// Throws Error "cuda: <what>: <the runtime's words>" when status is not 0.
void require(Status status, std::string_view what);
std::string words(Status status);  // the runtime's

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

std::string toolkit_version();  // "12.4", of CUDA, that this was built with
std::string driver_version();   // up to which the driver serves

// Error: how much was asked for, how much is free.
void* allocate_device(size_t bytes);
void free_device(void* data);             // waits for the device
bool is_device_memory(const void* data);  // of allocate_device()
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

// Owns pinned host memory, which kernels may read and write.
class PinnedMemory {
 public:
  explicit PinnedMemory(size_t bytes);
  PinnedMemory(const PinnedMemory&) = delete;
  PinnedMemory& operator=(const PinnedMemory&) = delete;
  ~PinnedMemory();
  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
};

// Marks a place in a stream, which the host can wait for.
class StreamMark {
 public:
  StreamMark();
  StreamMark(const StreamMark&) = delete;
  StreamMark& operator=(const StreamMark&) = delete;
  ~StreamMark();
  void record(Stream stream);
  bool reached() const;  // true before the first record()
  void wait() const;     // Error: of a kernel before it

 private:
  CUevent_st* event_ = nullptr;
};

// Small host arrays go through pinned memory, in turn, so that a copy is only enqueued. A slot is reused when its
// copies have ended.
class Staging {
 public:
  Staging() = default;
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  void copy(void* device, const void* host, size_t bytes, Stream stream);
  // Several arrays at once. `device` is a multiple of 16. Enqueued by one of the next two at the latest; drop() forgets what
  // was not.
  void add(void* device, const void* host, size_t bytes, Stream stream);
  // By one launch of a kernel: before a graph it takes less time than the copy engine.
  void send_by_kernel(Stream stream);
  // By the copy engine: a kernel that begins before the one before it has ended finds them all the same.
  void send(Stream stream);
  void drop() { copies_.count = 0; }

 private:
  struct Slot {
    std::unique_ptr<PinnedMemory> pinned;
    size_t bytes = 0;
    std::unique_ptr<StreamMark> copied;
  };
  static constexpr size_t kSlots = 32;
  static constexpr size_t kLeastBytes = size_t{1} << 16;
  static constexpr size_t kMostBytes = size_t{1} << 20;  // larger ones go directly, and wait
  Slot& free_slot(size_t bytes);
  void end_sending(Stream stream, Status status);
  char* pinned() { return static_cast<char*>(slots_[next_].pinned->data()); }

  Slot slots_[kSlots];
  size_t next_ = 0;
  CopyTask copies_;  // added and not sent; from slots_[next_]
  size_t used_ = 0;  // bytes of it
};

}  // namespace atom::backend::cuda
