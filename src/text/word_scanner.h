// The splitting patterns of GPT-2, Llama 3 and Qwen2, without a regex engine: the same words, many times faster.
//
//   const std::optional<WordScanner> words = WordScanner::of_pattern(pattern);   // none: another pattern
//   for (size_t at = 0; at < text.size(); at = words->end(text, at)) ...         // words cover the text
//
// Letters and numbers are those of utf8proc, where the regex engine has its own tables: equal as long as both know
// the same version of Unicode.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace atom::text {

class WordScanner {
 public:
  // The pattern must be the usual one to the letter.
  static std::optional<WordScanner> of_pattern(std::string_view pattern);

  // End of the word that begins at `at` of valid UTF-8; at < text.size().
  size_t end(std::string_view text, size_t at) const;

 private:
  explicit WordScanner(size_t digits) : digits_(digits) {}

  size_t gpt2_end(std::string_view text, size_t at) const;
  size_t llama_end(std::string_view text, size_t at) const;

  size_t digits_;  // of a number, at most; 0: the rules of GPT-2
};

}  // namespace atom::text
