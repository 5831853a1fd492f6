// The tokenizer that a GGUF file holds, as the files of a model folder.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "checkpoint/gguf.h"

namespace atom::checkpoint {

// tokenizer.model for tokenizer.ggml.model "llama" (SentencePiece's BPE by scores), tokenizer.json for
// "gpt2" (byte-level BPE by merges; tokenizer.ggml.pre says how text is split), and tokenizer_config.json
// with the names of special tokens, whether they are put around a text, and the chat template. Nothing
// for other names, and for a file without tokenizer.ggml.model. Error naming key, rule and value: another
// tokenizer or splitting rule, arrays of different lengths, a token twice, types and ids out of range.
std::optional<std::string> gguf_tokenizer_file(const GgufFile& file, std::string_view name);

}  // namespace atom::checkpoint
