// A model folder in floating point as one GGUF file, as llama.cpp's converter lays it out (docs/formats.md): names and keys of
// its architecture, rows of LLaMA's q and k interleaved, experts stacked, vectors and routers in F32, the tokenizer.
//
//   to_gguf({.folder = "models/llama", .output = "llama.gguf", .type = "Q8_0", .tokenizer = &tokenizer, ...});
//
// The file appears complete or not at all. Memory holds some rows of one tensor.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "convert/report.h"
#include "text/tokenizer.h"

namespace atom::convert {

struct ToGguf {
  std::filesystem::path folder;
  std::filesystem::path output;                          // must not exist
  std::string type = "F16";                              // of the matrices: F32, F16, BF16, Q8_0
  const text::Tokenizer* tokenizer = nullptr;            // of the folder; null: it has none
  std::function<void(const ConvertProgress&)> progress;  // may throw, which ends the conversion
};

// Error naming the folder, the tensor or the field: a quantized checkpoint, a family, RoPE, window or tokenizer for which GGUF
// has no form, a tensor without a place, values that are not finite or that the type cannot hold; an output that exists.
ConvertReport to_gguf(const ToGguf& job);

}  // namespace atom::convert
