// Pre-tokenizers that split at classes of characters: Digits, Punctuation, Whitespace,
// WhitespaceSplit, BertPreTokenizer, CharDelimiterSplit.
#include "text/component.h"
#include "text/pre_tokenizer_parts.h"
#include "text/split_behavior.h"
#include "text/unicode.h"

namespace atom::text {
namespace {

// Each character of the class is one match.
class ClassSplit final : public PreTokenizer {
 public:
  using Class = bool (*)(uint32_t code_point);
  ClassSplit(Class matches, SplitBehavior behavior) : matches_(matches), behavior_(behavior) {}

  void apply(Pieces& pieces) const override {
    split_pieces(pieces, behavior_, [this](std::string_view piece, std::vector<MatchPart>& parts) {
      parts.clear();
      size_t covered = 0;
      for (size_t at = 0; at < piece.size();) {
        const CodePoint c = decode_utf8(piece, at);
        if (matches_(c.value)) {
          if (covered < at) parts.push_back({covered, at, false});
          parts.push_back({at, at + c.size, true});
          covered = at + c.size;
        }
        at += c.size;
      }
      if (covered < piece.size()) parts.push_back({covered, piece.size(), false});
    });
  }

 private:
  Class matches_;
  SplitBehavior behavior_;
};

// Runs of word characters and runs of what is neither word nor white space: \w+|[^\w\s]+.
class Whitespace final : public PreTokenizer {
 public:
  void apply(Pieces& pieces) const override {
    split_pieces(pieces, SplitBehavior::kRemoved,
                 [](std::string_view piece, std::vector<MatchPart>& parts) {
                   parts.clear();
                   int previous = -1;
                   for (size_t at = 0; at < piece.size();) {
                     const CodePoint c = decode_utf8(piece, at);
                     const int kind = is_word(c.value) ? 1 : is_whitespace(c.value) ? 0 : 2;
                     if (kind != previous) parts.push_back({at, at, kind == 0});
                     at += c.size;
                     parts.back().end = at;
                     previous = kind;
                   }
                 });
  }
};

// Words without white space, and each punctuation mark alone.
class BertWords final : public PreTokenizer {
 public:
  void apply(Pieces& pieces) const override {
    spaces_.apply(pieces);
    marks_.apply(pieces);
  }

 private:
  ClassSplit spaces_{&is_whitespace, SplitBehavior::kRemoved};
  ClassSplit marks_{&is_punctuation, SplitBehavior::kIsolated};
};

// The text between occurrences of one character.
class DelimiterSplit final : public PreTokenizer {
 public:
  explicit DelimiterSplit(uint32_t delimiter) { append_utf8(delimiter_.literal, delimiter); }
  void apply(Pieces& pieces) const override {
    PatternSearch search(delimiter_);
    split_pieces(pieces, SplitBehavior::kRemoved,
                 [&](std::string_view piece, auto& parts) { search.split(piece, parts); });
  }

 private:
  Pattern delimiter_;
};

}  // namespace

PreTokenizerPtr make_bert_words(const Json&, std::string_view) {
  return std::make_unique<BertWords>();
}

PreTokenizerPtr make_delimiter_split(const Json& json, std::string_view source) {
  return std::make_unique<DelimiterSplit>(get_character(json, "delimiter", source));
}

PreTokenizerPtr make_digits(const Json& json, std::string_view source) {
  const bool single = get_bool_or(json, "individual_digits", false, source);
  return std::make_unique<ClassSplit>(
      &is_numeric, single ? SplitBehavior::kIsolated : SplitBehavior::kContiguous);
}

PreTokenizerPtr make_punctuation(const Json& json, std::string_view source) {
  return std::make_unique<ClassSplit>(&is_punctuation,
                                      split_behavior_from_json(json, source, "Isolated"));
}

PreTokenizerPtr make_whitespace(const Json&, std::string_view) {
  return std::make_unique<Whitespace>();
}

PreTokenizerPtr make_whitespace_split(const Json&, std::string_view) {
  return std::make_unique<ClassSplit>(&is_whitespace, SplitBehavior::kRemoved);
}

}  // namespace atom::text
