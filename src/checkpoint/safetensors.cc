#include "checkpoint/safetensors.h"

#include <algorithm>
#include <array>
#include <deque>
#include <numeric>
#include <tuple>
#include <utility>

#include "base/error.h"
#include "base/json.h"

namespace atom::checkpoint {
namespace {

using tensor::Shape;

constexpr uint64_t kMinHeaderBytes = 2;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr int kMaxHeaderDepth = 8;                 // a valid header needs three
constexpr std::string_view kMetadataName = "__metadata__";

// Element bits of the dtypes that the format knows beyond tensor::DType.
struct ForeignDType {
  std::string_view name;
  uint64_t bits;
};
constexpr std::array<ForeignDType, 14> kForeignDTypes = {{{"BOOL", 8},
                                                          {"I16", 16},
                                                          {"U16", 16},
                                                          {"U32", 32},
                                                          {"U64", 64},
                                                          {"F64", 64},
                                                          {"C64", 64},
                                                          {"F8_E5M2", 8},
                                                          {"F8_E8M0", 8},
                                                          {"F8_E5M2FNUZ", 8},
                                                          {"F8_E4M3FNUZ", 8},
                                                          {"F6_E2M3", 6},
                                                          {"F6_E3M2", 6},
                                                          {"F4", 4}}};

// The name is that of a constant.
std::optional<ForeignDType> find_dtype(std::string_view name) {
  if (const auto dtype = tensor::dtype_from_name(name))
    return ForeignDType{tensor::dtype_name(*dtype), tensor::dtype_size(*dtype) * 8};
  for (const ForeignDType& row : kForeignDTypes)
    if (row.name == name) return row;
  return std::nullopt;
}

std::string shown(const Json& value) {
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  return text.size() <= 60 ? text : text.substr(0, 57) + "...";
}

}  // namespace

// Turns the bytes of a file into entries; every refusal of the format's rules is here.
struct SafetensorsFile::HeaderReader {
  const std::string file;  // named in messages

  [[noreturn]] void refuse(std::string_view name, std::string_view rule) const {
    fail("{}: tensor {}: {}", file, shown(Json(name)), rule);
  }

  std::string_view header_text(std::span<const std::byte> bytes) const {
    if (bytes.size() < 8)
      fail("{}: a safetensors file has at least 8 bytes, but this one has {}", file, bytes.size());
    uint64_t length = 0;  // little-endian on disk
    for (int i = 7; i >= 0; --i) length = length << 8 | std::to_integer<uint64_t>(bytes[i]);
    if (length < kMinHeaderBytes || length > kMaxHeaderBytes)
      fail("{}: the header length must be in [{}, {}] bytes, but is {}", file, kMinHeaderBytes,
           kMaxHeaderBytes, length);
    if (length > bytes.size() - 8)
      fail("{}: the header length of {} bytes exceeds the {} bytes that follow it", file, length,
           bytes.size() - 8);
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + 8, length);
    if (text.front() != '{')
      fail("{}: the header must begin with '{{', but begins with the byte 0x{:02x}", file,
           static_cast<unsigned char>(text.front()));
    return text;
  }

  Metadata metadata(const Json& value) const {
    if (!value.is_object())
      fail("{}: {} must be a JSON object, but is {}", file, kMetadataName, shown(value));
    Metadata result;
    for (const auto& [key, text] : value.items()) {
      if (!text.is_string())
        fail("{}: {} must hold strings, but {} is {}", file, kMetadataName, shown(Json(key)),
             shown(text));
      result.emplace(key, text.get<std::string>());
    }
    return result;
  }

  const Json& field(std::string_view name, const Json& info, const char* key) const {
    const auto found = info.find(key);
    if (found == info.end()) refuse(name, fmt::format("the field \"{}\" is missing", key));
    return *found;
  }

