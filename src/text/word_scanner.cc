#include "text/word_scanner.h"

#include <utf8proc.h>

#include <array>

#include "text/unicode.h"

namespace atom::text {
namespace {

constexpr std::string_view kGpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
// Llama 3 and Qwen2 differ in the digits.
constexpr std::string_view kLlamaFront =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})";
constexpr std::string_view kLlamaBack = R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

enum Kind : uint8_t { kLetter, kNumber, kSpace, kOther, kEnd, kNotAscii };

constexpr std::array<Kind, 256> make_kinds() {
  std::array<Kind, 256> kinds{};
  for (size_t c = 0; c < 256; ++c) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    const bool space = c == ' ' || (c >= 9 && c <= 13);
    kinds[c] = c >= 0x80              ? kNotAscii
               : letter               ? kLetter
               : c >= '0' && c <= '9' ? kNumber
               : space                ? kSpace
                                      : kOther;
  }
  return kinds;
}
constexpr std::array<Kind, 256> kKinds = make_kinds();

Kind kind_of(uint32_t c) {
  if (is_whitespace(c)) return kSpace;
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  if (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO) return kLetter;
  if (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO) return kNumber;
  return kOther;
}

struct Character {
  Kind kind;
  uint32_t size;
};

Character character(std::string_view text, size_t at) {
  if (at >= text.size()) return {kEnd, 0};
  const Kind kind = kKinds[static_cast<uint8_t>(text[at])];
  if (kind != kNotAscii) return {kind, 1};
  const CodePoint c = decode_utf8(text, at);
  return {kind_of(c.value), c.size};
}

// End of the characters of one kind from `at` on.
size_t run_end(std::string_view text, size_t at, Kind kind) {
  while (true) {
    while (at < text.size() && kKinds[static_cast<uint8_t>(text[at])] == kind) ++at;
    if (at == text.size() || static_cast<uint8_t>(text[at]) < 0x80) return at;
    const Character next = character(text, at);
    if (next.kind != kind) return at;
    at += next.size;
  }
}

bool is_line_end(char c) { return c == '\n' || c == '\r'; }

// Bytes of 's, 't, 're, 've, 'm, 'll or 'd; 0 for none. Without case, the long s is an s too.
size_t contraction(std::string_view text, size_t at, bool ignore_case) {
  if (text[at] != '\'') return 0;
  const auto letter = [&](size_t i) {
    if (i >= text.size()) return '\0';
    const char c = text[i];
    return ignore_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  };
  const char first = letter(at + 1);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  if ((first == 'r' || first == 'v') && letter(at + 2) == 'e') return 3;
  if (first == 'l' && letter(at + 2) == 'l') return 3;
  return ignore_case && text.substr(at + 1).starts_with("\xC5\xBF") ? 3 : 0;
}

// \s+(?!\S)|\s+ : all but the last of white space that something follows, but at least one.
size_t spaces_end(std::string_view text, size_t at) {
  const size_t end = run_end(text, at, kSpace);
  if (end == text.size()) return end;
  const size_t last = previous_utf8(text, end);
  return last > at ? last : end;
}

}  // namespace

std::optional<WordScanner> WordScanner::of_pattern(std::string_view pattern) {
  if (pattern == kGpt2) return WordScanner(0);
  if (!pattern.starts_with(kLlamaFront) || !pattern.ends_with(kLlamaBack)) return std::nullopt;
  if (pattern.size() < kLlamaFront.size() + kLlamaBack.size()) return std::nullopt;
  pattern.remove_prefix(kLlamaFront.size());
  pattern.remove_suffix(kLlamaBack.size());
  if (pattern.empty()) return WordScanner(1);
  if (pattern == "{1,3}") return WordScanner(3);
  return std::nullopt;
}

size_t WordScanner::end(std::string_view text, size_t at) const {
  return digits_ == 0 ? gpt2_end(text, at) : llama_end(text, at);
}

size_t WordScanner::gpt2_end(std::string_view text, size_t at) const {
  if (const size_t size = contraction(text, at, false); size > 0) return at + size;
  const size_t start = text[at] == ' ' ? at + 1 : at;
  const Character first = character(text, start);
  if (first.kind == kSpace || first.kind == kEnd) return spaces_end(text, at);
  return run_end(text, start + first.size, first.kind);
}

size_t WordScanner::llama_end(std::string_view text, size_t at) const {
  if (const size_t size = contraction(text, at, true); size > 0) return at + size;
  const Character first = character(text, at);
  if (first.kind == kLetter) return run_end(text, at + first.size, kLetter);
  if (first.kind == kNumber) {
    size_t end = at + first.size;
    for (size_t i = 1; i < digits_; ++i) {
      const Character next = character(text, end);
      if (next.kind != kNumber) break;
      end += next.size;
    }
    return end;
  }
  const Character second = character(text, at + first.size);
  if (second.kind == kLetter && !is_line_end(text[at])) {
    return run_end(text, at + first.size + second.size, kLetter);
  }
  const bool space_and_other = text[at] == ' ' && second.kind == kOther;
  if (first.kind == kOther || space_and_other) {
    size_t end = run_end(text, at + first.size, kOther);
    while (end < text.size() && is_line_end(text[end])) ++end;
    return end;
  }
  // White space up to its last line end.
  size_t end = run_end(text, at, kSpace);
  while (end > at && !is_line_end(text[end - 1])) --end;
  return end > at ? end : spaces_end(text, at);
}

}  // namespace atom::text
