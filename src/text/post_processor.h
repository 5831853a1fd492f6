// The "post_processor" of tokenizer.json, reduced to what it does to the ids of a single text.
//
//   const Template around = template_from_json(json["post_processor"], "tokenizer.json:
//   post_processor");
//   // ids = around.prefix + model ids + around.suffix
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace atom::text {

struct Template {
  std::vector<int32_t> prefix;
  std::vector<int32_t> suffix;
  bool trims_spans = false;        // spans lose the spaces at their ends
  bool keeps_first_space = false;  // but for one in front of the text, which encoding has put there
};

// Null: nothing. ByteLevel: spans only. TemplateProcessing: its "single" form. BertProcessing,
// RobertaProcessing: cls in front, sep behind. Sequence: the one part that adds tokens. Error: other types, a template without exactly one $A, unknown special tokens, ids
// outside int32, two parts that add tokens.
Template template_from_json(const Json& json, std::string_view source);

}  // namespace atom::text
