#include "text/pre_tokenizer.h"

#include <utility>

#include "text/component.h"
#include "text/pre_tokenizer_parts.h"

namespace atom::text {
namespace {

// Applies its parts in order.
class SequencePreTokenizer final : public PreTokenizer {
 public:
  explicit SequencePreTokenizer(std::vector<PreTokenizerPtr> parts) : parts_(std::move(parts)) {}
  void apply(Pieces& pieces) const override {
    const bool may_stay_bytes = pieces.may_stay_bytes;
    for (const PreTokenizerPtr& part : parts_) {
      pieces.may_stay_bytes = may_stay_bytes && part == parts_.back();
      part->apply(pieces);
    }
  }

 private:
  std::vector<PreTokenizerPtr> parts_;
};

// Recursion is bounded by the depth limit of the JSON parser.
PreTokenizerPtr make_pre_tokenizer_sequence(const Json& json, std::string_view source) {
  return std::make_unique<SequencePreTokenizer>(
      make_parts(json, {"pretokenizers", source}, &make_pre_tokenizer));
}

constexpr Factory<PreTokenizer> kPreTokenizers[] = {
    {"Sequence", &make_pre_tokenizer_sequence},
    {"Split", &make_split},
    {"ByteLevel", &make_byte_level},
    {"Metaspace", &make_metaspace},
    {"Digits", &make_digits},
    {"Punctuation", &make_punctuation},
    {"Whitespace", &make_whitespace},
    {"WhitespaceSplit", &make_whitespace_split},
    {"BertPreTokenizer", &make_bert_words},
    {"CharDelimiterSplit", &make_delimiter_split},
};

}  // namespace

Pieces whole_text(std::string text, const PieceLimits& limits) {
  Pieces pieces{std::move(text), {}, limits.start_bytes, limits.max_bytes};
  if (!pieces.text.empty()) pieces.spans.push_back({0, pieces.text.size()});
  return pieces;
}

std::unique_ptr<const PreTokenizer> make_pre_tokenizer(const Json& json, std::string_view source) {
  return make_component<PreTokenizer>(json, source, kPreTokenizers);
}

}  // namespace atom::text
