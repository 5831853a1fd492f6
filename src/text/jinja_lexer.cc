#include "text/jinja_lexer.h"

#include <algorithm>
#include <optional>

#include "text/jinja_text.h"
#include "text/jinja_value.h"
#include "text/unicode.h"

namespace atom::text::jinja {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Line ends become \n; one at the very end goes.
std::string normalized(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t at = 0; at < source.size(); ++at) {
    if (source[at] == '\r') {
      if (at + 1 < source.size() && source[at + 1] == '\n') ++at;
      out += '\n';
    } else {
      out += source[at];
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalized(source)), rest_(source_) {}

  std::vector<Token> run() {
    while (!rest_.empty()) step();
    add(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail_here(std::string_view what) const { raise("line {}: {}", line_, what); }

  void add(TokenKind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }

  void advance(size_t bytes) {
    line_ +=
        static_cast<int>(std::count(rest_.begin(), rest_.begin() + static_cast<long>(bytes), '\n'));
    if (bytes > 0) after_newline_ = rest_[bytes - 1] == '\n';
    rest_.remove_prefix(bytes);
  }
  void skip_space() { advance(rest_.size() - strip_front(rest_).size()); }

  // Text up to the next tag, and the tag.
  void step() {
    size_t at = rest_.find('{');
    while (at != std::string_view::npos &&
           (at + 1 >= rest_.size() ||
            std::string_view("{%#").find(rest_[at + 1]) == std::string_view::npos)) {
      at = rest_.find('{', at + 1);
    }
    if (at == std::string_view::npos) {
      add(TokenKind::kText, std::string(rest_));
      advance(rest_.size());
      return;
    }
    const char tag = rest_[at + 1];
    take_text(at, tag == '{');
    if (const size_t raw = raw_begin(); raw > 0) {
      advance(raw);
      take_raw();
      return;
    }
    advance(2 + sign_size(2));
    if (tag == '#') {
      skip_comment();
    } else {
      add(tag == '{' ? TokenKind::kPrintBegin : TokenKind::kBlockBegin, "");
      take_code(tag == '%');
    }
  }

  size_t sign_size(size_t at) const {
    return at < rest_.size() && (rest_[at] == '-' || rest_[at] == '+') ? 1 : 0;
  }

  // Emits the text before the tag at `at`, without the white space that its sign or lstrip_blocks
  // takes away.
  void take_text(size_t at, bool prints) {
    std::string_view text = rest_.substr(0, at);
    const char sign = at + 2 < rest_.size() ? rest_[at + 2] : ' ';
    if (sign == '-') {
      text = strip_back(text);
    } else if (sign != '+' && !prints) {
      const size_t newline = text.rfind('\n');
      const size_t start = newline == std::string_view::npos ? 0 : newline + 1;
      if ((start > 0 || after_newline_) && strip_front(text.substr(start)).empty())
        text = text.substr(0, start);
    }
    if (!text.empty()) add(TokenKind::kText, std::string(text));
    advance(at);
  }

  // Size of `{% raw %}` at the front; 0: something else.
  size_t raw_begin() const {
    if (!rest_.starts_with("{%")) return 0;
    std::string_view text = strip_front(rest_.substr(2 + sign_size(2)));
    if (!text.starts_with("raw")) return 0;
    text = strip_front(text.substr(3));
    if (text.starts_with("-%}")) {
      text = strip_front(text.substr(3));
    } else if (text.starts_with("%}")) {
      text = text.substr(2);
    } else {
      return 0;
    }
    return rest_.size() - text.size();
  }

  void take_raw() {
    for (size_t at = rest_.find("{%"); at != std::string_view::npos;
         at = rest_.find("{%", at + 2)) {
      const size_t sign = sign_size(at + 2);
      std::string_view text = strip_front(rest_.substr(at + 2 + sign));
      if (!text.starts_with("endraw")) continue;
      text = strip_front(text.substr(6));
      const size_t end = end_size(text, '%', true);
      if (end == 0) continue;
      const size_t total = rest_.size() - text.size() + end;
      take_text(at, false);
      advance(total - at);
      return;
    }
    fail_here("{% raw %} has no {% endraw %}");
  }

  // Size of the end of a tag (`%}` and its like, with a sign) and of the white space that it takes
  // along; 0: no end here.
  static size_t end_size(std::string_view text, char tag, bool trims) {
    const char close[] = {tag, '}', 0};
    if (text.starts_with('-') && text.substr(1).starts_with(close))
      return text.size() - strip_front(text.substr(3)).size();
    if (trims && text.starts_with('+') && text.substr(1).starts_with(close)) return 3;
    if (!text.starts_with(close)) return 0;
    return trims && text.size() > 2 && text[2] == '\n' ? 3 : 2;
  }

  void skip_comment() {
    const size_t end = rest_.find("#}");
    if (end == std::string_view::npos) fail_here("a comment has no end");
    const size_t start =
        end > 0 && (rest_[end - 1] == '-' || rest_[end - 1] == '+') ? end - 1 : end;
    advance(start + end_size(rest_.substr(start), '#', true));
  }

  void take_code(bool block) {
    std::string open;  // brackets that wait for their partner
    while (true) {
      skip_space();
      if (rest_.empty()) fail_here("the template ends inside a tag");
      if (open.empty()) {
        const size_t end = end_size(rest_, block ? '%' : '}', block);
        if (end > 0) {
          add(block ? TokenKind::kBlockEnd : TokenKind::kPrintEnd, "");
          advance(end);
          return;
        }
      }
      if (!take_number() && !take_name() && !take_string()) take_operator(open);
    }
  }

  // Digits with single underscores between them.
  static size_t digits(std::string_view text, size_t at) {
    const size_t start = at;
    while (at < text.size() &&
           (is_digit(text[at]) ||
            (text[at] == '_' && at > start && at + 1 < text.size() && is_digit(text[at + 1])))) {
      ++at;
    }
    return at - start;
  }

  bool take_number() {
    if (!is_digit(rest_[0])) return false;
    const bool after_dot = !tokens_.empty() && tokens_.back().kind == TokenKind::kOperator &&
                           tokens_.back().text == ".";
    size_t size = digits(rest_, 0);
    bool real = false;
    if (!after_dot) {
      size_t end = size;
      if (end + 1 < rest_.size() && rest_[end] == '.' && digits(rest_, end + 1) > 0) {
        end += 1 + digits(rest_, end + 1);
        real = true;
      }
      if (end < rest_.size() && (rest_[end] == 'e' || rest_[end] == 'E')) {
        const size_t power = end + 1 + sign_size(end + 1);
        if (digits(rest_, power) > 0) {
          end = power + digits(rest_, power);
          real = true;
        }
      }
      size = end;
    }
    std::string text(rest_.substr(0, size));
    std::erase(text, '_');
    add(real ? TokenKind::kFloat : TokenKind::kInteger, std::move(text));
    advance(size);
    return true;
  }

  bool take_name() {
    size_t size = 0;
    while (size < rest_.size()) {
      const CodePoint c = decode_utf8(rest_, size);
      if (!is_word(c.value)) break;
      size += c.size;
    }
    if (size == 0) return false;
    add(TokenKind::kName, std::string(rest_.substr(0, size)));
    advance(size);
    return true;
  }

  bool take_string() {
    const char quote = rest_[0];
    if (quote != '\'' && quote != '"') return false;
    size_t end = 1;
    while (end < rest_.size() && rest_[end] != quote) end += rest_[end] == '\\' ? 2 : 1;
    if (end >= rest_.size()) fail_here("a text in quotes has no end");
    add(TokenKind::kString, unescaped(rest_.substr(1, end - 1)));
    advance(end + 1);
    return true;
  }

  std::string unescaped(std::string_view text) const {
    std::string out;
    for (size_t at = 0; at < text.size();) {
      if (text[at] != '\\') {
        out += text[at++];
        continue;
      }
      constexpr std::string_view kPlain = "\\'\"abfnrtv\n";
      constexpr std::string_view kMeaning = "\\'\"\a\b\f\n\r\t\v";
      const char c = text[at + 1];
      const size_t plain = kPlain.find(c);
      if (plain != std::string_view::npos) {
        if (plain < kMeaning.size()) out += kMeaning[plain];
        at += 2;
      } else if (c == 'x' || c == 'u' || c == 'U') {
        at += 2 + append_code(out, text.substr(at + 2), c == 'x' ? 2 : c == 'u' ? 4 : 8, 16);
      } else if (c >= '0' && c <= '7') {
        size_t size = 1;
        while (size < 3 && at + 1 + size < text.size() && text[at + 1 + size] >= '0' &&
               text[at + 1 + size] <= '7') {
          ++size;
        }
        at += 1 + append_code(out, text.substr(at + 1), size, 8);
      } else if (c == 'N') {
        fail_here("\\N{...} in a text is not supported");
      } else {
        out += '\\';
        ++at;
      }
    }
    return out;
  }

  size_t append_code(std::string& out, std::string_view text, size_t size, uint32_t base) const {
    uint64_t code = 0;
    for (size_t i = 0; i < size; ++i) {
      const char c = i < text.size() ? text[i] : '?';
      const auto lower = static_cast<char>(c | 0x20);
      const bool letter = lower >= 'a' && lower <= 'f' && base == 16;
      if (!is_digit(c) && !letter) fail_here("an escape in a text lacks digits");
      code = code * base + static_cast<uint32_t>(letter ? lower - 'a' + 10 : c - '0');
    }
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
      fail_here("an escape in a text names no character");
    append_utf8(out, static_cast<uint32_t>(code));
    return size;
  }

  void take_operator(std::string& open) {
    size_t size = 1;
    for (const std::string_view two : {"//", "**", "==", "!=", ">=", "<="}) {
      if (rest_.starts_with(two)) size = 2;
    }
    const char c = rest_[0];
    if (size == 1 && std::string_view("+-/*%~[](){}><=.:|,;").find(c) == std::string_view::npos)
      fail_here(fmt::format("the character {:?} has no meaning in a tag",
                            rest_.substr(0, decode_utf8(rest_, 0).size)));
    if (c == '(' || c == '[' || c == '{') open += c;
    if (c == ')' || c == ']' || c == '}') {
      const char wanted = c == ')' ? '(' : c == ']' ? '[' : '{';
      if (open.empty() || open.back() != wanted) fail_here(fmt::format("'{}' closes nothing", c));
      open.pop_back();
    }
    add(TokenKind::kOperator, std::string(rest_.substr(0, size)));
    advance(size);
  }

  std::string source_;
  std::string_view rest_;
  int line_ = 1;
  bool after_newline_ = true;  // what was read last ended a line
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) { return Lexer(source).run(); }

}  // namespace atom::text::jinja
