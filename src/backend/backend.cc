#include "backend/backend.h"

#include <utility>

namespace atom::backend {
namespace {

class RepeatedCalls final : public Recording {
 public:
  explicit RepeatedCalls(StepFunction step) : step_(std::move(step)) {}
  void run(std::span<const SequenceStep> sequences) override { step_(sequences); }

 private:
  StepFunction step_;
};

}  // namespace

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

std::unique_ptr<Recording> Backend::record(StepFunction step) {
  return std::make_unique<RepeatedCalls>(std::move(step));
}

}  // namespace atom::backend
