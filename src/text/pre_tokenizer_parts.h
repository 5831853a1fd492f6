// Factories of the single pre-tokenizers; used by make_pre_tokenizer only.
#pragma once

#include "text/pre_tokenizer.h"

namespace atom::text {

using PreTokenizerPtr = std::unique_ptr<const PreTokenizer>;

PreTokenizerPtr make_split(const Json& json, std::string_view source);
PreTokenizerPtr make_byte_level(const Json& json, std::string_view source);
PreTokenizerPtr make_metaspace(const Json& json, std::string_view source);
PreTokenizerPtr make_digits(const Json& json, std::string_view source);
PreTokenizerPtr make_punctuation(const Json& json, std::string_view source);
PreTokenizerPtr make_whitespace(const Json& json, std::string_view source);
PreTokenizerPtr make_whitespace_split(const Json& json, std::string_view source);
PreTokenizerPtr make_bert_words(const Json& json, std::string_view source);
PreTokenizerPtr make_delimiter_split(const Json& json, std::string_view source);

}  // namespace atom::text
