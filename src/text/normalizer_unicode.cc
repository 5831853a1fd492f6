// Unicode normal forms (UAX 15).
#include <utf8proc.h>

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "text/normal_form_changes.h"
#include "text/normalizer_parts.h"
#include "text/unicode.h"

namespace atom::text {
namespace {

bool is_ascii(std::string_view text) {
  for (const char c : text) {
    if (static_cast<uint8_t>(c) >= 0x80) return false;
  }
  return true;
}

// `options`: utf8proc's decomposition and composition flags.
std::string normal_form(std::string_view text, int options) {
  const auto flags = static_cast<utf8proc_option_t>(options);
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  const auto length = static_cast<utf8proc_ssize_t>(text.size());
  // Decomposition yields at most 18 code points for one (UAX 15); most text yields one.
  std::vector<utf8proc_int32_t> points(text.size() + 32);
  auto count = utf8proc_decompose(bytes, length, points.data(),
                                  static_cast<utf8proc_ssize_t>(points.size()), flags);
  if (count > static_cast<utf8proc_ssize_t>(points.size())) {
    points.resize(static_cast<size_t>(count));
    count = utf8proc_decompose(bytes, length, points.data(), count, flags);
  }
  check(count >= 0, "utf8proc accepts valid UTF-8");
  count = utf8proc_normalize_utf32(points.data(), count, flags);
  check(count >= 0, "utf8proc composes what it decomposed");
  std::string out;
  out.reserve(text.size());
  for (utf8proc_ssize_t i = 0; i < count; ++i) {
    append_utf8(out, static_cast<uint32_t>(points[static_cast<size_t>(i)]));
  }
  return out;
}

// The same, for text that is mostly ASCII. An ASCII character starts anew: nothing before it combines
// with it, so a stretch may begin at the last one before other characters and end before the next.
std::string normal_form_of_mixed(std::string_view text, int options) {
  const auto ascii = [&](size_t at) { return static_cast<uint8_t>(text[at]) < 0x80; };
  std::string out;
  out.reserve(text.size() + text.size() / 16);
  size_t copied = 0;
  for (size_t at = 0; at < text.size();) {
    if (ascii(at)) {
      ++at;
      continue;
    }
    const size_t begin = at > copied ? at - 1 : at;
    out += text.substr(copied, begin - copied);
    while (at < text.size() && !ascii(at)) ++at;
    out += normal_form(text.substr(begin, at - begin), options);
    copied = at;
  }
  return out += text.substr(copied);
}

class NormalForm final : public Normalizer {
 public:
  NormalForm(int options, std::string_view source) : options_(options), source_(source) {}
  void apply(NormalizedText& text) const override {
    if (is_ascii(text.text)) return;
    const size_t start = normal_form(text.text.substr(0, text.start_bytes), options_).size();
    if (text.sources == nullptr) {
      text.text = normal_form_of_mixed(text.text, options_);
    } else {
      const std::vector<Change> changes = normal_form_changes(text.text, options_);
      trace_changes(text.text, changes, *text.sources);
      text.text.clear();
      for (const Change& change : changes) append_utf8(text.text, change.code_point);
    }
    check_growth(text.text.size(), text.max_bytes, source_);
    text.start_bytes = std::min(start, text.text.size());
  }

 private:
  int options_;
  std::string source_;
};

}  // namespace

NormalizerPtr make_nfc(const Json&, std::string_view source) {
  return std::make_unique<NormalForm>(UTF8PROC_STABLE | UTF8PROC_COMPOSE, source);
}
NormalizerPtr make_nfd(const Json&, std::string_view source) {
  return std::make_unique<NormalForm>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, source);
}
NormalizerPtr make_nfkc(const Json&, std::string_view source) {
  return std::make_unique<NormalForm>(UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT, source);
}
NormalizerPtr make_nfkd(const Json&, std::string_view source) {
  return std::make_unique<NormalForm>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
                                      source);
}

}  // namespace atom::text
