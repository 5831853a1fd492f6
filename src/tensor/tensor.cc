#include "tensor/tensor.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "base/error.h"
#include "format/float16.h"

namespace atom::tensor {
namespace {

constexpr std::align_val_t kAlignment{64};

struct DTypeRow {
  DType dtype;
  std::string_view name;
  size_t size;
};

constexpr std::array<DTypeRow, 8> kDTypes = {{{DType::F32, "F32", 4},
                                              {DType::F16, "F16", 2},
                                              {DType::BF16, "BF16", 2},
                                              {DType::I8, "I8", 1},
                                              {DType::U8, "U8", 1},
                                              {DType::I32, "I32", 4},
                                              {DType::I64, "I64", 8},
                                              {DType::F8_E4M3, "F8_E4M3", 1}}};

const DTypeRow& row_of(DType dtype) {
  const auto index = static_cast<size_t>(dtype);
  check(index < kDTypes.size() && kDTypes[index].dtype == dtype, "unknown dtype");
  return kDTypes[index];
}

template <typename Convert>
void widen_bits(std::span<const std::byte> bytes, std::span<float> out, const Convert& convert) {
  for (size_t i = 0; i < out.size(); ++i) {
    uint16_t bits;
    std::memcpy(&bits, bytes.data() + 2 * i, sizeof bits);
    out[i] = convert(bits);
  }
}

}  // namespace

size_t dtype_size(DType dtype) { return row_of(dtype).size; }

std::string_view dtype_name(DType dtype) { return row_of(dtype).name; }

std::optional<DType> dtype_from_name(std::string_view name) {
  for (const DTypeRow& row : kDTypes)
    if (row.name == name) return row.dtype;
  return std::nullopt;
}

Shape::Shape(std::span<const int64_t> dims) {
  if (dims.size() > kMaxRank)
    fail("a tensor has at most {} dimensions, not {}", kMaxRank, dims.size());
  bool is_empty = false;
  int64_t elements = 1;
  for (const int64_t dim : dims) {
    if (dim < 0) fail("a dimension must not be negative, but is {}", dim);
    // Zeros are set aside: the product of the others must fit whatever their order.
    if (dim == 0)
      is_empty = true;
    else if (__builtin_mul_overflow(elements, dim, &elements))
      fail("the element count of a tensor exceeds 64 bits at the dimension {}", dim);
    dims_[static_cast<size_t>(rank_++)] = dim;
  }
  elements_ = is_empty ? 0 : elements;
}

int64_t Shape::operator[](int axis) const {
  check(axis >= 0 && axis < rank_, "axis outside the rank of the shape");
  return dims_[static_cast<size_t>(axis)];
}

std::string Shape::to_string() const { return fmt::format("[{}]", fmt::join(dims(), ", ")); }

size_t byte_size(DType dtype, const Shape& shape) {
  int64_t bytes = 0;
  if (__builtin_mul_overflow(shape.elements(), static_cast<int64_t>(dtype_size(dtype)), &bytes))
    fail("a {} tensor of shape {} exceeds 64 bits of bytes", dtype_name(dtype), shape.to_string());
  return static_cast<size_t>(bytes);
}

bool is_readable_as(DType dtype, std::type_identity<float>) { return dtype == DType::F32; }
bool is_readable_as(DType dtype, std::type_identity<uint16_t>) {
  return dtype == DType::F16 || dtype == DType::BF16;
}
bool is_readable_as(DType dtype, std::type_identity<int8_t>) { return dtype == DType::I8; }
bool is_readable_as(DType dtype, std::type_identity<uint8_t>) { return dtype == DType::U8; }
bool is_readable_as(DType dtype, std::type_identity<int32_t>) { return dtype == DType::I32; }
bool is_readable_as(DType dtype, std::type_identity<int64_t>) { return dtype == DType::I64; }

void check_access(DType dtype, bool matches, const void* data, size_t alignment) {
  if (!matches) [[unlikely]]
    invariant_failed(fmt::format("a {} tensor read as another type", dtype_name(dtype)),
                     std::source_location::current());
  if (reinterpret_cast<uintptr_t>(data) % alignment != 0) [[unlikely]]
    fail("a {} tensor of the file lies at an address that is no multiple of {}", dtype_name(dtype),
         alignment);
}

HostTensor::HostTensor(DType dtype, Shape shape)
    : dtype_(dtype), shape_(shape), size_(byte_size(dtype, shape)) {
  // At least one byte, so that an empty tensor too has an address.
  bytes_.reset(static_cast<std::byte*>(::operator new(std::max<size_t>(size_, 1), kAlignment)));
  std::memset(bytes_.get(), 0, size_);
}

HostTensor::HostTensor(const TensorView& copied) : HostTensor(copied.dtype, copied.shape) {
  check(copied.bytes.size() == size_, "tensor bytes differ from the shape");
  if (size_ > 0) std::memcpy(bytes_.get(), copied.bytes.data(), size_);
}

void HostTensor::Free::operator()(std::byte* bytes) const { ::operator delete(bytes, kAlignment); }

bool is_floating(DType dtype) {
  return dtype == DType::F32 || dtype == DType::F16 || dtype == DType::BF16;
}

std::vector<float> widen(const TensorView& view) {
  std::vector<float> values(static_cast<size_t>(view.elements()));
  widen(view, values);
  return values;
}

void widen(const TensorView& view, std::span<float> out) {
  if (!is_floating(view.dtype))
    fail("a tensor of real numbers must be F32, F16 or BF16, but is {}", dtype_name(view.dtype));
  check(view.bytes.size() == byte_size(view.dtype, view.shape) &&
            out.size() == static_cast<size_t>(view.elements()),
        "widen: sizes differ");
  if (out.empty()) return;
  if (view.dtype == DType::F32)
    std::memcpy(out.data(), view.bytes.data(), view.bytes.size());
  else if (view.dtype == DType::F16)
    widen_bits(view.bytes, out, format::f16_to_f32);
  else
    widen_bits(view.bytes, out, format::bf16_to_f32);
}

}  // namespace atom::tensor
