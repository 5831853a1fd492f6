#include "base/error.h"
#include "text/normalizer_parts.h"
#include "text/pattern.h"

namespace atom::text {
namespace {

class Replace final : public Normalizer {
 public:
  Replace(Pattern pattern, std::string content, std::string_view source)
      : pattern_(std::move(pattern)), content_(std::move(content)), source_(source) {}
  void apply(NormalizedText& text) const override {
    Replaced replaced = replace_matches(
        text.text, text.start_bytes, {pattern_, content_, text.max_bytes, source_, text.sources});
    text.text = std::move(replaced.text);
    text.start_bytes = replaced.prefix;
  }

 private:
  Pattern pattern_;
  std::string content_;
  std::string source_;
};

}  // namespace

NormalizerPtr make_replace(const Json& json, std::string_view source) {
  const auto pattern = json.find("pattern");
  if (pattern == json.end()) fail("{}: pattern is missing", source);
  return std::make_unique<Replace>(pattern_from_json(*pattern, source),
                                   get_string(json, "content", source), source);
}

}  // namespace atom::text
