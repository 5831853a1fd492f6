// The prompts of a request: texts, ids or messages.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "serving/openai_fields.h"
#include "serving/openai_request.h"

namespace atom::serving {

// "prompt": a string, a list of strings, a list of ids or a list of lists of ids; not empty.
std::vector<std::vector<int32_t>> parse_prompts(const Fields& fields,
                                                const RequestContext& context);
// "messages" through the chat template.
std::vector<int32_t> parse_messages(const Fields& fields, const RequestContext& context);

}  // namespace atom::serving
