#include "text/jinja_text.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>

#include "text/unicode.h"

namespace atom::text::jinja {
namespace {

utf8proc_category_t category_of(uint32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

// Characters whose upper case is more than one character (SpecialCasing.txt), the common ones.
struct LongUpper {
  uint32_t lower;
  std::string_view upper, title;
};
constexpr LongUpper kLongUpper[] = {
    {0xDF, "SS", "Ss"},     {0x149, "\xCA\xBCN", "\xCA\xBCN"},
    {0xFB00, "FF", "Ff"},   {0xFB01, "FI", "Fi"},
    {0xFB02, "FL", "Fl"},   {0xFB03, "FFI", "Ffi"},
    {0xFB04, "FFL", "Ffl"}, {0xFB05, "ST", "St"},
    {0xFB06, "ST", "St"},
};

void append_upper(std::string& out, uint32_t c, bool as_title) {
  for (const LongUpper& special : kLongUpper) {
    if (special.lower == c) {
      out += as_title ? special.title : special.upper;
      return;
    }
  }
  const auto point = static_cast<utf8proc_int32_t>(c);
  append_utf8(out,
              static_cast<uint32_t>(as_title ? utf8proc_totitle(point) : utf8proc_toupper(point)));
}

bool is_cased(uint32_t c) {
  const auto kind = category_of(c);
  return kind == UTF8PROC_CATEGORY_LU || kind == UTF8PROC_CATEGORY_LL ||
         kind == UTF8PROC_CATEGORY_LT;
}

// A sigma at the end of a word is written differently: after a letter and before none.
bool is_final_sigma(std::string_view text, size_t at) {
  if (at == 0 || !is_cased(decode_utf8(text, previous_utf8(text, at)).value)) return false;
  const size_t next = at + 2;
  return next >= text.size() || !is_cased(decode_utf8(text, next).value);
}

void append_lower(std::string& out, std::string_view text, size_t at, uint32_t c) {
  if (c == 0x3A3 && is_final_sigma(text, at)) {
    append_utf8(out, 0x3C2);
  } else {
    append_lowercase(out, c);
  }
}

template <typename F>
void each_code_point(std::string_view text, F&& f) {
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = decode_utf8(text, at);
    f(at, c.value);
    at += c.size;
  }
}

bool stripped(std::string_view character, std::optional<std::string_view> set) {
  if (!set) return is_space(decode_utf8(character, 0).value);
  return set->find(character) != std::string_view::npos;
}

bool is_line_end(uint32_t c) {
  return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
         c == 0x2029;
}

bool is_printable(uint32_t c) {
  if (c == ' ') return true;
  switch (category_of(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

std::vector<std::string_view> split_at_spaces(std::string_view text, int64_t most, bool right) {
  std::vector<std::string_view> out;
  text = right ? strip_back(text) : strip_front(text);
  while (!text.empty()) {
    if (most >= 0 && static_cast<int64_t>(out.size()) == most) {
      out.push_back(right ? strip_front(strip_back(text)) : text);
      if (right) out.back() = strip_back(text);
      break;
    }
    size_t at = right ? text.size() : 0;
    if (right) {
      while (at > 0 && !is_space(decode_utf8(text, previous_utf8(text, at)).value))
        at = previous_utf8(text, at);
      out.push_back(text.substr(at));
      text = strip_back(text.substr(0, at));
    } else {
      while (at < text.size() && !is_space(decode_utf8(text, at).value))
        at += decode_utf8(text, at).size;
      out.push_back(text.substr(0, at));
      text = strip_front(text.substr(at));
    }
  }
  if (right) std::reverse(out.begin(), out.end());
  return out;
}

}  // namespace

bool is_space(uint32_t c) { return is_whitespace(c) || (c >= 0x1C && c <= 0x1F); }

size_t count_code_points(std::string_view text) {
  return static_cast<size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; }));
}

size_t byte_offset(std::string_view text, size_t position) {
  size_t at = 0;
  while (position > 0 && at < text.size()) {
    at += decode_utf8(text, at).size;
    --position;
  }
  return at;
}

std::string_view strip_front(std::string_view text, std::optional<std::string_view> set) {
  while (!text.empty()) {
    const size_t size = decode_utf8(text, 0).size;
    if (!stripped(text.substr(0, size), set)) break;
    text.remove_prefix(size);
  }
  return text;
}

std::string_view strip_back(std::string_view text, std::optional<std::string_view> set) {
  while (!text.empty()) {
    const size_t at = previous_utf8(text, text.size());
    if (!stripped(text.substr(at), set)) break;
    text = text.substr(0, at);
  }
  return text;
}

std::string upper(std::string_view text) {
  std::string out;
  each_code_point(text, [&](size_t, uint32_t c) { append_upper(out, c, false); });
  return out;
}

std::string lower(std::string_view text) {
  std::string out;
  each_code_point(text, [&](size_t at, uint32_t c) { append_lower(out, text, at, c); });
  return out;
}

std::string title(std::string_view text) {
  std::string out;
  bool inside = false;
  each_code_point(text, [&](size_t at, uint32_t c) {
    if (inside) {
      append_lower(out, text, at, c);
    } else {
      append_upper(out, c, true);
    }
    inside = is_cased(c);
  });
  return out;
}

std::string capitalize(std::string_view text) {
  std::string out;
  each_code_point(text, [&](size_t at, uint32_t c) {
    if (at == 0) {
      append_upper(out, c, true);
    } else {
      append_lower(out, text, at, c);
    }
  });
  return out;
}

std::optional<std::string> replace(std::string_view text, std::string_view old, std::string_view by,
                                   int64_t count, size_t max_bytes) {
  std::string out;
  size_t at = 0;
  for (int64_t done = 0; count < 0 || done < count; ++done) {
    const size_t found = text.find(old, at);
    if (found == std::string_view::npos) break;
    if (old.empty()) {  // before every character and at the end
      out += by;
      if (at == text.size()) break;
      const size_t size = decode_utf8(text, at).size;
      out += text.substr(at, size);
      at += size;
    } else {
      out += text.substr(at, found - at);
      out += by;
      at = found + old.size();
    }
    if (out.size() > max_bytes) return std::nullopt;
  }
  if (at < text.size()) out += text.substr(at);
  return out;
}

std::vector<std::string_view> split(std::string_view text,
                                    std::optional<std::string_view> separator, int64_t most,
                                    bool right) {
  if (!separator) return split_at_spaces(text, most, right);
  std::vector<std::string_view> out;
  while (most < 0 || static_cast<int64_t>(out.size()) < most) {
    const size_t at = right ? text.rfind(*separator) : text.find(*separator);
    if (at == std::string_view::npos) break;
    const size_t after = at + separator->size();
    out.push_back(right ? text.substr(after) : text.substr(0, at));
    text = right ? text.substr(0, at) : text.substr(after);
  }
  out.push_back(text);
  if (right) std::reverse(out.begin(), out.end());
  return out;
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> out;
  size_t start = 0;
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = decode_utf8(text, at);
    size_t after = at + c.size;
    if (is_line_end(c.value)) {
      if (c.value == '\r' && after < text.size() && text[after] == '\n') ++after;
      out.push_back(text.substr(start, (keep_ends ? after : at) - start));
      start = after;
    }
    at = after;
  }
  if (start < text.size()) out.push_back(text.substr(start));
  return out;
}

