// Oniguruma (Ruby syntax) to PCRE2: see translate_regex in text/regex.h.
#include <vector>

#include "base/error.h"
#include "text/regex.h"

namespace atom::text {
namespace {

// White_Space of Unicode; PCRE2's own \s adds U+180E.
constexpr std::string_view kSpaceSet =
    R"(\x{09}-\x{0D}\x{20}\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";
constexpr std::string_view kNotSpaceSet =
    R"(\x{00}-\x{08}\x{0E}-\x{1F}\x{21}-\x{84}\x{86}-\x{9F}\x{A1}-\x{167F}\x{1681}-\x{1FFF})"
    R"(\x{200B}-\x{2027}\x{202A}-\x{202E}\x{2030}-\x{205E}\x{2060}-\x{2FFF}\x{3001}-\x{10FFFF})";
// Alphabetic, M, Nd, Pc; PCRE2's own \w is L, N and the underscore.
constexpr std::string_view kWordSet =
    R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{24B6}-\x{24E9}\x{1F130}-\x{1F149}\x{1F150}-\x{1F169}\x{1F170}-\x{1F189})";
constexpr std::string_view kHexSet = "0-9A-Fa-f";

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

class Translator {
 public:
  Translator(std::string_view pattern, std::string_view source)
      : pattern_(pattern), source_(source) {}

  std::string run() {
    while (at_ < pattern_.size()) {
      const char c = pattern_[at_];
      if (c == '\\') {
        escape(false);
      } else if (c == '[') {
        character_class();
      } else if (c == '(') {
        open_group();
      } else if (c == ')') {
        if (opened_.size() > 1) {
          out_.append(opened_.back(), ')');
          opened_.pop_back();
        }
        copy(1);
      } else if (c == '{') {
        interval();
      } else {
        copy(1);
      }
    }
    out_.append(opened_.front(), ')');
    return std::move(out_);
  }

 private:
  char peek(size_t ahead) const {
    return at_ + ahead < pattern_.size() ? pattern_[at_ + ahead] : '\0';
  }
  void copy(size_t count) {
    out_ += pattern_.substr(at_, count);
    at_ += count;
  }
  void replace(size_t count, std::string_view with) {
    out_ += with;
    at_ += count;
  }
  [[noreturn]] void unsupported(std::string_view what) const {
    fail("{}: the regular expression '{}' uses {}, which is not supported", source_, pattern_,
         what);
  }

  void set(std::string_view items, bool inside, bool negated) {
    out_ += inside ? "" : negated ? "[^" : "[";
    out_ += items;
    out_ += inside ? "" : "]";
    at_ += 2;
  }

  void escape(bool inside) {
    const char c = peek(1);
    switch (c) {
      case '\0':
        unsupported("a backslash at its end");
      case 's':
        return set(kSpaceSet, inside, false);
      case 'S':
        return set(kNotSpaceSet, inside, false);
      case 'h':
        return set(kHexSet, inside, false);
      case 'w':
        return set(kWordSet, inside, false);
      case 'W':
        if (inside) unsupported("\\W in a class");
        return set(kWordSet, inside, true);
      case 'H':
        if (inside) unsupported("\\H in a class");
        return set(kHexSet, inside, true);
      case 'v':
        return replace(2, "\\x{0B}");
      case 'Q':
      case 'E':
        return replace(2, std::string_view(&pattern_[at_ + 1], 1));
      case 'u':
        for (size_t i = 2; i < 6; ++i) {
          if (!is_hex(peek(i))) unsupported("\\u without four hexadecimal digits");
        }
        out_ += "\\x{";
        out_ += pattern_.substr(at_ + 2, 4);
        out_ += '}';
        at_ += 6;
        return;
      case 'G':  // where a search begins, which is more than one place
      case 'V':
      case 'N':
      case 'O':
      case 'y':
      case 'Y':
      case 'C':
      case 'M':
      case 'c':
      case 'o':
        unsupported(pattern_.substr(at_, 2));
      default:
        return copy(2);
    }
  }

  void character_class() {
    copy(1);
    if (peek(0) == '^') copy(1);
    if (peek(0) == ']') copy(1);
    while (at_ < pattern_.size()) {
      const char c = pattern_[at_];
      if (c == ']') return copy(1);
      if (c == '\\') {
        escape(true);
      } else if (c == '[') {
        const size_t close = pattern_.find(":]", at_ + 2);
        if (peek(1) != ':' || close == std::string_view::npos) unsupported("a class in a class");
        copy(close + 2 - at_);
      } else if (c == '&' && peek(1) == '&') {
        unsupported("a class intersection");
      } else {
        copy(1);
      }
    }
    unsupported("a class without its end");
  }

  void open_group() {
    if (peek(1) == '*') unsupported("a verb");
    if (peek(1) != '?') {
      opened_.push_back(0);
      return copy(1);
    }
    if (peek(2) == '#') {
      const size_t close = pattern_.find(')', at_);
      if (close == std::string_view::npos) unsupported("a comment without its end");
      at_ = close + 1;
      return;
    }
    if (std::string_view(":=!><").find(peek(2)) != std::string_view::npos) {
      opened_.push_back(0);
      return copy(3);
    }
    std::string flags;
    size_t i = 2;
    for (; std::string_view("im-").find(peek(i)) != std::string_view::npos; ++i) {
      flags += peek(i) == 'm' ? 's' : peek(i);  // Ruby's m is "the dot matches a newline"
    }
    const char end = peek(i);
    if (i == 2 || (end != ':' && end != ')'))
      unsupported("a group that begins with (?" + std::string(1, peek(2)));
    out_ += "(?" + flags + ":";
    at_ += i + 1;
    // An option alone holds to the end of its group, alternatives included.
    if (end == ':') {
      opened_.push_back(0);
    } else {
      ++opened_.back();
    }
  }

  // {n}, {n,}, {,m}, {n,m}; anything else in braces is literal text in both engines.
  void interval() {
    size_t i = 1;
    while (is_digit(peek(i))) ++i;
    const bool has_low = i > 1;
    const bool exact = peek(i) == '}';
    bool has_high = false;
    if (peek(i) == ',') {
      const size_t first = ++i;
      while (is_digit(peek(i))) ++i;
      has_high = i > first;
    }
    if (peek(i) != '}' || (!has_low && !has_high)) return copy(1);
    const char after = peek(i + 1);
    if (after == '+' || (exact && after == '?')) unsupported("an interval followed by + or ?");
    if (!has_low) {
      replace(1, "{0");
      return copy(i);
    }
    copy(i + 1);
  }

  std::string_view pattern_;
  std::string_view source_;
  size_t at_ = 0;
  std::string out_;
  std::vector<size_t> opened_ = {0};  // per open group: extra groups to close with it
};

}  // namespace

std::string translate_regex(std::string_view pattern, std::string_view source) {
  return Translator(pattern, source).run();
}

}  // namespace atom::text
