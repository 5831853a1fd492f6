// A GGUF file. The first byte says how the rest is meant, modulo 2: 0: as the file's bytes; 1: with zeros for as many tensors'
// bytes as the second byte says, times 64.
#include "checkpoint/gguf_model.h"
#include "fuzz/fuzz.h"

namespace atom::fuzz {
namespace {

constexpr uint64_t kMostDecoded = 1 << 20;  // bytes of a tensor that are worth a call's time

void read_container(const std::string& path) {
  const checkpoint::GgufFile file(path);
  int sum = 0;
  for (const checkpoint::GgufTensor& tensor : file.tensors()) {
    for (const std::byte byte : tensor.bytes) sum += std::to_integer<int>(byte);
    check(file.find(tensor.name) == &tensor, "a tensor under its name");
    file.release(tensor);
  }
  check(sum >= 0, "a sum of bytes");
}

void read_as_model(const std::string& path) {
  const checkpoint::GgufModel model(path);
  for (const std::string& name : model.names()) {
    const checkpoint::TensorHeader header = model.header(name);
    if (header.bytes > kMostDecoded) continue;
    const tensor::TensorView view = model.tensor(name);
    check(view.shape == header.shape &&
              view.bytes.size() == tensor::byte_size(view.dtype, view.shape),
          "a tensor and its header");
    int sum = 0;
    for (const std::byte byte : view.bytes) sum += std::to_integer<int>(byte);
    check(sum >= 0, "a sum of bytes");
    model.release(name);
  }
  for (const char* name :
       {"config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json"})
    accepts_or_says_why([&] {
      const auto text = model.small_file(name);
      check(!text || name == std::string_view("tokenizer.model") || text::is_valid_utf8(*text),
            "a small file is not UTF-8");
    });
}

}  // namespace

void run_gguf(std::string_view bytes) {
  const bool with_zeros = take_choice(bytes, 2) == 1;
  const size_t zeros = with_zeros ? take_choice(bytes, 256) * 64 : 0;
  const MemoryFile memory(std::string(bytes) + std::string(zeros, '\0'));
  accepts([&] { read_container(memory.path()); });
  accepts([&] { read_as_model(memory.path()); });
}

}  // namespace atom::fuzz
