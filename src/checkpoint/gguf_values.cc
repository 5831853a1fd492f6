// The metadata of a GGUF file by kinds.
#include <fmt/format.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>

#include "base/error.h"
#include "checkpoint/gguf.h"
#include "text/unicode.h"

namespace atom::checkpoint {
namespace {

template <typename T>
T element_at(std::span<const std::byte> bytes, size_t index) {
  T value;
  std::memcpy(&value, bytes.data() + index * sizeof value, sizeof value);
  return value;
}

// Calls take(number) with element `index` in its own type. False: the kind is no number.
template <typename Take>
bool take_number(GgufKind kind, std::span<const std::byte> bytes, size_t index, Take take) {
  switch (kind) {
    case GgufKind::kU8:
      return take(element_at<uint8_t>(bytes, index)), true;
    case GgufKind::kI8:
      return take(element_at<int8_t>(bytes, index)), true;
    case GgufKind::kU16:
      return take(element_at<uint16_t>(bytes, index)), true;
    case GgufKind::kI16:
      return take(element_at<int16_t>(bytes, index)), true;
    case GgufKind::kU32:
      return take(element_at<uint32_t>(bytes, index)), true;
    case GgufKind::kI32:
      return take(element_at<int32_t>(bytes, index)), true;
    case GgufKind::kF32:
      return take(element_at<float>(bytes, index)), true;
    case GgufKind::kU64:
      return take(element_at<uint64_t>(bytes, index)), true;
    case GgufKind::kI64:
      return take(element_at<int64_t>(bytes, index)), true;
    case GgufKind::kF64:
      return take(element_at<double>(bytes, index)), true;
    default:
      return false;
  }
}

// 1e-05 as f32 is 9.99999974737875e-06; files in text say the former.
double shortest(float value) { return std::strtod(fmt::format("{}", value).c_str(), nullptr); }

}  // namespace

void GgufFile::refuse_key(std::string_view key, std::string_view rule) const {
  fail("{}: key {}: {}", path_.string(), gguf_quoted(key), rule);
}

void GgufFile::refuse_tensor(std::string_view name, std::string_view rule) const {
  fail("{}: tensor {}: {}", path_.string(), gguf_quoted(name), rule);
}

const GgufFile::Value* GgufFile::value(std::string_view key) const {
  const auto found = values_.find(key);
  return found == values_.end() ? nullptr : &found->second;
}

std::optional<int64_t> GgufFile::integer(std::string_view key, GgufRange range) const {
  const Value* found = value(key);
  if (found == nullptr) return std::nullopt;
  int64_t out = 0;
  bool whole = false;
  take_number(found->kind, found->bytes, 0, [&]<typename T>(T number) {
    if constexpr (std::is_integral_v<T>) {
      whole = true;
      if (!std::in_range<int64_t>(number))
        refuse_key(key, fmt::format("it must be below 2^63, but is {}", number));
      out = static_cast<int64_t>(number);
    }
  });
  if (!whole)
    refuse_key(key, fmt::format("it must be an integer, but is of the kind {}",
                                gguf_kind_name(found->kind)));
  if (out < range.min || out > range.max)
    refuse_key(key, fmt::format("it must be in [{}, {}], but is {}", range.min, range.max, out));
  return out;
}

std::optional<double> GgufFile::plain(std::string_view key, const Value& found,
                                      size_t index) const {
  const GgufKind kind = found.kind == GgufKind::kArray ? found.element : found.kind;
  double out = 0;
  if (!take_number(kind, found.bytes, index,
                   [&](auto number) { out = static_cast<double>(number); }))
    return std::nullopt;
  if (!std::isfinite(out)) refuse_key(key, fmt::format("it must be finite, but is {}", out));
  return kind == GgufKind::kF32 ? shortest(static_cast<float>(out)) : out;
}

std::optional<double> GgufFile::number(std::string_view key) const {
  const Value* found = value(key);
  if (found == nullptr) return std::nullopt;
  const auto out = found->kind == GgufKind::kArray ? std::nullopt : plain(key, *found, 0);
  if (!out)
    refuse_key(key, fmt::format("it must be a number, but is of the kind {}",
                                gguf_kind_name(found->kind)));
  return out;
}

std::optional<std::vector<double>> GgufFile::numbers(std::string_view key) const {
  const Value* found = value(key);
  if (found == nullptr) return std::nullopt;
  std::vector<double> out;
  const bool is_array = found->kind == GgufKind::kArray;
  const auto element = found->element;
  if (!is_array || element == GgufKind::kString || element == GgufKind::kBool)
    refuse_key(key, "it must be an array of numbers");
  out.reserve(found->count);
  for (size_t i = 0; i < found->count; ++i) out.push_back(plain(key, *found, i).value());
  return out;
}

std::optional<bool> GgufFile::boolean(std::string_view key) const {
  const Value* found = value(key);
  if (found == nullptr) return std::nullopt;
  if (found->kind != GgufKind::kBool)
    refuse_key(key, fmt::format("it must be a boolean, but is of the kind {}",
                                gguf_kind_name(found->kind)));
  return std::to_integer<int>(found->bytes[0]) == 1;
}

std::optional<std::string_view> GgufFile::text(std::string_view key) const {
  const Value* found = value(key);
  if (found == nullptr) return std::nullopt;
  if (found->kind != GgufKind::kString)
    refuse_key(key, fmt::format("it must be a string, but is of the kind {}",
                                gguf_kind_name(found->kind)));
  const std::string_view out(reinterpret_cast<const char*>(found->bytes.data()),
                             found->bytes.size());
  if (!text::is_valid_utf8(out)) refuse_key(key, "it must be UTF-8");
  return out;
}

std::optional<std::vector<std::string_view>> GgufFile::texts(std::string_view key) const {
  const Value* found = value(key);
  if (found == nullptr) return std::nullopt;
  if (found->kind != GgufKind::kArray || found->element != GgufKind::kString)
    refuse_key(key, "it must be an array of strings");
  std::vector<std::string_view> out;
  out.reserve(found->count);
  size_t at = 0;  // the constructor has walked the same way
  for (uint64_t i = 0; i < found->count; ++i) {
    uint64_t size = 0;
    std::memcpy(&size, found->bytes.data() + at, sizeof size);
    at += sizeof size;
    out.emplace_back(reinterpret_cast<const char*>(found->bytes.data()) + at, size);
    at += size;
    if (!text::is_valid_utf8(out.back()))
      refuse_key(key, fmt::format("its string {} must be UTF-8", i));
  }
  return out;
}

std::optional<std::string_view> GgufFile::bytes(std::string_view key) const {
  const Value* found = value(key);
  if (found == nullptr) return std::nullopt;
  if (found->kind != GgufKind::kArray ||
      (found->element != GgufKind::kU8 && found->element != GgufKind::kI8))
    refuse_key(key, "it must be an array of 8-bit integers");
  return std::string_view(reinterpret_cast<const char*>(found->bytes.data()), found->bytes.size());
}

}  // namespace atom::checkpoint