void append_quoted(std::string& out, std::string_view text) {
  const bool single = text.find('\'') != std::string_view::npos;
  const char quote = single && text.find('"') == std::string_view::npos ? '"' : '\'';
  out += quote;
  each_code_point(text, [&](size_t, uint32_t c) {
    if (c == static_cast<uint32_t>(quote) || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (is_printable(c)) {
      append_utf8(out, c);
    } else if (c < 0x100) {
      out += fmt::format("\\x{:02x}", c);
    } else {
      out += c < 0x10000 ? fmt::format("\\u{:04x}", c) : fmt::format("\\U{:08x}", c);
    }
  });
  out += quote;
}

bool in_class(uint32_t c, CharacterClass wanted) {
  const auto kind = category_of(c);
  switch (wanted) {
    case CharacterClass::kAlpha:
      return is_cased(c) || kind == UTF8PROC_CATEGORY_LM || kind == UTF8PROC_CATEGORY_LO;
    case CharacterClass::kDecimal:
      return kind == UTF8PROC_CATEGORY_ND;
    case CharacterClass::kDigit:
      return kind == UTF8PROC_CATEGORY_ND || c == 0xB2 || c == 0xB3 || c == 0xB9;
    case CharacterClass::kNumeric:
      return is_numeric(c);
    case CharacterClass::kSpace:
      return is_space(c);
    case CharacterClass::kUpper:
      return kind == UTF8PROC_CATEGORY_LU;
    case CharacterClass::kLower:
      return kind == UTF8PROC_CATEGORY_LL;
    case CharacterClass::kCased:
      return is_cased(c);
  }
  return false;
}

}  // namespace atom::text::jinja
