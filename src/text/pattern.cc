#include "text/pattern.h"

#include "base/error.h"
#include "text/unicode.h"

namespace atom::text {

Pattern regex_pattern(std::string_view regex, std::string_view source) {
  return {{}, Regex::compile(regex, source), WordScanner::of_pattern(regex)};
}

Pattern pattern_from_json(const Json& value, std::string_view source) {
  Pattern pattern;
  if (value.is_object() && value.size() == 1 && value.begin().value().is_string()) {
    const std::string text = value.begin().value().get<std::string>();
    if (value.begin().key() == "Regex") {
      return regex_pattern(text, source);
    }
    if (value.begin().key() == "String") {
      if (text.empty()) fail("{}: the string pattern must not be empty", source);
      pattern.literal = text;
      return pattern;
    }
  }
  fail("{}: pattern must be an object with one string named String or Regex and is {}", source,
       shown_json(value));
}

PatternSearch::PatternSearch(const Pattern& pattern) : pattern_(pattern) {
  if (pattern.regex && !pattern.words) search_.emplace(*pattern.regex);
}

std::optional<Span> PatternSearch::next(std::string_view text, size_t from) {
  if (pattern_.words) {
    if (from == text.size()) return std::nullopt;
    return Span{from, pattern_.words->end(text, from)};
  }
  if (search_) return search_->next(text, from);
  const size_t at = pattern_.literal.size() == 1 ? text.find(pattern_.literal[0], from)
                                                 : text.find(pattern_.literal, from);
  if (at == std::string_view::npos) return std::nullopt;
  return Span{at, at + pattern_.literal.size()};
}

void PatternSearch::split(std::string_view text, std::vector<MatchPart>& parts) {
  parts.clear();
  if (text.empty()) return;
  size_t covered = 0;  // end of the last part
  size_t from = 0;
  bool after_match = false;  // `from` is the end of a match
  while (from <= text.size()) {
    const std::optional<Span> match = next(text, from);
    if (!match) break;
    if (match->begin == match->end && after_match && match->end == covered) {
      if (from == text.size()) break;
      from += decode_utf8(text, from).size;
      continue;
    }
    if (covered < match->begin) parts.push_back({covered, match->begin, false});
    parts.push_back({match->begin, match->end, true});
    covered = from = match->end;
    after_match = true;
  }
  if (covered < text.size()) parts.push_back({covered, text.size(), false});
}

Replaced replace_matches(std::string_view text, size_t prefix, const Replacement& replacement) {
  Replaced out{{}, 0};
  out.text.reserve(text.size() + text.size() / 2);
  PatternSearch search(replacement.pattern);
  std::vector<MatchPart> parts;
  search.split(text, parts);
  Trace trace(replacement.sources);
  for (const MatchPart& part : parts) {
    if (part.begin < prefix && part.end >= prefix && !part.is_match) {
      out.prefix = out.text.size() + (prefix - part.begin);
    }
    out.text +=
        part.is_match ? replacement.content : text.substr(part.begin, part.end - part.begin);
    if (!part.is_match) {
      trace.keep(part.begin, part.end);
    } else if (part.end > 0) {
      trace.until(out.text.size(), part.end - 1);
    } else {
      trace.put({}, out.text.size());
    }
    if (part.is_match && part.end <= prefix) out.prefix = out.text.size();
    if (out.text.size() > replacement.max_bytes) {
      fail("{}: replacing makes the text longer than {} bytes", replacement.source,
           replacement.max_bytes);
    }
  }
  trace.finish();
  return out;
}

}  // namespace atom::text
