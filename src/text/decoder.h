// The "decoder" of tokenizer.json: token strings back to text, one token at a time.
//
//   const auto decoder = make_decoder(json["decoder"], "tokenizer.json: decoder");
//   const auto stage = decoder->start();       // state of one text; must not outlive the decoder
//   stage->push({.text = "_Hello"}, out);      // appends to out what is certain
//   stage->finish(out);
//
// Every decoder is written as such a stage, so that decoding at once and streaming are the same
// code. A stage may pass a token on in parts, each valid UTF-8. A new component is a class in its
// own file, a line in decoder_parts.h and a row in decoder.cc.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace atom::text {

struct TokenPart {
  std::string text;
  bool first = true;  // opens its token
  bool last = true;   // closes its token
};

class DecodeStage {
 public:
  virtual ~DecodeStage() = default;
  virtual void push(TokenPart part, std::vector<TokenPart>& out) = 0;
  virtual void finish(std::vector<TokenPart>& out) = 0;  // nothing is pushed after it
};

class Decoder {
 public:
  virtual ~Decoder() = default;
  virtual std::unique_ptr<DecodeStage> start() const = 0;  // thread-safe
};

// JSON null gives the decoder that joins tokens with one space. Error: unknown type, missing or
// wrong field; the message opens with `source`.
std::unique_ptr<const Decoder> make_decoder(const Json& json, std::string_view source);

}  // namespace atom::text
