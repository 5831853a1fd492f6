// Text of a token stream as it grows.
//
//   StreamDecoder stream(tokenizer);           // the tokenizer must outlive it
//   for (int32_t id : generated) send(stream.push(id));
//   send(stream.flush());
//
// push() returns what no later token can change: whole characters, always valid UTF-8, possibly
// nothing. All pieces together equal tokenizer.decode(all ids). A run of byte tokens (<0xHH>) of a
// tokenizer.json is held back until a token of another kind follows, because one invalid byte turns the whole run
// into U+FFFD; of a tokenizer.model, only an incomplete character is.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace atom::text {

class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, DecodeOptions options = {});

  std::string push(int32_t id);
  std::string flush();  // the rest; the decoder then starts anew

 private:
  std::string take();

  const Tokenizer& tokenizer_;
  DecodeOptions options_;
  std::unique_ptr<DecodeStage> stage_;
  std::vector<TokenPart> parts_;
};

}  // namespace atom::text
