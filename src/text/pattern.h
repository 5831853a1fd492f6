// The "pattern" of tokenizer.json: {"String": "..."} or {"Regex": "..."}.
//
//   const Pattern spaces = pattern_from_json(json["pattern"], "tokenizer.json: normalizer");
//   PatternSearch search(spaces);      // scratch of one thread; must not outlive the pattern
//   search.split("a b", parts);        // {0,1,no} {1,2,match} {2,3,no}
//
// Texts must be valid UTF-8. Matches follow Oniguruma's find_iter: leftmost, not overlapping, and
// no empty match directly at the end of the match before.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/regex.h"
#include "text/source_map.h"
#include "text/word_scanner.h"

namespace atom::text {

struct Pattern {
  std::string literal;  // used when there is no regex; not empty
  std::optional<Regex> regex;
  std::optional<WordScanner>
      words;  // finds what the regex does; every match begins where the one before ends
};

// A regular expression, found by a WordScanner where there is one.
Pattern regex_pattern(std::string_view regex, std::string_view source);

// Error: neither form, empty string, unsupported regular expression.
Pattern pattern_from_json(const Json& value, std::string_view source);

struct MatchPart {
  size_t begin;
  size_t end;
  bool is_match;
};

class PatternSearch {
 public:
  explicit PatternSearch(const Pattern& pattern);

  // The next match at or after `from`, nothing when there is none.
  std::optional<Span> next(std::string_view text, size_t from);
  // Covers the text with matches and the non-empty stretches between them; replaces `parts`.
  void split(std::string_view text, std::vector<MatchPart>& parts);

 private:
  const Pattern& pattern_;
  std::optional<RegexSearch> search_;
};

struct Replacement {
  const Pattern& pattern;
  std::string_view content;
  size_t max_bytes;              // of the result
  std::string_view source;       // named when the result gets longer
  SourceMap* sources = nullptr;  // of the text, then of the result
};

// Replaces every match. `prefix`: how many bytes at the front of the result come from bytes of
// `text` before `prefix`. Error: result beyond max_bytes, regex limits.
struct Replaced {
  std::string text;
  size_t prefix;
};
Replaced replace_matches(std::string_view text, size_t prefix, const Replacement& replacement);

}  // namespace atom::text
