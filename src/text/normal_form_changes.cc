#include "text/normal_form_changes.h"

#include <utf8proc.h>

#include <algorithm>
#include <optional>

#include "text/unicode.h"

namespace atom::text {
namespace {

int combining_class(uint32_t c) {
  return utf8proc_get_property(static_cast<utf8proc_int32_t>(c))->combining_class;
}

// Marks behind a character are put in the order of their classes.
std::vector<Change> decompose(std::string_view text, int options) {
  constexpr int kMostParts = 32;  // of one character; Unicode needs 18
  const auto flags =
      static_cast<utf8proc_option_t>(options & ~UTF8PROC_COMPOSE) | UTF8PROC_DECOMPOSE;
  std::vector<Change> out;
  out.reserve(text.size());
  size_t pending = 0;  // where the marks begin that may still move
  const auto settle = [&] {
    std::stable_sort(out.begin() + static_cast<std::ptrdiff_t>(pending), out.end(),
                     [](const Change& a, const Change& b) {
                       return combining_class(a.code_point) < combining_class(b.code_point);
                     });
  };
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = decode_utf8(text, at);
    at += c.size;
    utf8proc_int32_t parts[kMostParts];
    int boundary = 0;
    const auto count =
        utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c.value), parts, kMostParts,
                                static_cast<utf8proc_option_t>(flags), &boundary);
    for (utf8proc_ssize_t i = 0; i < count; ++i) {
      const Change part{static_cast<uint32_t>(parts[i]), i == 0 ? 0 : 1};
      const int own = combining_class(part.code_point);
      if (own == 0) settle();
      out.push_back(part);
      if (own == 0) pending = out.size();
    }
  }
  settle();
  return out;
}

std::optional<uint32_t> composed(uint32_t a, uint32_t b) {
  utf8proc_int32_t pair[] = {static_cast<utf8proc_int32_t>(a), static_cast<utf8proc_int32_t>(b)};
  const auto flags = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  if (utf8proc_normalize_utf32(pair, 2, flags) != 1) return std::nullopt;
  return static_cast<uint32_t>(pair[0]);
}

// A mark joins the last character of class 0 unless a mark between them has its class or a higher one.
std::vector<Change> compose(const std::vector<Change>& parts) {
  std::vector<Change> out;
  out.reserve(parts.size());
  std::optional<size_t> starter;  // in out
  int last_class = -1;            // of what stands behind it; -1: nothing
  for (const Change& part : parts) {
    const int own = combining_class(part.code_point);
    if (starter && (last_class < own || last_class == -1)) {
      Change& before = out[*starter];
      if (const auto both = composed(before.code_point, part.code_point)) {
        before = {*both, before.change + part.change - 1};
        continue;
      }
    }
    if (own == 0) {
      starter = out.size();
      last_class = -1;
    } else if (starter) {
      last_class = own;
    }
    out.push_back(part);
  }
  return out;
}

}  // namespace

std::vector<Change> normal_form_changes(std::string_view text, int options) {
  std::vector<Change> parts = decompose(text, options);
  return (options & UTF8PROC_COMPOSE) != 0 ? compose(parts) : parts;
}

}  // namespace atom::text
