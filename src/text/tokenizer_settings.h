// What tokenizer_config.json adds to a vocabulary; used by the readers of tokenizer_files.h only.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer_files.h"

namespace atom::text {

// The path of another file of the folder that `source` lies in, for messages.
std::string beside(std::string_view source, std::string_view name);

// In what follows, `source` is the file of the vocabulary; messages name the file of the settings.

// tokenizer_class without "Fast" at its end; empty when there is none.
std::string tokenizer_class(const TokenizerSettings& settings, std::string_view source);

// Content of "bos_token" and the like: a string, or an object with "content"; empty when there is
// none.
std::string special_token(const Json& config, std::string_view key, std::string_view source);

// The added tokens in the form of tokenizer.json: of `own` (id, content, special), of
// added_tokens.json, of added_tokens_decoder, and the special tokens that the config names and
// `vocabulary` holds. Of two entries for one id the later one counts.
struct OwnToken {
  int32_t id;
  std::string content;
};
Json added_tokens_of(const TokenizerSettings& settings, const std::vector<OwnToken>& own,
                     const Vocabulary& vocabulary, std::string_view source);

}  // namespace atom::text
