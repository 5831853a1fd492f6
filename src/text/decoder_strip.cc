// Fuse and Strip: the decoders that deal with where tokens begin and end.
#include "text/component.h"
#include "text/decoder_parts.h"
#include "text/unicode.h"

namespace atom::text {
namespace {

// All tokens become one.
class FuseStage final : public DecodeStage {
 public:
  explicit FuseStage(int) {}
  void push(TokenPart part, std::vector<TokenPart>& out) override {
    if (part.text.empty()) return;
    out.push_back({std::move(part.text), first_, false});
    first_ = false;
  }
  void finish(std::vector<TokenPart>& out) override { out.push_back({"", first_, true}); }

 private:
  bool first_ = true;
};

struct StripOptions {
  std::string content;  // one character
  int64_t start;        // how many are removed from the front of a token, at most
  int64_t stop;         // and from its end
  bool once;            // from the front of the text, not of each token
};

// Removes a character from the ends of each token.
class StripStage final : public DecodeStage {
 public:
  explicit StripStage(const StripOptions& options) : options_(options) {}

  void push(TokenPart part, std::vector<TokenPart>& out) override {
    if (options_.stop > 0 && !whole_.add(part)) return;
    if (part.first && !(options_.once && seen_)) left_ = options_.start;
    seen_ = true;
    std::string_view text = part.text;
    while (left_ > 0 && !text.empty()) {
      if (!text.starts_with(options_.content)) {
        left_ = 0;
        break;
      }
      text.remove_prefix(options_.content.size());
      --left_;
    }
    for (int64_t i = 0; i < options_.stop && text.ends_with(options_.content); ++i) {
      text.remove_suffix(options_.content.size());
    }
    part.text = std::string(text);
    out.push_back(std::move(part));
  }
  void finish(std::vector<TokenPart>&) override {}

 private:
  const StripOptions& options_;
  WholeToken whole_;
  bool seen_ = false;
  int64_t left_ = 0;  // characters that may still go from the front of the current token
};

}  // namespace

DecoderPtr make_fuse_decoder(const Json&, std::string_view) {
  return std::make_unique<DecoderOf<FuseStage, int>>(0);
}

DecoderPtr make_strip_decoder(const Json& json, std::string_view source) {
  StripOptions options;
  append_utf8(options.content, get_character(json, "content", source));
  options.start = get_int_or(json, "start", 0, {.source = source, .min = 0, .max = INT32_MAX});
  options.stop = get_int_or(json, "stop", 0, {.source = source, .min = 0, .max = INT32_MAX});
  options.once =
      get_bool_or(json, "once", false, source);  // not of tokenizer.json: for tokenizer.model
  return std::make_unique<DecoderOf<StripStage, StripOptions>>(options);
}

}  // namespace atom::text
