// How the tokenizers of GGUF files cut a text into words before their merges: the rules behind tokenizer.ggml.pre.
#pragma once

#include <string_view>
#include <vector>

#include "base/json.h"

namespace atom::checkpoint {

// Patterns, each of which cuts what the one before left.
struct SplitRule {
  std::string_view name;  // tokenizer.ggml.pre
  std::vector<std::string_view> patterns;
  bool gpt2 = false;           // then GPT-2's pattern
  bool nfc = false;            // Unicode's composed form first
  bool ignore_merges = false;  // a word that is a token is that token
  bool adds_bos = false;       // where tokenizer.ggml.add_bos_token is missing
};

const std::vector<SplitRule>& split_rules();

// A pattern as a part of tokenizer.json's pre_tokenizer.
Json split_part(std::string_view pattern);

}  // namespace atom::checkpoint
