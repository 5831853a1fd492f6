// The metadata of a GGUF file by kinds.
#include <fmt/format.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "checkpoint/gguf.h"
#include "text/unicode.h"

namespace atom::checkpoint {
namespace {

std::string quoted_key(std::string_view name) {
  return Json(std::string(name.substr(0, 80))).dump(-1, ' ', true, Json::error_handler_t::replace);
}

template <typename T>
T element_at(std::span<const std::byte> bytes, size_t index) {
  T value;
  std::memcpy(&value, bytes.data() + index * sizeof value, sizeof value);
  return value;
}

// 1e-05 as f32 is 9.99999974737875e-06; files in text say the former.
double shortest(float value) { return std::strtod(fmt::format("{}", value).c_str(), nullptr); }

}  // namespace

void GgufFile::refuse_key(std::string_view key, std::string_view rule) const {
  fail("{}: key {}: {}", path_.string(), quoted_key(key), rule);
}

void GgufFile::refuse_tensor(std::string_view name, std::string_view rule) const {
  fail("{}: tensor {}: {}", path_.string(), quoted_key(name), rule);
}

const GgufFile::Value* GgufFile::value(std::string_view key) const {
  const auto found = values_.find(key);
  return found == values_.end() ? nullptr : &found->second;
}

std::optional<int64_t> GgufFile::integer(std::string_view key, GgufRange range) const {
  const Value* found = value(key);
  if (found == nullptr) return std::nullopt;
  int64_t out = 0;
  const auto take = [&](auto number) {
    if (!std::in_range<int64_t>(number))
      refuse_key(key, fmt::format("it must be below 2^63, but is {}", number));
    out = static_cast<int64_t>(number);
  };
  switch (found->kind) {
    case 0:
      take(element_at<uint8_t>(found->bytes, 0));
      break;
    case 1:
      take(element_at<int8_t>(found->bytes, 0));
      break;
    case 2:
      take(element_at<uint16_t>(found->bytes, 0));
      break;
    case 3:
      take(element_at<int16_t>(found->bytes, 0));
      break;
    case 4:
      take(element_at<uint32_t>(found->bytes, 0));
      break;
    case 5:
      take(element_at<int32_t>(found->bytes, 0));
      break;
    case 10:
      take(element_at<uint64_t>(found->bytes, 0));
      break;
    case 11:
      take(element_at<int64_t>(found->bytes, 0));
      break;
    default:
      refuse_key(key, fmt::format("it must be an integer, but has the kind {}", found->kind));
  }
  if (out < range.min || out > range.max)
    refuse_key(key, fmt::format("it must be in [{}, {}], but is {}", range.min, range.max, out));
  return out;
}

std::optional<double> GgufFile::plain(std::string_view key, const Value& found,
                                      size_t index) const {
  const uint32_t kind = static_cast<Kind>(found.kind) == Kind::kArray ? found.element : found.kind;
  double out = 0;
  switch (kind) {
    case 0:
      out = element_at<uint8_t>(found.bytes, index);
      break;
    case 1:
      out = element_at<int8_t>(found.bytes, index);
      break;
    case 2:
      out = element_at<uint16_t>(found.bytes, index);
      break;
    case 3:
      out = element_at<int16_t>(found.bytes, index);
      break;
    case 4:
      out = element_at<uint32_t>(found.bytes, index);
      break;
    case 5:
      out = element_at<int32_t>(found.bytes, index);
      break;
    case 6:
      out = element_at<float>(found.bytes, index);
      break;
    case 10:
      out = static_cast<double>(element_at<uint64_t>(found.bytes, index));
      break;
    case 11:
      out = static_cast<double>(element_at<int64_t>(found.bytes, index));
      break;
    case 12:
      out = element_at<double>(found.bytes, index);
      break;
    default:
      return std::nullopt;
  }
  if (!std::isfinite(out)) refuse_key(key, fmt::format("it must be finite, but is {}", out));
  return kind == 6 ? shortest(static_cast<float>(out)) : out;
}

std::optional<double> GgufFile::number(std::string_view key) const {
  const Value* found = value(key);
  if (found == nullptr) return std::nullopt;
  const auto out =
      static_cast<Kind>(found->kind) == Kind::kArray ? std::nullopt : plain(key, *found, 0);
  if (!out) refuse_key(key, fmt::format("it must be a number, but has the kind {}", found->kind));
  return out;
}

std::optional<std::vector<double>> GgufFile::numbers(std::string_view key) const {
  const Value* found = value(key);
  if (found == nullptr) return std::nullopt;
  std::vector<double> out;
  const bool is_array = static_cast<Kind>(found->kind) == Kind::kArray;
  const auto element = static_cast<Kind>(found->element);
  if (!is_array || element == Kind::kString || element == Kind::kBool)
    refuse_key(key, "it must be an array of numbers");
  out.reserve(found->count);
  for (size_t i = 0; i < found->count; ++i) out.push_back(plain(key, *found, i).value());
  return out;
}

std::optional<bool> GgufFile::boolean(std::string_view key) const {
  const Value* found = value(key);
  if (found == nullptr) return std::nullopt;
  if (static_cast<Kind>(found->kind) != Kind::kBool)
    refuse_key(key, fmt::format("it must be a boolean, but has the kind {}", found->kind));
  return std::to_integer<int>(found->bytes[0]) == 1;
}

std::optional<std::string_view> GgufFile::text(std::string_view key) const {
  const Value* found = value(key);
  if (found == nullptr) return std::nullopt;
  if (static_cast<Kind>(found->kind) != Kind::kString)
    refuse_key(key, fmt::format("it must be a string, but has the kind {}", found->kind));
  const std::string_view out(reinterpret_cast<const char*>(found->bytes.data()),
                             found->bytes.size());
  if (!text::is_valid_utf8(out)) refuse_key(key, "it must be UTF-8");
  return out;
}

std::optional<std::vector<std::string_view>> GgufFile::texts(std::string_view key) const {
  const Value* found = value(key);
  if (found == nullptr) return std::nullopt;
  if (static_cast<Kind>(found->kind) != Kind::kArray ||
      static_cast<Kind>(found->element) != Kind::kString)
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
  if (static_cast<Kind>(found->kind) != Kind::kArray || found->element > 1)
    refuse_key(key, "it must be an array of 8-bit integers");
  return std::string_view(reinterpret_cast<const char*>(found->bytes.data()), found->bytes.size());
}

}  // namespace atom::checkpoint
