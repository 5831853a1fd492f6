// Aligned host memory.
//
//   Memory panels(bytes);        // not cleared
//   panels.as<float>();
#pragma once

#include <cstddef>

namespace atom::backend::cpu {

inline constexpr size_t kAlignment = 64;

// 64-byte aligned; from 4 MiB on aligned to huge pages, which the system is asked to use. Error:
// not enough.
void* allocate_memory(size_t bytes);
void free_memory(void* data);

// Owns one allocation. Movable.
class Memory {
 public:
  Memory() = default;
  explicit Memory(size_t bytes) : data_(allocate_memory(bytes)), bytes_(bytes) {}
  Memory(Memory&& other) noexcept { *this = static_cast<Memory&&>(other); }
  Memory& operator=(Memory&& other) noexcept;
  ~Memory() { free_memory(data_); }

  // At least `bytes`; what it held is lost when it grows.
  void reserve(size_t bytes);

  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace atom::backend::cpu
