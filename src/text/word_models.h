// Models that look up whole words: WordPiece (Schuster and Nakajima 2012, as BERT uses it: the
// longest token first, the rest with a prefix) and WordLevel.
#pragma once

#include <memory>

#include "text/model.h"

namespace atom::text {

// Error: no vocab, no unk_token in it, max_input_chars_per_word outside [1, 65536].
std::unique_ptr<const Model> make_word_piece(const Json& json, const ModelLists& lists,
                                             std::string_view source);
std::unique_ptr<const Model> make_word_level(const Json& json, const ModelLists& lists,
                                             std::string_view source);

}  // namespace atom::text
