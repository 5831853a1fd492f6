// A GGUF file as a model folder of Hugging Face: config.json, safetensors with an index where there are several, the tokenizer
// with its chat template, and a manifest.
//
//   to_folder({.file = "llama.gguf", .output = "models/llama", .type = "F16"});
//
// The folder appears complete or not at all. Memory holds one tensor.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "checkpoint/shard_writer.h"
#include "convert/report.h"

namespace atom::convert {

struct ToFolder {
  std::filesystem::path file;
  std::filesystem::path output;  // must not exist, or be an empty folder
  // Of the matrices: F32, F16, BF16; empty: as in the file, and F16 of Q8_0 and Q4_0. Vectors stay in F32.
  std::string type;
  std::function<void(const ConvertProgress&)> progress;  // may throw, which ends the conversion
  uint64_t shard_bytes = checkpoint::kShardBytes;
};

// Error: as GgufModel and OutputFolder; a tensor that is missing or has another shape than the keys say; values that are not
// finite or that the type cannot hold.
ConvertReport to_folder(const ToFolder& job);

}  // namespace atom::convert
