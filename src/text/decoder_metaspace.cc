#include "text/decoder_parts.h"
#include "text/metaspace.h"
#include "text/unicode.h"

namespace atom::text {
namespace {

// The mark becomes a space, except in the first token, which loses it where encoding puts one in
// front.
class MetaspaceStage final : public DecodeStage {
 public:
  explicit MetaspaceStage(const Metaspace& options) : options_(options) {}

  void push(TokenPart part, std::vector<TokenPart>& out) override {
    std::string text;
    for (size_t at = 0; at < part.text.size();) {
      const CodePoint c = decode_utf8(part.text, at);
      if (c.value != options_.replacement) {
        text.append(part.text, at, c.size);
      } else if (!in_first_ || options_.prepend == Metaspace::Prepend::kNever) {
        text += ' ';
      }
      at += c.size;
    }
    if (part.last) in_first_ = false;
    part.text = std::move(text);
    out.push_back(std::move(part));
  }
  void finish(std::vector<TokenPart>&) override {}

 private:
  const Metaspace& options_;
  bool in_first_ = true;
};

}  // namespace

DecoderPtr make_metaspace_decoder(const Json& json, std::string_view source) {
  Json fields = json;
  if (!fields.contains("replacement")) fields["replacement"] = "\xE2\x96\x81";  // U+2581
  return std::make_unique<DecoderOf<MetaspaceStage, Metaspace>>(
      metaspace_from_json(fields, source));
}

}  // namespace atom::text
