#include "checkpoint/gguf_writer.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "format/float16.h"

namespace atom::checkpoint {
namespace {

constexpr uint32_t kVersion = 3;
constexpr uint64_t kDataAlignment = 32;  // where the file says nothing else
constexpr size_t kMostNameBytes = 63;    // llama.cpp keeps a zero behind them

static_assert(std::endian::native == std::endian::little);

template <typename T>
void append_number(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void append_text(std::string& out, std::string_view text) {
  append_number(out, uint64_t{text.size()});
  out += text;
}

uint64_t aligned(uint64_t size) {
  return (size + kDataAlignment - 1) / kDataAlignment * kDataAlignment;
}

std::string header_of(const GgufKeys& keys, const std::vector<GgufTensorInfo>& tensors) {
  std::string out = "GGUF";
  append_number(out, kVersion);
  append_number(out, uint64_t{tensors.size()});
  append_number(out, keys.count());
  out += keys.bytes();
  uint64_t offset = 0;
  for (const GgufTensorInfo& info : tensors) {
    append_text(out, info.name);
    append_number(out, static_cast<uint32_t>(info.shape.rank()));
    for (int axis = info.shape.rank(); axis-- > 0;)
      append_number(out, static_cast<uint64_t>(info.shape[axis]));
    append_number(out, info.type->number);
    append_number(out, offset);
    offset += aligned(gguf_bytes(*info.type, info.shape));
  }
  out.resize(aligned(out.size()));
  return out;
}

void check_names(const std::filesystem::path& path, const std::vector<GgufTensorInfo>& tensors) {
  std::vector<std::string_view> names;
  for (const GgufTensorInfo& info : tensors) {
    if (info.name.size() > kMostNameBytes)
      fail("{}: tensor {}: the name must have at most {} bytes, but has {}", path.string(),
           gguf_quoted(info.name), kMostNameBytes, info.name.size());
    names.push_back(info.name);
  }
  std::sort(names.begin(), names.end());
  check(std::adjacent_find(names.begin(), names.end()) == names.end(), "a tensor twice");
}

// 32 values as an f16 scale and codes. False: the scale exceeds f16.
bool encode_q8_0(const float* values, std::byte* out) {
  float largest = 0;
  for (int i = 0; i < 32; ++i) largest = std::max(largest, std::abs(values[i]));
  const float scale = largest / 127.0F;
  float inverse = scale == 0 ? 0.0F : 1.0F / scale;
  if (std::isinf(inverse)) inverse = 0;  // the f16 scale is zero, too
  const uint16_t half = format::f32_to_f16(scale);
  std::memcpy(out, &half, sizeof half);
  for (int i = 0; i < 32; ++i)
    out[2 + i] = static_cast<std::byte>(static_cast<int8_t>(std::round(values[i] * inverse)));
  return std::isfinite(format::f16_to_f32(half));
}

}  // namespace

void GgufKeys::begin(std::string_view key, GgufKind kind) {
  check(std::find(names_.begin(), names_.end(), key) == names_.end(), "a key twice");
  names_.emplace_back(key);
  append_text(bytes_, key);
  append_number(bytes_, static_cast<uint32_t>(kind));
}

void GgufKeys::begin_array(std::string_view key, GgufKind element, size_t count) {
  begin(key, GgufKind::kArray);
  append_number(bytes_, static_cast<uint32_t>(element));
  append_number(bytes_, uint64_t{count});
}

void GgufKeys::text(std::string_view key, std::string_view value) {
  begin(key, GgufKind::kString);
  append_text(bytes_, value);
}

void GgufKeys::u32(std::string_view key, uint32_t value) {
  begin(key, GgufKind::kU32);
  append_number(bytes_, value);
}

void GgufKeys::f32(std::string_view key, float value) {
  begin(key, GgufKind::kF32);
  append_number(bytes_, value);
}

void GgufKeys::boolean(std::string_view key, bool value) {
  begin(key, GgufKind::kBool);
  append_number(bytes_, static_cast<uint8_t>(value ? 1 : 0));
}

void GgufKeys::texts(std::string_view key, std::span<const std::string> values) {
  begin_array(key, GgufKind::kString, values.size());
  for (const std::string& value : values) append_text(bytes_, value);
}

void GgufKeys::f32s(std::string_view key, std::span<const float> values) {
  begin_array(key, GgufKind::kF32, values.size());
  for (const float value : values) append_number(bytes_, value);
}

void GgufKeys::i32s(std::string_view key, std::span<const int32_t> values) {
  begin_array(key, GgufKind::kI32, values.size());
  for (const int32_t value : values) append_number(bytes_, value);
}

uint64_t gguf_bytes(const GgufType& type, const tensor::Shape& shape) {
  check(shape.rank() > 0 && shape[shape.rank() - 1] % type.block == 0, "rows of whole blocks");
  return static_cast<uint64_t>(shape.elements()) / type.block * type.bytes;
}

GgufWriter::GgufWriter(std::filesystem::path path, const GgufKeys& keys,
                       std::vector<GgufTensorInfo> tensors)
    : tensors_(std::move(tensors)), file_(path) {
  check_names(path, tensors_);
  const std::string header = header_of(keys, tensors_);
  planned_size_ = header.size();
  for (const GgufTensorInfo& info : tensors_)
    planned_size_ += aligned(gguf_bytes(*info.type, info.shape));
  file_.write(std::as_bytes(std::span(header)));
}

void GgufWriter::write(std::string_view name, std::span<const std::byte> bytes) {
  check(next_ < tensors_.size() && tensors_[next_].name == name, "tensors in the list's order");
  const uint64_t size = gguf_bytes(*tensors_[next_].type, tensors_[next_].shape);
  check(bytes.size() <= size - written_, "no more bytes than the tensor has");
  file_.write(bytes);
  written_ += bytes.size();
  if (written_ < size) return;
  pad();
  written_ = 0;
  ++next_;
}

void GgufWriter::pad() {
  const std::string zeros(aligned(written_) - written_, '\0');
  file_.write(std::as_bytes(std::span(zeros)));
}

void GgufWriter::commit() {
  check(next_ == tensors_.size() && written_ == 0, "every tensor is written");
  file_.commit();
}

std::optional<float> encode_gguf(const GgufType& type, std::span<const float> values,
                                 std::span<std::byte> out) {
  check(values.size() % type.block == 0 && out.size() == values.size() / type.block * type.bytes,
        "the size of encoded values");
  if (type.name == "F32") {
    std::memcpy(out.data(), values.data(), out.size());
    return std::nullopt;
  }
  if (type.name == "Q8_0") {
    std::optional<float> beyond;
    for (size_t block = 0; block * 32 < values.size(); ++block)
      if (!encode_q8_0(values.data() + block * 32, out.data() + block * 34) && !beyond)
        beyond = *std::max_element(values.begin() + static_cast<ptrdiff_t>(block * 32),
                                   values.begin() + static_cast<ptrdiff_t>(block * 32 + 32),
                                   [](float a, float b) { return std::abs(a) < std::abs(b); });
    return beyond;
  }
  check(type.name == "F16" || type.name == "BF16", "a type that can be written");
  const bool half = type.name == "F16";
  std::optional<float> beyond;
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t bits = half ? format::f32_to_f16(values[i]) : format::f32_to_bf16(values[i]);
    const float back = half ? format::f16_to_f32(bits) : format::bf16_to_f32(bits);
    if (!std::isfinite(back) && !beyond) beyond = values[i];
    std::memcpy(out.data() + 2 * i, &bits, sizeof bits);
  }
  return beyond;
}

}  // namespace atom::checkpoint
