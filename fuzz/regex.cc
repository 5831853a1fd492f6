// Regular expressions of tokenizer files: the first line is the pattern, the rest the text that it searches.
#include "text/regex.h"

#include <algorithm>

#include "fuzz/fuzz.h"

namespace atom::fuzz {

void run_regex(std::string_view bytes) {
  const std::string valid = text::replace_invalid_utf8(bytes);
  const size_t line = std::min(valid.find('\n'), valid.size());
  const std::string pattern = valid.substr(0, line);
  const std::string text = valid.substr(std::min(line + 1, valid.size()));
  accepts([&] {
    const text::Regex regex = text::Regex::compile(pattern, "fuzz");
    text::RegexSearch search(regex);
    size_t from = 0;
    while (const auto hit = search.next(text, from)) {
      check(hit->begin >= from && hit->end >= hit->begin && hit->end <= text.size(), "a match");
      if (hit->end >= text.size()) break;
      from = std::max(hit->end, from + (hit->end == from ? 1 : 0));
      while (from < text.size() && (text[from] & 0xc0) == 0x80) ++from;
    }
  });
}

}  // namespace atom::fuzz
