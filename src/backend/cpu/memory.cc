#include "backend/cpu/memory.h"

#include <cstdlib>
#include <utility>

#include "base/error.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace atom::backend::cpu {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

}  // namespace

void* allocate_memory(size_t bytes) {
  const size_t alignment = bytes >= 2 * kHugePage ? kHugePage : kAlignment;
  if (bytes > SIZE_MAX / 2) fail("cannot allocate {} bytes", bytes);
  const size_t rounded = (bytes / alignment + (bytes % alignment != 0 || bytes == 0)) * alignment;
  void* data = std::aligned_alloc(alignment, rounded);
  if (data == nullptr) fail("the machine has no {} bytes of memory left", bytes);
#if defined(__linux__)
  if (alignment == kHugePage) madvise(data, rounded, MADV_HUGEPAGE);  // a wish: refusal is fine
#endif
  return data;
}

void free_memory(void* data) { std::free(data); }

Memory& Memory::operator=(Memory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

void Memory::reserve(size_t bytes) {
  if (bytes > bytes_) *this = Memory(bytes);
}

}  // namespace atom::backend::cpu
