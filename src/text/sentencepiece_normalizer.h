// The normalizer of a tokenizer.model, as the sentencepiece library applies it: character rules,
// runs of spaces, the space in front, U+2581 for spaces.
#pragma once

#include <memory>

#include "text/added_tokens.h"
#include "text/normalizer.h"
#include "text/sentencepiece_file.h"

namespace atom::text {

// The user-defined pieces of a file, which are found in the text as they stand.
AddedTokenMatcher user_defined_pieces(const SentencePieceFile& file);

// every_stretch: the space in front also goes to text behind a special token, not only to the start
// of the text.
std::unique_ptr<const Normalizer> make_sentencepiece_normalizer(const SentencePieceFile& file,
                                                                bool every_stretch);

}  // namespace atom::text
