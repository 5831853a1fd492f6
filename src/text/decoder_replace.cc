#include "base/error.h"
#include "text/decoder_parts.h"
#include "text/pattern.h"
#include "text/unicode.h"

namespace atom::text {
namespace {

constexpr size_t kMaxTextBytes = size_t{1} << 26;

struct ReplaceOptions {
  Pattern pattern;
  std::string content;
  std::string source;
  bool by_part;  // the pattern is one character, which is never divided between parts
};

// Replaces the pattern inside each token.
class ReplaceStage final : public DecodeStage {
 public:
  explicit ReplaceStage(const ReplaceOptions& options) : options_(options) {}
  void push(TokenPart part, std::vector<TokenPart>& out) override {
    if (!options_.by_part && !whole_.add(part)) return;
    part.text =
        replace_matches(part.text, 0,
                        {options_.pattern, options_.content, kMaxTextBytes, options_.source})
            .text;
    out.push_back(std::move(part));
  }
  void finish(std::vector<TokenPart>&) override {}

 private:
  const ReplaceOptions& options_;
  WholeToken whole_;
};

}  // namespace

DecoderPtr make_replace_decoder(const Json& json, std::string_view source) {
  const auto json_pattern = json.find("pattern");
  if (json_pattern == json.end()) fail("{}: pattern is missing", source);
  Pattern pattern = pattern_from_json(*json_pattern, source);
  const bool by_part =
      !pattern.regex && decode_utf8(pattern.literal, 0).size == pattern.literal.size();
  return std::make_unique<DecoderOf<ReplaceStage, ReplaceOptions>>(ReplaceOptions{
      std::move(pattern), get_string(json, "content", source), std::string(source), by_part});
}

}  // namespace atom::text
