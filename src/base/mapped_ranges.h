// Which file is mapped at an address, for a handler of SIGBUS: reading a mapped file that another process has cut raises it.
//
//   const MappedRange range(data, size, path);               // MappedFile has one; on the list while it lives
//   const char* path = mapped_file_at(info->si_addr);        // in a signal handler, too
//
// The list has a fixed number of places and no lock. A range that finds no place is not on it.
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

namespace atom {

inline constexpr size_t kMostMappedRanges = 4096;

class MappedRange {
 public:
  MappedRange() = default;
  MappedRange(const void* data, size_t size, std::string_view path);
  ~MappedRange();
  MappedRange(MappedRange&& other) noexcept;
  MappedRange& operator=(MappedRange&& other) noexcept;
  MappedRange(const MappedRange&) = delete;
  MappedRange& operator=(const MappedRange&) = delete;

 private:
  static constexpr size_t kNone = kMostMappedRanges;
  size_t place_ = kNone;
  std::unique_ptr<char[]> path_;  // ends with a NUL; stays where it is when the range moves
};

// The path of the file, valid while its range lives; null: no mapped file. Async-signal-safe.
const char* mapped_file_at(const void* address) noexcept;

}  // namespace atom
