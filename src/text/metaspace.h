// Fields that the Metaspace pre-tokenizer and decoder share.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/json.h"

namespace atom::text {

struct Metaspace {
  enum class Prepend { kAlways, kFirst, kNever };
  uint32_t replacement;  // the character that stands for a space
  Prepend prepend;       // which pieces get it in front: all, only the text's first, none
  bool split;            // cut before each replacement
};

// add_prefix_space = false is the older spelling of prepend_scheme = never. Error: other scheme,
// both fields in contradiction.
Metaspace metaspace_from_json(const Json& json, std::string_view source);

}  // namespace atom::text
