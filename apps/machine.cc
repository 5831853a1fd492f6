#include "machine.h"

#include <algorithm>
#include <cstdlib>

#include "base/error.h"
#include "base/file.h"

namespace atom::app {
namespace {

namespace fs = std::filesystem;

// INT64_MAX when the file sets no limit.
int64_t limit_of(const fs::path& path) {
  const std::string text = kernel_text(path);
  if (text.empty() || text[0] < '0' || text[0] > '9') return INT64_MAX;
  return std::strtoll(text.c_str(), nullptr, 10);
}

}  // namespace

std::string kernel_text(const fs::path& path) {
  try {
    return read_file(path, 1 << 20);
  } catch (const Error&) {
    return "";
  }
}

std::string first_line(std::string text) {
  text.resize(std::min(text.find('\n'), text.size()));
  return text;
}

std::string kernel_field(const std::string& text, std::string_view key) {
  size_t at = text.find(key);
  if (at == std::string::npos) return "";
  at = text.find(':', at);
  if (at == std::string::npos) return "";
  const size_t begin = text.find_first_not_of(" \t", at + 1);
  const size_t end = text.find('\n', at);
  return begin == std::string::npos || begin > end ? "" : text.substr(begin, end - begin);
}

int64_t kib_field(const std::string& text, std::string_view key) {
  const std::string value = kernel_field(text, key);
  return value.empty() ? 0 : std::strtoll(value.c_str(), nullptr, 10) * 1024;
}

std::optional<int64_t> available_memory() {
  const fs::path mount = "/sys/fs/cgroup";
  int64_t bytes = kib_field(kernel_text("/proc/meminfo"), "MemAvailable");
  if (bytes == 0) bytes = INT64_MAX;
  bytes = std::min(bytes, limit_of(mount / "memory.max"));
  bytes = std::min(bytes, limit_of(mount / "memory/memory.limit_in_bytes"));
  const std::string groups = kernel_text("/proc/self/cgroup");
  if (const size_t at = groups.find("0::/"); at != std::string::npos) {
    fs::path group = first_line(groups.substr(at + 4));
    for (; !group.empty() && group.is_relative(); group = group.parent_path())
      bytes = std::min(bytes, limit_of(mount / group / "memory.max"));
  }
  return bytes == INT64_MAX ? std::nullopt : std::optional(bytes);
}

}  // namespace atom::app
