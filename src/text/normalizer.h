// The "normalizer" of tokenizer.json: rewrites the text before anything else sees it.
//
//   const auto normalizer = make_normalizer(json["normalizer"], "tokenizer.json: normalizer");
//   NormalizedText text{.text = "a b", .start_bytes = 1, .max_bytes = 1 << 20};
//   normalizer->apply(text);
//
// A new component is a class in its own file, a line in normalizer_parts.h and a row in
// normalizer.cc.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/json.h"
#include "text/source_map.h"

namespace atom::text {

struct NormalizedText {
  std::string text;        // valid UTF-8
  size_t start_bytes = 0;  // leading bytes that stand for the first character of the caller's text
  size_t max_bytes = 0;    // Error when a component makes the text longer
  SourceMap* sources = nullptr;  // of text, kept up to date; null: nobody asks
};

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual void apply(NormalizedText& text) const = 0;  // thread-safe
};

// Null for JSON null. Error: unknown type, missing or wrong field; the message opens with `source`.
std::unique_ptr<const Normalizer> make_normalizer(const Json& json, std::string_view source);

// Error when text.text is longer than text.max_bytes.
void check_growth(size_t bytes, size_t max_bytes, std::string_view source);

}  // namespace atom::text
