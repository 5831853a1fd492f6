// Regular expressions of tokenizer files: Oniguruma (Ruby) syntax on PCRE2 with JIT and limits.
//
//   const Regex words = Regex::compile(R"( ?\p{L}+)", "tokenizer.json: pre_tokenizer");
//   RegexSearch search(words);                 // scratch of one thread, cheap to keep
//   std::optional<Span> hit = search.next(text, 0);
//
// Patterns are untrusted: pattern size, match steps, depth, heap, JIT stack and the time of a search
// are bounded, and a limit that is hit is an Error. Subjects must be valid UTF-8. A Regex is immutable and shared by
// threads; a RegexSearch belongs to one thread and must not outlive its Regex.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace atom::text {

struct Span {
  size_t begin = 0;
  size_t end = 0;
};

class Regex {
 public:
  // Error: syntax, constructs whose meaning differs between the two engines, size. `source` names
  // the file and field in messages.
  static Regex compile(std::string_view pattern, std::string_view source);

 private:
  friend class RegexSearch;
  struct Code;
  std::shared_ptr<const Code> code_;
};

// The time of searches in a text of `bytes` once they have got to `done` of it: what work pays that gets on, and a slack that
// soon stops growing. So a text of any length is searched through where its patterns are honest, and 4 s at most go by where
// they get nowhere.
std::chrono::nanoseconds regex_time(size_t bytes, size_t done, std::chrono::nanoseconds slack);

// While one exists, all searches that this thread begins have the time of a text of `bytes` together, and get on where any of
// them does, up to four times the text: a tokenizer may have any number of components. Within another it does nothing.
class RegexTime {
 public:
  explicit RegexTime(size_t bytes);
  ~RegexTime();
  RegexTime(const RegexTime&) = delete;
  RegexTime& operator=(const RegexTime&) = delete;

 private:
  bool outermost_;
};

class RegexSearch {
 public:
  // slack: of the thread's time for all calls, see regex_time().
  explicit RegexSearch(const Regex& regex,
                       std::chrono::nanoseconds slack = std::chrono::milliseconds(500));
  ~RegexSearch();
  RegexSearch(RegexSearch&&) noexcept;

  // Leftmost match that starts at or after `from`; lookbehind sees the text before. Error: a limit
  // was hit.
  std::optional<Span> next(std::string_view text, size_t from);

 private:
  struct Scratch;
  std::shared_ptr<const Regex::Code> code_;
  std::unique_ptr<Scratch> scratch_;
};

// Rewrites Oniguruma's Ruby syntax to PCRE2 where the same text means something else (\s, \w, \h,
// (?m),
// {,n}, isolated options). Error: what has no equivalent (class intersections, nested classes,
// verbs, ...).
std::string translate_regex(std::string_view pattern, std::string_view source);

}  // namespace atom::text
