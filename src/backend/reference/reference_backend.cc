#include "backend/reference/reference_backend.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "backend/open.h"
#include "backend/reference/activation.h"
#include "base/error.h"

namespace atom::backend {
namespace {

constexpr std::align_val_t kAlignment{64};

}  // namespace

std::unique_ptr<Backend> make_reference_backend() { return std::make_unique<ReferenceBackend>(); }

void* ReferenceBackend::allocate_bytes(size_t bytes) {
  void* data = ::operator new(std::max<size_t>(bytes, 1), kAlignment, std::nothrow);
  if (data == nullptr)
    fail("the host has not the {} bytes that the reference backend asks for", bytes);
  return data;
}

void ReferenceBackend::free_bytes(void* data, size_t) { ::operator delete(data, kAlignment); }

void ReferenceBackend::upload(void* device, const void* host, size_t bytes) {
  if (bytes > 0) std::memcpy(device, host, bytes);
}

void ReferenceBackend::download(void* host, const void* device, size_t bytes) {
  if (bytes > 0) std::memcpy(host, device, bytes);
}

size_t ReferenceBackend::activation_bytes(const InputSpec& spec, int rows) const {
  return activation_row_bytes(spec.segments) * static_cast<size_t>(rows);
}

void ReferenceBackend::dequantize(const Activation& x, float* y) {
  const size_t k = static_cast<size_t>(x.spec->k());
  for (int row = 0; row < x.rows; ++row)
    dequantize_row(x, row, {y + static_cast<size_t>(row) * k, k});
}

void ReferenceBackend::export_codes(const Activation& x, int8_t* codes, float* scales) {
  const size_t k = static_cast<size_t>(x.spec->k());
  const size_t groups = static_cast<size_t>(format::groups(x.spec->segments));
  for (int row = 0; row < x.rows; ++row) {
    const ActivationRow r = row_of(x, row);
    std::copy_n(r.codes, k, codes + static_cast<size_t>(row) * k);
    std::copy_n(r.scales, groups, scales + static_cast<size_t>(row) * groups);
  }
}

void ReferenceBackend::count_saturated(const Activation& x, uint64_t* count) {
  for (int row = 0; row < x.rows; ++row) *count += static_cast<uint64_t>(saturated_in_row(x, row));
}

}  // namespace atom::backend
