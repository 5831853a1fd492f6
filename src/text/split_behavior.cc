#include "text/split_behavior.h"

#include <algorithm>

#include "base/error.h"

namespace atom::text {
namespace {

// Joins neighbours of a cover. Walking forward, a part joins the piece before it when `joins` says
// so.
template <typename Joins>
void join_forward(const std::vector<MatchPart>& parts, size_t offset, std::vector<Span>& spans,
                  Joins&& joins) {
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i > 0 && joins(parts[i - 1], parts[i])) {
      spans.back().end = offset + parts[i].end;
    } else {
      spans.push_back({offset + parts[i].begin, offset + parts[i].end});
    }
  }
}

}  // namespace

SplitBehavior split_behavior_from_json(const Json& json, std::string_view source,
                                       std::string_view otherwise) {
  const std::string name = otherwise.empty() ? get_string(json, "behavior", source)
                                             : get_string_or(json, "behavior", otherwise, source);
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  fail("{}: the behavior '{}' is not known", source, name);
}

void append_pieces(const std::vector<MatchPart>& parts, SplitBehavior behavior, size_t offset,
                   std::vector<Span>& spans) {
  const size_t first = spans.size();
  switch (behavior) {
    case SplitBehavior::kRemoved:
      for (const MatchPart& part : parts) {
        if (!part.is_match) spans.push_back({offset + part.begin, offset + part.end});
      }
      break;
    case SplitBehavior::kIsolated:
      join_forward(parts, offset, spans, [](const auto&, const auto&) { return false; });
      break;
    case SplitBehavior::kContiguous:
      join_forward(parts, offset, spans,
                   [](const auto& a, const auto& b) { return a.is_match == b.is_match; });
      break;
    case SplitBehavior::kMergedWithPrevious:
      join_forward(parts, offset, spans,
                   [](const auto& a, const auto& b) { return b.is_match && !a.is_match; });
      break;
    case SplitBehavior::kMergedWithNext:
      join_forward(parts, offset, spans,
                   [](const auto& a, const auto& b) { return a.is_match && !b.is_match; });
      break;
  }
  const auto empty = [](const Span& span) { return span.begin == span.end; };
  spans.erase(
      std::remove_if(spans.begin() + static_cast<std::ptrdiff_t>(first), spans.end(), empty),
      spans.end());
}

void split_at_pattern(Pieces& pieces, const Pattern& pattern, SplitRule rule) {
  if (pattern.words && rule.behavior == SplitBehavior::kIsolated) {
    std::vector<Span> spans;
    spans.reserve(pieces.spans.size() + pieces.text.size() / 5);
    for (const Span& piece : pieces.spans) {
      const std::string_view text =
          std::string_view(pieces.text).substr(piece.begin, piece.end - piece.begin);
      for (size_t at = 0; at < text.size();) {
        const size_t end = pattern.words->end(text, at);
        spans.push_back({piece.begin + at, piece.begin + end});
        at = end;
      }
    }
    pieces.spans = std::move(spans);
    return;
  }
  PatternSearch search(pattern);
  split_pieces(pieces, rule.behavior, [&](std::string_view piece, std::vector<MatchPart>& parts) {
    search.split(piece, parts);
    if (!rule.invert) return;
    for (MatchPart& part : parts) part.is_match = !part.is_match;
  });
}

}  // namespace atom::text
