#include "checkpoint/gguf.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "format/list.h"
#include "text/unicode.h"

namespace atom::checkpoint {
namespace {

using tensor::DType;

constexpr uint64_t kMaxKeyBytes = 65535;   // the format's own limit
constexpr uint64_t kMaxNameBytes = 64;     // the same
constexpr uint64_t kMaxAlignment = 65536;  // files have 32
constexpr uint32_t kMaxRank = 4;
constexpr std::array<std::string_view, 13> kKindNames = {
    "u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64"};
constexpr std::array<uint32_t, 13> kKindBytes = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

constexpr std::array kTypes = {GgufType{0, "F32", 1, 4, DType::F32},
                               GgufType{1, "F16", 1, 2, DType::F16},
                               GgufType{2, "Q4_0", 32, 18, DType::F32, true},
                               GgufType{3, "Q4_1", 32, 20, {}},
                               GgufType{6, "Q5_0", 32, 22, {}},
                               GgufType{7, "Q5_1", 32, 24, {}},
                               GgufType{8, "Q8_0", 32, 34, DType::F32, true},
                               GgufType{10, "Q2_K", 256, 84, {}},
                               GgufType{11, "Q3_K", 256, 110, {}},
                               GgufType{12, "Q4_K", 256, 144, {}},
                               GgufType{13, "Q5_K", 256, 176, {}},
                               GgufType{14, "Q6_K", 256, 210, {}},
                               GgufType{15, "Q8_K", 256, 292, {}},
                               GgufType{16, "IQ2_XXS", 256, 66, {}},
                               GgufType{17, "IQ2_XS", 256, 74, {}},
                               GgufType{18, "IQ3_XXS", 256, 98, {}},
                               GgufType{19, "IQ1_S", 256, 50, {}},
                               GgufType{20, "IQ4_NL", 32, 18, {}},
                               GgufType{21, "IQ3_S", 256, 110, {}},
                               GgufType{22, "IQ2_S", 256, 82, {}},
                               GgufType{23, "IQ4_XS", 256, 136, {}},
                               GgufType{24, "I8", 1, 1, {}},
                               GgufType{25, "I16", 1, 2, {}},
                               GgufType{26, "I32", 1, 4, {}},
                               GgufType{27, "I64", 1, 8, {}},
                               GgufType{28, "F64", 1, 8, {}},
                               GgufType{29, "IQ1_M", 256, 56, {}},
                               GgufType{30, "BF16", 1, 2, DType::BF16},
                               GgufType{34, "TQ1_0", 256, 54, {}},
                               GgufType{35, "TQ2_0", 256, 66, {}},
                               GgufType{39, "MXFP4", 32, 17, {}},
                               GgufType{40, "NVFP4", 64, 36, {}},
                               GgufType{41, "Q1_0", 128, 18, {}}};

const GgufType* type_of(uint32_t number) {
  for (const GgufType& type : kTypes)
    if (type.number == number) return &type;
  return nullptr;
}

bool is_printable(std::string_view name) {
  return std::all_of(name.begin(), name.end(), [](char c) { return c > ' ' && c <= '~'; });
}

template <typename T>
T little(const std::byte* at) {
  T value;
  static_assert(std::endian::native == std::endian::little);
  std::memcpy(&value, at, sizeof value);
  return value;
}

size_t bytes_of(GgufKind kind) { return kKindBytes.at(static_cast<size_t>(kind)); }

}  // namespace

std::string_view gguf_kind_name(GgufKind kind) { return kKindNames.at(static_cast<size_t>(kind)); }

const GgufType& gguf_type(std::string_view name) {
  const auto found = std::find_if(kTypes.begin(), kTypes.end(),
                                  [&](const GgufType& type) { return type.name == name; });
  check(found != kTypes.end(), "a type of the format");
  return *found;
}

std::string gguf_quoted(std::string_view name) {
  return Json(std::string(name.substr(0, 80))).dump(-1, ' ', true, Json::error_handler_t::replace);
}

// Walks the bytes in front of the tensors' data; every refusal of the format's rules is here.
struct GgufFile::Reader {
  const std::string file;
  const std::span<const std::byte> all;
  size_t at = 0;

  size_t left() const { return all.size() - at; }

  std::span<const std::byte> take(uint64_t size, std::string_view what) {
    if (size > left())
      fail("{}: {} at byte {} wants {} bytes, but the file has {} more", file, what, at, size,
           left());
    const auto out = all.subspan(at, static_cast<size_t>(size));
    at += static_cast<size_t>(size);
    return out;
  }

  template <typename T>
  T number(std::string_view what) {
    return little<T>(take(sizeof(T), what).data());
  }

