// Tensors in host memory: element type, shape, and bytes that somebody owns.
//
//   const TensorView view = file.find("model.norm.weight").value();   // borrows the file's bytes
//   std::span<const uint16_t> bits = view.as<uint16_t>();             // dtype-checked
//   std::vector<float> values = widen(view);                          // F32, F16 or BF16 -> float
//   HostTensor scratch(DType::F32, {rows, cols});                     // owns zeroed bytes
//
// Layout is always dense and row-major: the last dimension is contiguous. A TensorView is valid
// while the memory it names lives (the map of a file, a HostTensor).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace atom::tensor {

enum class DType { F32, F16, BF16, I8, U8, I32, I64, F8_E4M3 };  // NOLINT: safetensors' own words

size_t dtype_size(DType dtype);            // bytes per element
std::string_view dtype_name(DType dtype);  // as safetensors spells it: "F32", "BF16", ...
std::optional<DType> dtype_from_name(std::string_view name);

// Dimensions, each >= 0, at most kMaxRank of them; a scalar has none. The element count fits
// int64_t.
class Shape {
 public:
  static constexpr int kMaxRank = 8;

  Shape() = default;
  Shape(std::initializer_list<int64_t> dims) : Shape(std::span(dims.begin(), dims.size())) {}
  // Error: more than kMaxRank dimensions, a negative one, or an element count beyond int64_t.
  explicit Shape(std::span<const int64_t> dims);

  int rank() const { return rank_; }
  int64_t operator[](int axis) const;  // axis in [0, rank())
  std::span<const int64_t> dims() const { return {dims_.data(), static_cast<size_t>(rank_)}; }
  int64_t elements() const { return elements_; }  // 1 for a scalar, 0 when a dimension is 0
  std::string to_string() const;                  // "[2, 3]"

  friend bool operator==(const Shape& a, const Shape& b) {
    return a.rank_ == b.rank_ && a.dims_ == b.dims_;
  }

 private:
  std::array<int64_t, kMaxRank> dims_ = {};
  int rank_ = 0;
  int64_t elements_ = 1;
};

// Bytes of a dense tensor. Error: more than SIZE_MAX / 2.
size_t byte_size(DType dtype, const Shape& shape);

// Which C++ types may read which dtype; F16 and BF16 are read as their bits, uint16_t.
bool is_readable_as(DType dtype, std::type_identity<float>);
bool is_readable_as(DType dtype, std::type_identity<uint16_t>);
bool is_readable_as(DType dtype, std::type_identity<int8_t>);
bool is_readable_as(DType dtype, std::type_identity<uint8_t>);
bool is_readable_as(DType dtype, std::type_identity<int32_t>);
bool is_readable_as(DType dtype, std::type_identity<int64_t>);

// The checks of TensorView::as and HostTensor::as. InvariantError: `matches` is false. Error: the
// address is not aligned for the type, which only the layout of a foreign file can bring about.
void check_access(DType dtype, bool matches, const void* data, size_t alignment);

struct TensorView {
  DType dtype = DType::F32;
  Shape shape;
  std::span<const std::byte> bytes;  // byte_size(dtype, shape) of them

  int64_t elements() const { return shape.elements(); }

  // The elements as T. InvariantError: dtype is not that of T. Error: the bytes are not aligned for
  // T (widen() and HostTensor(view) take any address).
  template <typename T>
  std::span<const T> as() const {
    check_access(dtype, is_readable_as(dtype, std::type_identity<T>()), bytes.data(), alignof(T));
    return {reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T)};
  }
};

// Owns zero-initialised bytes, aligned to 64. Move only.
class HostTensor {
 public:
  HostTensor() = default;
  HostTensor(DType dtype, Shape shape);
  explicit HostTensor(const TensorView& copied);

  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  int64_t elements() const { return bytes_ ? shape_.elements() : 0; }
  std::span<std::byte> bytes() { return {bytes_.get(), size_}; }
  std::span<const std::byte> bytes() const { return {bytes_.get(), size_}; }
  TensorView view() const { return {dtype_, shape_, bytes()}; }

  template <typename T>
  std::span<T> as() {
    check_access(dtype_, is_readable_as(dtype_, std::type_identity<T>()), bytes_.get(), alignof(T));
    return {reinterpret_cast<T*>(bytes_.get()), size_ / sizeof(T)};
  }
  template <typename T>
  std::span<const T> as() const {
    return view().as<T>();
  }

 private:
  struct Free {
    void operator()(std::byte* bytes) const;
  };
  DType dtype_ = DType::F32;
  Shape shape_;
  size_t size_ = 0;
  std::unique_ptr<std::byte[], Free> bytes_;
};

// True for the dtypes that widen() takes: F32, F16, BF16.
bool is_floating(DType dtype);

// Elements as float (exact: every F16 and BF16 value is a float). Bytes need no alignment. Error: a
// dtype that is not floating. The span version wants elements() places.
std::vector<float> widen(const TensorView& view);
void widen(const TensorView& view, std::span<float> out);

}  // namespace atom::tensor
