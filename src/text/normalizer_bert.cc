// BertNormalizer, StripAccents and Lowercase: normalizers that look at characters one by one.
#include <utf8proc.h>

#include <utility>
#include <vector>

#include "text/normalizer_parts.h"
#include "text/unicode.h"

namespace atom::text {
namespace {

utf8proc_category_t category_of(uint32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

using CharacterMap = void (*)(uint32_t c, std::string& out);  // appends what c becomes

class MapCharacters final : public Normalizer {
 public:
  MapCharacters(CharacterMap map, std::string_view source) : map_(map), source_(source) {}
  void apply(NormalizedText& text) const override {
    std::string out;
    out.reserve(text.text.size());
    size_t start = 0;
    Trace trace(text.sources);
    for (size_t at = 0; at < text.text.size();) {
      const CodePoint c = decode_utf8(text.text, at);
      map_(c.value, out);
      trace.until(out.size(), at);
      at += c.size;
      if (at <= text.start_bytes) start = out.size();
    }
    check_growth(out.size(), text.max_bytes, source_);
    trace.finish();
    text.text = std::move(out);
    text.start_bytes = start;
  }

 private:
  CharacterMap map_;
  std::string source_;
};

class Steps final : public Normalizer {
 public:
  explicit Steps(std::vector<NormalizerPtr> steps) : steps_(std::move(steps)) {}
  void apply(NormalizedText& text) const override {
    for (const NormalizerPtr& step : steps_) step->apply(text);
  }

 private:
  std::vector<NormalizerPtr> steps_;
};

// Control characters go, white space becomes a space.
void clean_character(uint32_t c, std::string& out) {
  if (c == '\t' || c == '\n' || c == '\r') {
    out += ' ';
    return;
  }
  const auto kind = category_of(c);
  if (c == 0 || c == 0xFFFD || kind == UTF8PROC_CATEGORY_CC || kind == UTF8PROC_CATEGORY_CF ||
      kind == UTF8PROC_CATEGORY_CO) {
    return;
  }
  append_utf8(out, is_whitespace(c) ? ' ' : c);
}

// The ranges of the original; the sixth begins at U+2B920 in the package that files are made with.
void separate_chinese(uint32_t c, std::string& out) {
  const auto within = [&](uint32_t low, uint32_t high) { return c >= low && c <= high; };
  const bool chinese = within(0x4E00, 0x9FFF) || within(0x3400, 0x4DBF) ||
                       within(0x20000, 0x2A6DF) || within(0x2A700, 0x2B73F) ||
                       within(0x2B740, 0x2B81F) || within(0x2B920, 0x2CEAF) ||
                       within(0xF900, 0xFAFF) || within(0x2F800, 0x2FA1F);
  if (chinese) out += ' ';
  append_utf8(out, c);
  if (chinese) out += ' ';
}

void drop_nonspacing_marks(uint32_t c, std::string& out) {
  if (category_of(c) != UTF8PROC_CATEGORY_MN) append_utf8(out, c);
}

void drop_marks(uint32_t c, std::string& out) {
  const auto kind = category_of(c);
  if (kind < UTF8PROC_CATEGORY_MN || kind > UTF8PROC_CATEGORY_ME) append_utf8(out, c);
}

}  // namespace

NormalizerPtr make_bert(const Json& json, std::string_view source) {
  const bool lowercase = get_bool_or(json, "lowercase", true, source);
  std::vector<NormalizerPtr> steps;
  if (get_bool_or(json, "clean_text", true, source)) {
    steps.push_back(std::make_unique<MapCharacters>(&clean_character, source));
  }
  if (get_bool_or(json, "handle_chinese_chars", true, source)) {
    steps.push_back(std::make_unique<MapCharacters>(&separate_chinese, source));
  }
  if (get_bool_or(json, "strip_accents", lowercase, source)) {
    steps.push_back(make_nfd(json, source));
    steps.push_back(std::make_unique<MapCharacters>(&drop_nonspacing_marks, source));
  }
  if (lowercase) steps.push_back(make_lowercase(json, source));
  return std::make_unique<Steps>(std::move(steps));
}

NormalizerPtr make_lowercase(const Json&, std::string_view source) {
  return std::make_unique<MapCharacters>(
      [](uint32_t c, std::string& out) { append_lowercase(out, c); }, source);
}

NormalizerPtr make_strip_accents(const Json&, std::string_view source) {
  return std::make_unique<MapCharacters>(&drop_marks, source);
}

}  // namespace atom::text