  std::string_view string(std::string_view what) {
    const auto size = number<uint64_t>(what);
    const auto bytes = take(size, what);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  // How many follow, each of which takes at least `least` bytes.
  uint64_t count(std::string_view what, uint64_t least) {
    const auto value = number<uint64_t>(what);
    if (value > all.size() / least)
      fail("{}: the number of {} is {}, more than a file of {} bytes can hold", file, what, value,
           all.size());
    return value;
  }

  void check_name(std::string_view name, std::string_view what, uint64_t most) const {
    if (name.empty() || name.size() > most || !is_printable(name))
      fail("{}: {} must be 1 to {} printable ASCII characters, but has {}: {}", file, what, most,
           name.size(), gguf_quoted(name));
  }

  void magic() {
    const auto bytes = take(4, "the magic");
    if (std::memcmp(bytes.data(), "GGUF", 4) != 0)
      fail("{}: a GGUF file begins with \"GGUF\", but this one with {}", file,
           gguf_quoted({reinterpret_cast<const char*>(bytes.data()), 4}));
    const auto version = number<uint32_t>("the version");
    if (version != 2 && version != 3)
      fail("{}: the version must be 2 or 3, little-endian, but is {}", file, version);
  }

  GgufKind kind(std::string_view key, std::string_view what) {
    const auto number_of = number<uint32_t>(what);
    if (number_of >= kKindNames.size())
      fail("{}: key {}: {} must be in [0, {}], but is {}", file, gguf_quoted(key), what,
           kKindNames.size() - 1, number_of);
    return static_cast<GgufKind>(number_of);
  }

  void check_booleans(std::string_view key, std::span<const std::byte> bytes) const {
    for (const std::byte byte : bytes)
      if (std::to_integer<int>(byte) > 1)
        fail("{}: key {}: a boolean must be 0 or 1, but is {}", file, gguf_quoted(key),
             std::to_integer<int>(byte));
  }

  void array(std::string_view key, Value& out) {
    out.element = kind(key, "the kind of an array's elements");
    if (out.element == GgufKind::kArray)
      fail("{}: key {}: arrays of arrays are not supported", file, gguf_quoted(key));
    out.count = number<uint64_t>("the length of an array");
    const bool strings = out.element == GgufKind::kString;
    const uint64_t each = strings ? sizeof(uint64_t) : bytes_of(out.element);
    if (out.count > left() / each)
      fail("{}: key {}: the array has {} elements, but the file only {} more bytes", file,
           gguf_quoted(key), out.count, left());
    const size_t begin = at;
    if (strings) {
      for (uint64_t i = 0; i < out.count; ++i) string("a string of an array");
    } else {
      take(out.count * each, "an array");
    }
    out.bytes = all.subspan(begin, at - begin);
  }

  std::pair<std::string_view, Value> entry() {
    const std::string_view key = string("a key");
    check_name(key, "a key", kMaxKeyBytes);
    Value out;
    out.kind = kind(key, "the kind of the value");
    if (out.kind == GgufKind::kArray) {
      array(key, out);
    } else if (out.kind == GgufKind::kString) {
      out.bytes = std::as_bytes(std::span(string("a string")));
    } else {
      out.bytes = take(bytes_of(out.kind), "a value");
    }
    const bool flags = out.kind == GgufKind::kBool ||
                       (out.kind == GgufKind::kArray && out.element == GgufKind::kBool);
    if (flags) check_booleans(key, out.bytes);
    return {key, out};
  }

  [[noreturn]] void refuse(std::string_view name, std::string_view rule) const {
    fail("{}: tensor {}: {}", file, gguf_quoted(name), rule);
  }

  tensor::Shape shape(std::string_view name) {
    const auto rank = number<uint32_t>("the number of dimensions");
    if (rank < 1 || rank > kMaxRank)
      refuse(name, fmt::format("it must have 1 to {} dimensions, but has {}", kMaxRank, rank));
    std::vector<int64_t> dims(rank);
    for (uint32_t i = 0; i < rank; ++i) {
      const auto dim = number<uint64_t>("a dimension");
      if (dim < 1 || dim > static_cast<uint64_t>(INT64_MAX))
        refuse(name, fmt::format("a dimension must be in [1, 2^63), but is {}", dim));
      dims[rank - 1 - i] = static_cast<int64_t>(dim);
    }
    try {
      return tensor::Shape(dims);
    } catch (const Error& error) {
      refuse(name, error.what());
    }
  }

  // A description, and where its bytes begin within the data.
  std::pair<GgufTensor, uint64_t> tensor(uint64_t& size) {
    GgufTensor out;
    out.name = string("a tensor's name");
    check_name(out.name, "a tensor's name", kMaxNameBytes);
    out.shape = shape(out.name);
    const auto number_of = number<uint32_t>("a tensor's type");
    out.type = type_of(number_of);
    if (out.type == nullptr) refuse(out.name, fmt::format("the type {} is not known", number_of));
    const auto row = static_cast<uint64_t>(out.shape[out.shape.rank() - 1]);
    if (row % out.type->block != 0)
      refuse(out.name, fmt::format("its rows of {} elements must be whole blocks of {} ({})", row,
                                   out.type->block, out.type->name));
    const auto blocks = static_cast<uint64_t>(out.shape.elements()) / out.type->block;
    if (__builtin_mul_overflow(blocks, uint64_t{out.type->bytes}, &size))
      refuse(out.name, fmt::format("the bytes of {} {} exceed 64 bits", out.type->name,
                                   out.shape.to_string()));
    return {out, number<uint64_t>("a tensor's offset")};
  }

  // Sorted by their bytes, tensors must not share any.
  void check_overlaps(const std::vector<GgufTensor>& tensors) const {
    std::vector<const GgufTensor*> sorted;
    for (const GgufTensor& tensor : tensors) sorted.push_back(&tensor);
    std::sort(sorted.begin(), sorted.end(), [](const GgufTensor* a, const GgufTensor* b) {
      return a->bytes.data() < b->bytes.data();
    });
    for (size_t i = 1; i < sorted.size(); ++i)
      if (sorted[i]->bytes.data() < sorted[i - 1]->bytes.data() + sorted[i - 1]->bytes.size())
        refuse(sorted[i]->name,
               fmt::format("its bytes overlap those of {}", gguf_quoted(sorted[i - 1]->name)));
  }
};

GgufFile::GgufFile(std::filesystem::path path) : path_(std::move(path)), file_(path_) {
  Reader reader{path_.string(), file_.bytes()};
  reader.magic();
  const uint64_t tensors = reader.count("tensors", 24), keys = reader.count("keys", 13);
  for (uint64_t i = 0; i < keys; ++i) {
    auto [key, value] = reader.entry();
    if (!values_.emplace(key, value).second) refuse_key(key, "it occurs twice");
  }
  constexpr std::string_view kAlignment = "general.alignment";
  const auto alignment = static_cast<uint64_t>(
      integer(kAlignment, {.min = 1, .max = static_cast<int64_t>(kMaxAlignment)}).value_or(32));
  if (!std::has_single_bit(alignment))
    refuse_key(kAlignment, fmt::format("it must be a power of two, but is {}", alignment));
  std::vector<std::pair<uint64_t, uint64_t>> ranges;  // offset, size
  for (uint64_t i = 0; i < tensors; ++i) {
    uint64_t size = 0;
    const auto [tensor, offset] = reader.tensor(size);
    if (!index_.emplace(tensor.name, i).second) refuse_tensor(tensor.name, "it occurs twice");
    tensors_.push_back(tensor);
    ranges.emplace_back(offset, size);
  }
  const size_t begin = (reader.at + alignment - 1) / alignment * alignment;
  const auto data = file_.bytes().subspan(std::min(begin, file_.bytes().size()));
  for (size_t i = 0; i < tensors_.size(); ++i) {
    const auto [offset, size] = ranges[i];
    if (offset % alignment != 0)
      refuse_tensor(tensors_[i].name, fmt::format("its offset must be a multiple of {}, but is {}",
                                                  alignment, offset));
    if (offset > data.size() || size > data.size() - offset)
      refuse_tensor(tensors_[i].name,
                    fmt::format("its {} bytes from {} on end outside the {} bytes of data: the "
                                "file is truncated",
                                size, offset, data.size()));
    tensors_[i].bytes = data.subspan(offset, size);
    tensor_bytes_ += size;
  }
  reader.check_overlaps(tensors_);
}

const GgufTensor* GgufFile::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

void GgufFile::release(const GgufTensor& tensor) const {
  file_.release(static_cast<size_t>(tensor.bytes.data() - file_.bytes().data()),
                tensor.bytes.size());
}

void decode_gguf(const GgufTensor& tensor, int64_t first, int64_t count, std::span<std::byte> out) {
  const auto row = static_cast<size_t>(tensor.shape[tensor.shape.rank() - 1]);
  const size_t blocks = row / tensor.type->block;
  const size_t stride = blocks * tensor.type->bytes;
  const auto begin = static_cast<size_t>(first) * stride,
             size = static_cast<size_t>(count) * stride;
  check(begin <= tensor.bytes.size() && size <= tensor.bytes.size() - begin, "rows of a tensor");
  const std::byte* from = tensor.bytes.data() + begin;
  if (!tensor.type->packed) {
    check(out.size() == size, "the size of decoded rows");
    std::memcpy(out.data(), from, size);
    return;
  }
  check(out.size() == static_cast<size_t>(count) * row * sizeof(float), "the size of decoded rows");
  // A block is an f16 scale and 32 codes: bytes, or nibbles less 8, of which byte i holds i and i + 16.
  const bool nibbles = tensor.type->bytes == 18;
  std::array<float, 32> values;
  std::byte* to = out.data();
  for (size_t i = 0; i < static_cast<size_t>(count) * blocks; ++i, from += tensor.type->bytes) {
    const float scale = format::F16::widen(little<uint16_t>(from));
    const std::byte* codes = from + 2;
    for (size_t j = 0; j < 16; ++j) {
      const int low = nibbles ? std::to_integer<int>(codes[j] & std::byte{15}) - 8
                              : int{little<int8_t>(codes + j)};
      const int high =
          nibbles ? std::to_integer<int>(codes[j] >> 4) - 8 : int{little<int8_t>(codes + j + 16)};
      values[j] = scale * static_cast<float>(low);
      values[j + 16] = scale * static_cast<float>(high);
    }
    std::memcpy(to, values.data(), sizeof values);
    to += sizeof values;
  }
}

}  // namespace atom::checkpoint