  int64_t count(std::string_view name, const Json& value, std::string_view what) const {
    const bool is_count =
        value.is_number_integer() &&
        (value.is_number_unsigned() ? value.get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX)
                                    : value.get<int64_t>() >= 0);
    if (!is_count)
      refuse(name, fmt::format("{} must be an integer in [0, {}], but is {}", what, INT64_MAX,
                               shown(value)));
    return value.get<int64_t>();
  }

  Shape shape(std::string_view name, const Json& value) const {
    if (!value.is_array())
      refuse(name, fmt::format("the shape must be an array, but is {}", shown(value)));
    std::vector<int64_t> dims;
    for (const Json& dim : value) dims.push_back(count(name, dim, "a dimension"));
    try {
      return Shape(dims);
    } catch (const Error& error) {
      refuse(name, error.what());
    }
  }

  // Bytes that shape and dtype ask for; elements narrower than a byte are packed.
  uint64_t byte_count(std::string_view name, const Entry& entry, uint64_t bits) const {
    uint64_t total_bits = 0;
    if (__builtin_mul_overflow(static_cast<uint64_t>(entry.shape.elements()), bits, &total_bits))
      refuse(name, fmt::format("the bytes of {} {} exceed 64 bits", entry.dtype_name,
                               entry.shape.to_string()));
    if (total_bits % 8 != 0)
      refuse(name, fmt::format("{} {} does not fill whole bytes", entry.dtype_name,
                               entry.shape.to_string()));
    return total_bits / 8;
  }

  Entry entry(std::string_view name, const Json& info) const {
    if (!info.is_object())
      refuse(name, fmt::format("its description must be a JSON object, but is {}", shown(info)));
    Entry result;
    const Json& dtype = field(name, info, "dtype");
    const auto known = dtype.is_string() ? find_dtype(dtype.get<std::string>()) : std::nullopt;
    if (!known) refuse(name, fmt::format("unknown dtype {}", shown(dtype)));
    result.dtype_name = known->name;
    result.dtype = tensor::dtype_from_name(result.dtype_name);
    result.shape = shape(name, field(name, info, "shape"));
    const Json& range = field(name, info, "data_offsets");
    if (!range.is_array() || range.size() != 2)
      refuse(name, fmt::format("data_offsets must be two numbers, but are {}", shown(range)));
    result.begin = static_cast<uint64_t>(count(name, range[0], "a data offset"));
    result.end = static_cast<uint64_t>(count(name, range[1], "a data offset"));
    if (result.begin > result.end)
      refuse(name, fmt::format("data_offsets must ascend, but are {}", shown(range)));
    const uint64_t expected = byte_count(name, result, known->bits);
    if (result.end - result.begin != expected)
      refuse(name, fmt::format("{} {} takes {} bytes, but data_offsets {} span {}",
                               result.dtype_name, result.shape.to_string(), expected, shown(range),
                               result.end - result.begin));
    return result;
  }

  // Sorted by their bytes, the ranges must tile the data.
  void check_ranges(const std::vector<std::string>& names, const std::vector<Entry>& entries,
                    uint64_t data_size) const {
    uint64_t end = 0;
    for (size_t i = 0; i < entries.size(); ++i) {
      const Entry& entry = entries[i];
      if (entry.begin < end)
        refuse(names[i], fmt::format("its bytes from {} overlap those of another tensor up to {}",
                                     entry.begin, end));
      if (entry.begin > end)
        refuse(names[i],
               fmt::format("its bytes begin at {}, which leaves a hole from {}", entry.begin, end));
      if (entry.end > data_size)
        refuse(names[i],
               fmt::format("its bytes end at {}, but the file holds only {} bytes of data: it is "
                           "truncated",
                           entry.end, data_size));
      end = entry.end;
    }
    if (end != data_size)
      fail("{}: the tensors end at byte {} of the data, but the file holds {} bytes of data", file,
           end, data_size);
  }
};

SafetensorsFile::SafetensorsFile(std::filesystem::path path)
    : path_(std::move(path)), file_(path_) {
  const HeaderReader reader{path_.string()};
  const std::string_view text = reader.header_text(file_.bytes());
  data_ = file_.bytes().subspan(8 + text.size());
  std::deque<std::pair<std::string, Entry>> found;  // grows without a copy
  const std::string source = reader.file + " (header)";
  parse_json(text, {.source = source, .max_depth = kMaxHeaderDepth},
             {{{}, [&](const JsonEntry& field) {
                 if (field.key == kMetadataName)
                   metadata_ = reader.metadata(field.value);
                 else
                   found.emplace_back(field.key, reader.entry(field.key, field.value));
               }}});
  std::vector<uint32_t> order(found.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    const Entry &x = found[a].second, &y = found[b].second;
    return std::tuple(x.begin, x.end, a) < std::tuple(y.begin, y.end, b);
  });
  names_.reserve(found.size());
  entries_.reserve(found.size());
  for (const uint32_t i : order) {
    names_.push_back(std::move(found[i].first));
    entries_.push_back(found[i].second);
  }
  reader.check_ranges(names_, entries_, data_.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [&](uint32_t a, uint32_t b) { return names_[a] < names_[b]; });
  by_name_ = std::move(order);
}

const SafetensorsFile::Entry* SafetensorsFile::entry_of(std::string_view name) const {
  const auto found =
      std::lower_bound(by_name_.begin(), by_name_.end(), name,
                       [&](uint32_t i, std::string_view wanted) { return names_[i] < wanted; });
  return found == by_name_.end() || names_[*found] != name ? nullptr : &entries_[*found];
}

