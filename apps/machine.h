// What the kernel tells about this machine, and the memory a process may still take.
//
//   const std::optional<int64_t> bytes = available_memory();   // none: the kernel does not tell
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace atom::app {

// A small text file of the kernel, "" when it cannot be read.
std::string kernel_text(const std::filesystem::path& path);
std::string first_line(std::string text);

// Value of the first line "key<blanks>: value", "" when there is none.
std::string kernel_field(const std::string& text, std::string_view key);
int64_t kib_field(const std::string& text, std::string_view key);  // in bytes; 0: none

// Bytes: MemAvailable of /proc/meminfo, or the limit of the control groups (memory.max of version 2,
// from the own group up; memory.limit_in_bytes of version 1) when that is less.
std::optional<int64_t> available_memory();

}  // namespace atom::app
