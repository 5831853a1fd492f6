// Files: whole-file reads, read-only maps, and writes that appear under their final name complete
// or not at all.
//
//   MappedFile file("model.safetensors");              // valid while `file` lives
//   write_file_atomically("config.json", bytes);       // temporary + fsync + rename + fsync of the
//   folder
//
// AtomicFile streams large output: write() appends to `<path>.partial-<pid>`; commit() makes it
// durable and renames it; a destructor without commit() removes the temporary file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/mapped_ranges.h"

namespace atom {

// Read-only map of a regular file. Error: missing, a directory, unreadable, empty maps are allowed. Where another process
// cuts the file, reading what is gone raises SIGBUS: mapped_file_at() knows the map.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  // Tells the kernel that the pages of [offset, offset + length) are not needed soon (drops them
  // from RSS).
  void release(size_t offset, size_t length) const;

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  MappedRange range_;
};

// Whole file as bytes. Error: missing, not a regular file, unreadable, larger than max_bytes.
std::string read_file(const std::filesystem::path& path, uint64_t max_bytes = UINT64_MAX);

class AtomicFile {
 public:
  // Opens the temporary file in the folder of `path`. Error: cannot be created.
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(
      std::span<const std::byte> bytes);  // Error: disk full, I/O error (names path and reason)
  void commit();                          // flush, fsync, rename, fsync of the folder

  // SHA-256 (FIPS 180-4) of everything written so far, lower-case hexadecimal; valid after
  // commit().
  std::string sha256() const;
  uint64_t size() const { return size_; }

 private:
  struct State;
  std::unique_ptr<State> state_;
  std::filesystem::path path_;
  uint64_t size_ = 0;
};

void write_file_atomically(const std::filesystem::path& path, std::string_view bytes);

// For tests of what a crash or a failing disk leaves behind. The hook hears of every step that changes a disk before it is
// taken: "write", "fsync", "rename", "fsync folder", "make folder", "remove". It returns 0, or the errno with which the
// step shall fail; or it ends the process. Null: none. Set it while no other thread uses files.
using FileHook = int (*)(std::string_view step, const std::filesystem::path& path);
void set_file_hook(FileHook hook);
// What the hook says of a step; for code that takes such steps itself.
int file_fault(std::string_view step, const std::filesystem::path& path);

// Makes earlier creations and renames in `folder` durable. Error: it cannot be opened or synced.
void sync_folder(const std::filesystem::path& folder);

}  // namespace atom
