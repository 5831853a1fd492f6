// The GGUF container, versions 2 and 3, little-endian: counts, typed metadata, descriptions of
// tensors, and from the next multiple of the alignment on their bytes.
//
//   const GgufFile file("model.gguf");                              // validates all but values
//   const std::optional<int64_t> layers = file.integer("llama.block_count", {.min = 1});
//   const GgufTensor* table = file.find("token_embd.weight");       // null: no such tensor
//   decode_gguf(*table, 0, 8, rows);                                // the first 8 rows
//
// Views borrow the map of the file and are valid while the GgufFile lives (a move keeps them).
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "tensor/tensor.h"

namespace atom::checkpoint {

// Kinds of the metadata's values, by the format's numbers.
enum class GgufKind : uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64
};

// An element type of the format: `block` elements of a row take `bytes`.
struct GgufType {
  uint32_t number = 0;
  std::string_view name;
  uint32_t block = 1;
  uint32_t bytes = 0;
  // What its elements are read as: F32 of Q8_0 and Q4_0, whose products of scale and code are exact
  // there. None: known to the format, but not to Atom.
  std::optional<tensor::DType> dtype;
  bool packed = false;  // its bytes are not those of `dtype`
};

// The row of a name ("Q8_0") of the format's table. InvariantError: there is none.
const GgufType& gguf_type(std::string_view name);

struct GgufTensor {
  std::string_view name;
  const GgufType* type = nullptr;
  tensor::Shape shape;               // row-major: the reverse of the file's order
  std::span<const std::byte> bytes;  // as stored
};

struct GgufRange {
  int64_t min = INT64_MIN;
  int64_t max = INT64_MAX;
};

// A file mapped for reading; nothing in it is trusted. The constructor refuses, naming file, key or
// tensor, rule and value: another magic or version; counts and lengths beyond the file; a key that
// is not 1 to 65535 printable ASCII characters, a tensor's name that is not 1 to 64 of them; unknown
// kinds of values and tensors; arrays of arrays; booleans that are neither 0 nor 1; an alignment
// that is no power of two up to 65536; more than 4 dimensions, one outside [1, 2^63), sizes that
// overflow, rows that are no whole blocks; offsets that are not aligned, bytes that lie outside the
// file or overlap; names that occur twice. Const members may be called from several threads.
class GgufFile {
 public:
  explicit GgufFile(std::filesystem::path path);

  const std::filesystem::path& path() const { return path_; }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }  // in the file's order
  const GgufTensor* find(std::string_view name) const;
  void release(const GgufTensor& tensor) const;  // drops its pages; the bytes stay readable
  uint64_t tensor_bytes() const { return tensor_bytes_; }

  // Values of the metadata; nothing where the key is missing. Error naming key, rule and value:
  // another kind of value, outside the range, not finite, not UTF-8.
  bool has(std::string_view key) const { return values_.contains(key); }
  std::optional<int64_t> integer(std::string_view key, GgufRange range = {}) const;
  std::optional<double> number(std::string_view key) const;  // the shortest decimal of an f32
  std::optional<bool> boolean(std::string_view key) const;
  std::optional<std::string_view> text(std::string_view key) const;
  std::optional<std::vector<std::string_view>> texts(std::string_view key) const;
  std::optional<std::vector<double>> numbers(std::string_view key) const;
  std::optional<std::string_view> bytes(std::string_view key) const;  // an array of 8-bit integers

  [[noreturn]] void refuse_key(std::string_view key, std::string_view rule) const;
  [[noreturn]] void refuse_tensor(std::string_view name, std::string_view rule) const;

 private:
  struct Value {
    GgufKind kind = GgufKind::kU8;
    GgufKind element = GgufKind::kU8;  // of an array
    uint64_t count = 1;                // of its elements
    std::span<const std::byte> bytes;
  };
  struct Reader;
  const Value* value(std::string_view key) const;
  std::optional<double> plain(std::string_view key, const Value& value, size_t index) const;

  std::filesystem::path path_;
  MappedFile file_;
  std::map<std::string_view, Value> values_;
  std::vector<GgufTensor> tensors_;
  std::map<std::string_view, size_t> index_;  // into tensors_
  uint64_t tensor_bytes_ = 0;
};

// For messages: "string", and "array" without its elements' kind; the name of a key or tensor in quotes, escaped and cut.
std::string_view gguf_kind_name(GgufKind kind);
std::string gguf_quoted(std::string_view name);

// Rows [first, first + count) of a matrix (the last dimension is a row; a vector is one row) as elements of
// type->dtype; out has their size. `type` has a dtype.
void decode_gguf(const GgufTensor& tensor, int64_t first, int64_t count, std::span<std::byte> out);

}  // namespace atom::checkpoint
