#include "text/sentencepiece_normalizer.h"

#include <algorithm>
#include <utility>

#include "text/unicode.h"

namespace atom::text {
namespace {

constexpr std::string_view kMark = "\xE2\x96\x81";  // U+2581

// Where each new byte comes from, as the library counts: from the unit that made it to where the next byte's
// unit begins.
struct Starts {
  SourceMap* map;
  SourceMap fresh;

  void until(size_t size, size_t unit) {
    if (map == nullptr || map->empty()) return;
    const uint32_t begin = unit < map->size() ? (*map)[unit].begin : map->back().end;
    fresh.resize(size, {begin, begin});
  }
  void finish(size_t size) {
    if (map == nullptr) return;
    uint32_t end = map->empty() ? 0 : map->back().end;
    for (size_t i = fresh.size(); i-- > 0;) {
      fresh[i].end = end;
      end = fresh[i].begin;
    }
    fresh.resize(size);
    *map = std::move(fresh);
  }
};

class SentencePieceNormalizer final : public Normalizer {
 public:
  SentencePieceNormalizer(const SentencePieceFile& file, bool every_stretch)
      : options_(file.normalizer),
        source_(file.source + ": normalizer_spec"),
        user_defined_(user_defined_pieces(file)),
        space_(options_.escape_whitespaces ? kMark : " "),
        every_stretch_(every_stretch) {}

  void apply(NormalizedText& text) const override {
    const bool opens_text = text.start_bytes > 0;
    std::string out;
    out.reserve(text.text.size() + text.text.size() / 2 + 8);
    size_t at = options_.remove_extra_whitespaces ? first_visible(text.text) : 0;
    const bool prefix = options_.add_dummy_prefix && (every_stretch_ || opens_text);
    Starts starts{text.sources, {}};
    if (at < text.text.size() && prefix) out += space_;
    starts.until(out.size(), at);
    bool after_space = options_.remove_extra_whitespaces;
    while (at < text.text.size()) {
      auto [size, normal] = unit_at(text.text, at);
      const size_t unit = at;
      at += size;
      while (after_space && normal.starts_with(' ')) normal.remove_prefix(1);
      if (normal.empty()) continue;
      for (const char c : normal) {
        if (c == ' ') {
          out += space_;
        } else {
          out += c;
        }
      }
      starts.until(out.size(), unit);
      check_growth(out.size(), text.max_bytes, source_);
      after_space = options_.remove_extra_whitespaces && normal.ends_with(' ');
    }
    if (options_.remove_extra_whitespaces) {
      while (out.ends_with(space_)) out.resize(out.size() - space_.size());
    }
    starts.finish(out.size());
    text.text = std::move(out);
    text.start_bytes = opens_text ? std::min<size_t>(1, text.text.size()) : 0;
  }

 private:
  struct Unit {
    size_t size;              // bytes of the text
    std::string_view normal;  // what they become; may be empty
  };

  // A user-defined piece as it stands, else the longest rule, else one character.
  Unit unit_at(std::string_view text, size_t at) const {
    if (const size_t size = user_defined_.match_bytes(text, at); size > 0) {
      return {size, text.substr(at, size)};
    }
    if (options_.charsmap.may_start(text[at])) {
      const Charsmap::Rule rule = options_.charsmap.longest(text, at);
      if (rule.size > 0) return {rule.size, rule.replacement};
    }
    const size_t size = decode_utf8(text, at).size;
    return {size, text.substr(at, size)};
  }

  size_t first_visible(std::string_view text) const {
    size_t at = 0;
    while (at < text.size()) {
      const Unit unit = unit_at(text, at);
      if (unit.normal != " ") break;
      at += unit.size;
    }
    return at;
  }

  SentencePieceFile::Normalizer options_;
  std::string source_;
  AddedTokenMatcher user_defined_;
  std::string space_;
  bool every_stretch_;
};

}  // namespace

AddedTokenMatcher user_defined_pieces(const SentencePieceFile& file) {
  std::vector<AddedToken> tokens;
  std::vector<std::string> contents;
  for (size_t i = 0; i < file.pieces.size(); ++i) {
    if (file.pieces[i].kind != SentencePiece::Kind::kUserDefined) continue;
    tokens.push_back({.id = static_cast<int32_t>(i), .content = file.pieces[i].text});
    contents.push_back(file.pieces[i].text);
  }
  return {std::move(tokens), contents};
}

std::unique_ptr<const Normalizer> make_sentencepiece_normalizer(const SentencePieceFile& file,
                                                                bool every_stretch) {
  return std::make_unique<SentencePieceNormalizer>(file, every_stretch);
}

}  // namespace atom::text
