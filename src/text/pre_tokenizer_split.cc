#include "base/error.h"
#include "text/pre_tokenizer_parts.h"
#include "text/split_behavior.h"

namespace atom::text {
namespace {

class Split final : public PreTokenizer {
 public:
  Split(Pattern pattern, SplitRule rule) : pattern_(std::move(pattern)), rule_(rule) {}

  void apply(Pieces& pieces) const override { split_at_pattern(pieces, pattern_, rule_); }

 private:
  Pattern pattern_;
  SplitRule rule_;
};

}  // namespace

PreTokenizerPtr make_split(const Json& json, std::string_view source) {
  const auto pattern = json.find("pattern");
  if (pattern == json.end()) fail("{}: pattern is missing", source);
  return std::make_unique<Split>(pattern_from_json(*pattern, source),
                                 SplitRule{.behavior = split_behavior_from_json(json, source),
                                           .invert = get_bool_or(json, "invert", false, source)});
}

}  // namespace atom::text
