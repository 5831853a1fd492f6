// Unicode normal forms (UAX 15) character by character, with what became of which: for spans. normalizer_unicode.cc makes the
// same texts faster.
#pragma once

#include <string_view>
#include <vector>

#include "text/source_map.h"

namespace atom::text {

// `options`: utf8proc's decomposition and composition flags.
std::vector<Change> normal_form_changes(std::string_view text, int options);

}  // namespace atom::text
