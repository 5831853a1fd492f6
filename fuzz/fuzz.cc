#include "fuzz/fuzz.h"

#include <sys/mman.h>
#include <unistd.h>

namespace atom::fuzz {

MemoryFile::MemoryFile(std::string_view bytes)
    : descriptor_(::memfd_create("fuzz", MFD_CLOEXEC)),
      path_(fmt::format("/proc/self/fd/{}", descriptor_)) {
  check(descriptor_ >= 0, "no file in memory can be made");
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
    check(written > 0, "a file in memory cannot be written");
    bytes.remove_prefix(static_cast<size_t>(written));
  }
}

MemoryFile::~MemoryFile() { ::close(descriptor_); }

std::string safetensors_of(std::string_view header, size_t data_bytes) {
  std::string file;
  for (int i = 0; i < 8; ++i) file += static_cast<char>(header.size() >> (8 * i) & 0xff);
  file += header;
  file.append(data_bytes, '\0');
  return file;
}

}  // namespace atom::fuzz
