#include "base/error.h"
#include "text/pre_tokenizer_parts.h"
#include "text/split_behavior.h"

namespace atom::text {
namespace {

class Split final : public PreTokenizer {
 public:
  Split(Pattern pattern, SplitBehavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}

  void apply(Pieces& pieces) const override {
    PatternSearch search(pattern_);
    split_pieces(pieces, behavior_, [&](std::string_view piece, std::vector<MatchPart>& parts) {
      search.split(piece, parts);
      if (!invert_) return;
      for (MatchPart& part : parts) part.is_match = !part.is_match;
    });
  }

 private:
  Pattern pattern_;
  SplitBehavior behavior_;
  bool invert_;
};

}  // namespace

PreTokenizerPtr make_split(const Json& json, std::string_view source) {
  const auto pattern = json.find("pattern");
  if (pattern == json.end()) fail("{}: pattern is missing", source);
  return std::make_unique<Split>(pattern_from_json(*pattern, source),
                                 split_behavior_from_json(json, source),
                                 get_bool_or(json, "invert", false, source));
}

}  // namespace atom::text
