// GGUF files for tests, built byte by byte, so that every field can be wrong.
//
//   RawGguf raw;
//   raw.text("general.architecture", "llama");
//   raw.tensor({.name = "a", .dims = {2}});
//   raw.bytes();                       // a whole file with zeros as data
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace atom::checkpoint {

class RawGguf {
 public:
  struct Tensor {
    std::string name = "t";
    std::vector<uint64_t> dims = {8};  // in the file's order
    uint32_t type = 0;                 // F32
    uint64_t offset = 0;
  };

  std::string magic = "GGUF";
  uint32_t version = 3;
  int64_t more_keys = 0, more_tensors = 0;  // that the counts claim
  size_t data_bytes = 128;
  bool counts = false;    // the data are the f32 0, 1, 2, ..., not zeros
  size_t alignment = 32;  // where the data begin

  template <typename T>
  static std::string number(T value) {
    std::string out(sizeof value, '\0');
    std::memcpy(out.data(), &value, sizeof value);
    return out;
  }
  static std::string string(std::string_view text) {
    return number(uint64_t{text.size()}) + std::string(text);
  }

  // `kind` with the bytes of its value.
  void key(std::string_view name, uint32_t kind, std::string_view value) {
    keys_ += string(name) + number(kind) + std::string(value);
    ++key_count_;
  }
  void text(std::string_view name, std::string_view value) { key(name, 8, string(value)); }
  void u32(std::string_view name, uint32_t value) { key(name, 4, number(value)); }
  void f32(std::string_view name, float value) { key(name, 6, number(value)); }
  void boolean(std::string_view name, uint8_t value) { key(name, 7, number(value)); }
  void array(std::string_view name, uint32_t kind, uint64_t count, std::string_view elements) {
    key(name, 9, number(kind) + number(count) + std::string(elements));
  }
  void texts(std::string_view name, const std::vector<std::string>& values) {
    std::string elements;
    for (const std::string& value : values) elements += string(value);
    array(name, 8, values.size(), elements);
  }
  void tensor(const Tensor& tensor) {
    tensors_ += string(tensor.name) + number(static_cast<uint32_t>(tensor.dims.size()));
    for (const uint64_t dim : tensor.dims) tensors_ += number(dim);
    tensors_ += number(tensor.type) + number(tensor.offset);
    ++tensor_count_;
  }

  // With its bytes, behind those of the ones before; data_bytes no longer counts.
  void tensor_of(Tensor tensor, std::string_view data) {
    tensor.offset = data_.size();
    this->tensor(tensor);
    data_ += data;
    data_.resize((data_.size() + alignment - 1) / alignment * alignment);
  }

  std::string bytes() const {
    std::string out = magic + number(version) +
                      number(tensor_count_ + static_cast<uint64_t>(more_tensors)) +
                      number(key_count_ + static_cast<uint64_t>(more_keys)) + keys_ + tensors_;
    out.resize((out.size() + alignment - 1) / alignment * alignment);
    if (!data_.empty()) return out + data_;
    std::string data(data_bytes, '\0');
    for (size_t i = 0; counts && i < data_bytes / sizeof(float); ++i)
      data.replace(i * sizeof(float), sizeof(float), number(static_cast<float>(i)));
    return out + data;
  }

  // The least that opens as a model: 2 heads of 4 channels and a table of 4 tokens.
  static RawGguf model(const std::string& architecture = "llama") {
    RawGguf raw;
    raw.text("general.architecture", architecture);
    raw.u32(architecture + ".context_length", 64);
    raw.u32(architecture + ".embedding_length", 8);
    raw.u32(architecture + ".block_count", 1);
    raw.u32(architecture + ".feed_forward_length", 8);
    raw.u32(architecture + ".attention.head_count", 2);
    raw.f32(architecture + ".attention.layer_norm_rms_epsilon", 1e-5F);
    raw.tensor({.name = "token_embd.weight", .dims = {8, 4}});
    return raw;
  }

 private:
  std::string keys_, tensors_, data_;
  uint64_t key_count_ = 0, tensor_count_ = 0;
};

}  // namespace atom::checkpoint