std::optional<tensor::TensorView> SafetensorsFile::find(std::string_view name) const {
  const Entry* const found = entry_of(name);
  if (found == nullptr) return std::nullopt;
  const Entry& entry = *found;
  if (!entry.dtype)
    fail("{}: tensor \"{}\" has the dtype {}, which is not supported", path_.string(), name,
         entry.dtype_name);
  return tensor::TensorView{*entry.dtype, entry.shape,
                            data_.subspan(entry.begin, entry.end - entry.begin)};
}

void SafetensorsFile::release(std::string_view name) const {
  const Entry* const found = entry_of(name);
  if (found == nullptr) return;
  const Entry& entry = *found;
  const size_t header = file_.bytes().size() - data_.size();
  file_.release(header + entry.begin, entry.end - entry.begin);
}

namespace {

std::string json_string(std::string_view text) {
  try {
    return Json(text).dump();
  } catch (const Json::exception&) {
    fail("the name {} of a tensor or a metadata value is not valid UTF-8", shown(Json(text)));
  }
}

// The header with its length in front; `data_bytes` receives the sum over the tensors.
std::string make_header(const std::vector<TensorInfo>& tensors, const Metadata& metadata,
                        uint64_t& data_bytes) {
  std::vector<std::string> parts;
  if (!metadata.empty()) {
    std::vector<std::string> pairs;
    for (const auto& [key, value] : metadata)
      pairs.push_back(json_string(key) + ':' + json_string(value));
    parts.push_back(fmt::format("\"{}\":{{{}}}", kMetadataName, fmt::join(pairs, ",")));
  }
  data_bytes = 0;
  for (const TensorInfo& info : tensors) {
    const uint64_t begin = data_bytes;
    if (__builtin_add_overflow(begin, tensor::byte_size(info.dtype, info.shape), &data_bytes) ||
        data_bytes > static_cast<uint64_t>(INT64_MAX))
      fail("the tensors of one file exceed 64 bits of bytes at \"{}\"", info.name);
    parts.push_back(fmt::format(R"({}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                                json_string(info.name), tensor::dtype_name(info.dtype),
                                fmt::join(info.shape.dims(), ","), begin, data_bytes));
  }
  std::string json = fmt::format("{{{}}}", fmt::join(parts, ","));
  json.resize((json.size() + 7) / 8 * 8, ' ');
  if (json.size() > kMaxHeaderBytes)
    fail("a safetensors header of {} bytes exceeds the limit of {}", json.size(), kMaxHeaderBytes);
  std::string header;
  for (int i = 0; i < 8; ++i) header += static_cast<char>(json.size() >> (8 * i) & 0xff);
  return header + json;
}

void refuse_duplicates(const std::filesystem::path& path, const std::vector<TensorInfo>& tensors) {
  std::vector<std::string_view> names;
  for (const TensorInfo& info : tensors) names.push_back(info.name);
  std::sort(names.begin(), names.end());
  if (const auto twice = std::adjacent_find(names.begin(), names.end()); twice != names.end())
    fail("{}: tensor \"{}\" is listed twice", path.string(), *twice);
  if (std::binary_search(names.begin(), names.end(), kMetadataName))
    fail("{}: a tensor cannot have the name {}", path.string(), kMetadataName);
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(std::filesystem::path path, std::vector<TensorInfo> tensors,
                                     const Metadata& metadata)
    : tensors_(std::move(tensors)), file_(path) {
  refuse_duplicates(path, tensors_);
  uint64_t data_bytes = 0;
  const std::string header = make_header(tensors_, metadata, data_bytes);
  planned_size_ = header.size() + data_bytes;
  file_.write(std::as_bytes(std::span(header)));
}

void SafetensorsWriter::write(std::string_view name, std::span<const std::byte> bytes) {
  check(next_ < tensors_.size() && tensors_[next_].name == name,
        fmt::format("tensor \"{}\" is not the next of the list", name));
  const TensorInfo& info = tensors_[next_];
  check(bytes.size() == tensor::byte_size(info.dtype, info.shape),
        fmt::format("tensor \"{}\" has {} bytes, not those of its shape", name, bytes.size()));
  file_.write(bytes);
  ++next_;
}

void SafetensorsWriter::commit() {
  check(next_ == tensors_.size(), "not every tensor of the list was written");
  check(file_.size() == planned_size_, "the size of a safetensors file was planned wrongly");
  file_.commit();
}

}  // namespace atom::checkpoint
