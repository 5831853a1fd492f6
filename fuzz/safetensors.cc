// A safetensors file. The first byte says how the rest is meant: 0, modulo 2: as the file's bytes; else as its header, with as
// many bytes of data as the second byte says.
#include "checkpoint/safetensors.h"

#include "fuzz/fuzz.h"

namespace atom::fuzz {

void run_safetensors(std::string_view bytes) {
  const bool header_only = take_choice(bytes, 2) == 1;
  const size_t data_bytes = header_only ? take_choice(bytes, 256) : 0;
  const MemoryFile memory(header_only ? safetensors_of(bytes, data_bytes) : std::string(bytes));
  accepts([&] {
    const checkpoint::SafetensorsFile file(memory.path());
    uint64_t total = 0;
    int sum = 0;
    for (const std::string& name : file.names())
      accepts([&] {
        const tensor::TensorView view = file.find(name).value();
        total += view.bytes.size();
        for (const std::byte byte : view.bytes) sum += std::to_integer<int>(byte);
        check(view.bytes.size() == tensor::byte_size(view.dtype, view.shape),
              "the bytes of a tensor");
        file.release(name);
      });
    check(total <= file.tensor_bytes() && sum >= 0, "tensors with more bytes than the file");
  });
}

}  // namespace atom::fuzz
