#include "text/stream_decoder.h"

namespace atom::text {

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, DecodeOptions options)
    : tokenizer_(tokenizer), options_(options), stage_(tokenizer.decoder().start()) {}

std::string StreamDecoder::push(int32_t id) {
  if (!tokenizer_.has_token(id)) return {};
  if (options_.skip_special_tokens && tokenizer_.is_special(id)) return {};
  stage_->push({std::string(tokenizer_.id_to_token(id))}, parts_);
  return take();
}

std::string StreamDecoder::flush() {
  stage_->finish(parts_);
  stage_ = tokenizer_.decoder().start();
  return take();
}

std::string StreamDecoder::take() {
  std::string text;
  for (const TokenPart& part : parts_) text += part.text;
  parts_.clear();
  return text;
}

}  // namespace atom::text
