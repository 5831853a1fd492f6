// The "pre_tokenizer" of tokenizer.json: cuts normalized text into the pieces that the model sees
// one by one, and may rewrite them.
//
//   const auto splitter = make_pre_tokenizer(json["pre_tokenizer"], "tokenizer.json: pre_tokenizer");
//   Pieces pieces = whole_text("Hello world", {.start_bytes = 1, .max_bytes = 1 << 20});
//   if (splitter) splitter->apply(pieces);
//   pieces.view(0);                              // valid until the next apply
//
// A new component is a class in its own file, a line in pre_tokenizer_parts.h and a row in
// pre_tokenizer.cc.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/regex.h"
#include "text/source_map.h"

namespace atom::text {

struct Pieces {
  std::string text;              // valid UTF-8; stretches between pieces are dropped text
  std::vector<Span> spans;       // not empty, in order, not overlapping
  size_t start_bytes = 0;        // as in NormalizedText
  size_t max_bytes = 0;          // Error when a component makes the text longer
  SourceMap* sources = nullptr;  // as in NormalizedText
  bool may_stay_bytes =
      false;               // the byte alphabet may be left to the model, if nothing comes after it
  bool are_bytes = false;  // it has been

  std::string_view view(size_t i) const {
    return std::string_view(text).substr(spans[i].begin, spans[i].end - spans[i].begin);
  }
};

struct PieceLimits {
  size_t start_bytes = 0;
  size_t max_bytes = 0;
};
Pieces whole_text(std::string text, const PieceLimits& limits);

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  virtual void apply(Pieces& pieces) const = 0;  // thread-safe
};

// Null for JSON null. Error: unknown type, missing or wrong field; the message opens with `source`.
std::unique_ptr<const PreTokenizer> make_pre_tokenizer(const Json& json, std::string_view source);

}  // namespace atom::text
