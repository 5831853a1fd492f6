#include "checkpoint/gguf_split.h"

namespace atom::checkpoint {

const std::vector<SplitRule>& split_rules() {
  static const std::vector<SplitRule> rules = {
      {.name = "llama-bpe",
       .patterns = {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
                    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
       .ignore_merges = true,
       .adds_bos = true},
      {.name = "qwen2",
       .patterns = {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
                    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
       .nfc = true},
      {.name = "gpt-2", .patterns = {}, .gpt2 = true},
      {.name = "smollm", .patterns = {R"(\p{N})"}, .gpt2 = true},
      {.name = "default",
       .patterns = {R"([\p{P}\$\+<=>\^~\|]+)",
                    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S))",
                    R"(\p{N}+)", R"([0-9][0-9][0-9])"}}};
  return rules;
}

Json split_part(std::string_view pattern) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", pattern}}},
          {"behavior", "Isolated"},
          {"invert", false}};
}

}  // namespace atom::checkpoint
