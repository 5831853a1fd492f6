// Factories of the single decoders, used by make_decoder only, and what their stages share.
#pragma once

#include "text/decoder.h"

namespace atom::text {

using DecoderPtr = std::unique_ptr<const Decoder>;

DecoderPtr make_replace_decoder(const Json& json, std::string_view source);
DecoderPtr make_byte_fallback_decoder(const Json& json, std::string_view source);
DecoderPtr make_fuse_decoder(const Json& json, std::string_view source);
DecoderPtr make_strip_decoder(const Json& json, std::string_view source);
DecoderPtr make_byte_level_decoder(const Json& json, std::string_view source);
DecoderPtr make_metaspace_decoder(const Json& json, std::string_view source);
DecoderPtr make_word_piece_decoder(const Json& json, std::string_view source);
DecoderPtr make_suffix_decoder(const Json& json, std::string_view source);
DecoderPtr make_ctc_decoder(const Json& json, std::string_view source);

// A decoder of a stage that is made from a const object: Stage(const Options&).
template <typename Stage, typename Options>
class DecoderOf final : public Decoder {
 public:
  explicit DecoderOf(Options options) : options_(std::move(options)) {}
  std::unique_ptr<DecodeStage> start() const override { return std::make_unique<Stage>(options_); }

 private:
  Options options_;
};

// Puts the parts of a token together, for stages that look at whole tokens.
class WholeToken {
 public:
  // True when the token is complete; `part` is then all of it.
  bool add(TokenPart& part) {
    if (part.first && part.last) return true;
    if (part.first) held_.clear();
    held_ += part.text;
    if (!part.last) return false;
    part = {std::move(held_)};
    held_.clear();
    return true;
  }

 private:
  std::string held_;
};

}  // namespace atom::text
