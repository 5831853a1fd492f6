#include "backend/backend.h"

#include <utility>

namespace atom::backend {

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(backend_, other.backend_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

Buffer::~Buffer() {
  if (data_ != nullptr) backend_->free_bytes(data_, bytes_);
}

Buffer Backend::allocate(size_t bytes) { return {this, allocate_bytes(bytes), bytes}; }

}  // namespace atom::backend
