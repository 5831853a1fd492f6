// Writes the GGUF container, version 3, little-endian: keys, descriptions of tensors, and their bytes as they come.
//
//   GgufKeys keys;
//   keys.text("general.architecture", "llama");
//   GgufWriter writer("m.gguf", keys, {{"token_embd.weight", &gguf_type("F16"), {32000, 4096}}});
//   encode_gguf(gguf_type("F16"), values, bytes);
//   writer.write("token_embd.weight", bytes);     // whole, or in pieces
//   writer.commit();                              // durable under its name from here
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "checkpoint/gguf.h"

namespace atom::checkpoint {

// Metadata in the order in which they are added. InvariantError: a key twice.
class GgufKeys {
 public:
  void text(std::string_view key, std::string_view value);
  void u32(std::string_view key, uint32_t value);
  void f32(std::string_view key, float value);
  void boolean(std::string_view key, bool value);
  void texts(std::string_view key, std::span<const std::string> values);
  void f32s(std::string_view key, std::span<const float> values);
  void i32s(std::string_view key, std::span<const int32_t> values);

  const std::string& bytes() const { return bytes_; }
  uint64_t count() const { return names_.size(); }

 private:
  void begin(std::string_view key, GgufKind kind);
  void begin_array(std::string_view key, GgufKind element, size_t count);

  std::string bytes_;
  std::vector<std::string> names_;
};

struct GgufTensorInfo {
  std::string name;
  const GgufType* type = nullptr;
  tensor::Shape shape;  // row-major
};

// Bytes that a tensor takes. The rows are whole blocks.
uint64_t gguf_bytes(const GgufType& type, const tensor::Shape& shape);

class GgufWriter {
 public:
  // Error: a name that is no GGUF name, the file cannot be created. InvariantError: a name twice, rows that are no whole
  // blocks.
  GgufWriter(std::filesystem::path path, const GgufKeys& keys, std::vector<GgufTensorInfo> tensors);

  // The next bytes of the list's next tensor. InvariantError: another tensor, or more bytes than it has.
  void write(std::string_view name, std::span<const std::byte> bytes);
  void commit();  // InvariantError: bytes are missing. Error: disk full, I/O error

  uint64_t planned_size() const { return planned_size_; }  // of the finished file

 private:
  void pad();

  std::vector<GgufTensorInfo> tensors_;
  size_t next_ = 0;
  uint64_t written_ = 0;  // bytes of tensors_[next_]
  uint64_t planned_size_ = 0;
  AtomicFile file_;
};

// Values as elements of F32, F16, BF16 or Q8_0; values.size() is a multiple of the block, out has the size. Q8_0 rounds as
// ggml's reference does: the scale is the largest magnitude / 127 in f32, a code is value * (1 / scale) rounded half away from
// zero, and the scale is stored in f16. Returns the first value that the type cannot hold (its f16 would be infinite), else nothing.
// Values are finite.
std::optional<float> encode_gguf(const GgufType& type, std::span<const float> values,
                                 std::span<std::byte> out);

}  // namespace atom::checkpoint
