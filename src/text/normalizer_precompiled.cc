// Precompiled (SentencePiece's character rules, by grapheme) and ByteLevel (the byte alphabet).
#include <utf8proc.h>

#include <utility>
#include <vector>

#include "text/byte_alphabet.h"
#include "text/charsmap.h"
#include "text/normalizer_parts.h"
#include "text/unicode.h"

namespace atom::text {
namespace {

constexpr size_t kShortGrapheme = 6;  // bytes; longer ones are looked up character by character

// End of the grapheme (UAX 29, extended) that begins at `at`.
size_t grapheme_end(std::string_view text, size_t at) {
  CodePoint last = decode_utf8(text, at);
  utf8proc_int32_t state = 0;
  size_t end = at + last.size;
  while (end < text.size()) {
    const CodePoint next = decode_utf8(text, end);
    if (utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(last.value),
                                         static_cast<utf8proc_int32_t>(next.value), &state)) {
      break;
    }
    end += next.size;
    last = next;
  }
  return end;
}

// The package that files are made with takes the first rule that begins the grapheme or character,
// the shortest one, and replaces all of it; so does this.
class Precompiled final : public Normalizer {
 public:
  Precompiled(Charsmap map, std::string_view source) : map_(std::move(map)), source_(source) {}

  void apply(NormalizedText& text) const override {
    std::string out;
    out.reserve(text.text.size() + 16);
    size_t start = 0;
    const std::string_view all = text.text;
    std::vector<Change> changes;  // where spans are asked for
    auto* const log = text.sources == nullptr ? nullptr : &changes;
    for (size_t at = 0; at < all.size();) {
      const size_t end = grapheme_end(all, at);
      const std::string_view grapheme = all.substr(at, end - at);
      if (grapheme.size() >= kShortGrapheme || !replace(grapheme, out, log)) {
        for (size_t i = 0; i < grapheme.size();) {
          const std::string_view character = grapheme.substr(i, decode_utf8(grapheme, i).size);
          if (!replace(character, out, log)) {
            out += character;
            if (log != nullptr) log->push_back({decode_utf8(character, 0).value, 0});
          }
          i += character.size();
        }
      }
      check_growth(out.size(), text.max_bytes, source_);
      if (at < text.start_bytes) start = out.size();
      at = end;
    }
    if (log != nullptr) trace_changes(all, changes, *text.sources);
    text.text = std::move(out);
    text.start_bytes = start;
  }

 private:
  bool replace(std::string_view source, std::string& out, std::vector<Change>* log) const {
    if (!map_.may_start(source[0])) return false;
    const Charsmap::Rule rule = map_.shortest(source);
    if (rule.size == 0) return false;
    out += rule.replacement;
    if (log != nullptr) log_replacement(source, rule.replacement, *log);
    return true;
  }

  // Characters beyond as many as there were count as added; of too few, the last takes the rest along.
  static void log_replacement(std::string_view source, std::string_view content,
                              std::vector<Change>& log) {
    int left = 0;
    for (size_t at = 0; at < source.size(); at += decode_utf8(source, at).size) ++left;
    for (size_t at = 0; at < content.size();) {
      const CodePoint c = decode_utf8(content, at);
      log.push_back({c.value, left > 0 ? 0 : 1});
      --left;
      at += c.size;
    }
    if (left > 0 && !log.empty()) log.back().change -= left;
  }

  Charsmap map_;
  std::string source_;
};

class ByteLevelNormalizer final : public Normalizer {
 public:
  explicit ByteLevelNormalizer(std::string_view source) : source_(source) {}
  void apply(NormalizedText& text) const override {
    std::string start, out;
    append_byte_characters(start, std::string_view(text.text).substr(0, text.start_bytes));
    Trace trace(text.sources);
    for (size_t i = 0; i < text.text.size(); ++i) {
      append_byte_characters(out, std::string_view(text.text).substr(i, 1));
      trace.until(out.size(), i);
    }
    trace.finish();
    check_growth(out.size(), text.max_bytes, source_);
    text.text = std::move(out);
    text.start_bytes = start.size();
  }

 private:
  std::string source_;
};

}  // namespace

NormalizerPtr make_precompiled(const Json& json, std::string_view source) {
  const std::string text = get_string_or(json, "precompiled_charsmap", "", source);
  return std::make_unique<Precompiled>(Charsmap::from_bytes(decode_base64(text, source), source),
                                       source);
}

NormalizerPtr make_byte_level_normalizer(const Json&, std::string_view source) {
  return std::make_unique<ByteLevelNormalizer>(source);
}

}  // namespace atom::text
