// What a splitting pre-tokenizer does with the matches that it finds.
#pragma once

#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/pattern.h"
#include "text/pre_tokenizer.h"

namespace atom::text {

enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

// Error: missing (unless `otherwise` is given) or not one of the five names.
SplitBehavior split_behavior_from_json(const Json& json, std::string_view source,
                                       std::string_view otherwise = {});

// Appends the pieces that `parts` (a cover of one text that starts at `offset` of the buffer) make.
void append_pieces(const std::vector<MatchPart>& parts, SplitBehavior behavior, size_t offset,
                   std::vector<Span>& spans);

// Splits every piece: `find(view, parts)` covers the piece with matches and the rest.
template <typename Find>
void split_pieces(Pieces& pieces, SplitBehavior behavior, Find&& find) {
  std::vector<Span> spans;
  std::vector<MatchPart> parts;
  for (size_t i = 0; i < pieces.spans.size(); ++i) {
    find(pieces.view(i), parts);
    append_pieces(parts, behavior, pieces.spans[i].begin, spans);
  }
  pieces.spans = std::move(spans);
}

struct SplitRule {
  SplitBehavior behavior;
  bool invert;  // what does not match counts as a match, and the other way round
};
void split_at_pattern(Pieces& pieces, const Pattern& pattern, SplitRule rule);

}  // namespace atom::text
