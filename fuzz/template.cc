// Sources of chat templates, each rendered over a conversation with tools.
#include "fuzz/fuzz.h"
#include "text/chat_template.h"

namespace atom::fuzz {

void run_template(std::string_view bytes) {
  static const Json conversation = parse_json(R"({
      "messages": [{"role": "system", "content": "Be brief."},
                   {"role": "user", "content": "What is 2 + 2?\n"},
                   {"role": "assistant", "content": null, "tool_calls": [{"type": "function", "id": "a1",
                    "function": {"name": "add", "arguments": {"a": 2, "b": -2.5, "c": [true, null]}}}]},
                   {"role": "tool", "name": "add", "content": "4"},
                   {"role": "assistant", "content": "<think>\nso\n</think> 4 \u00e9"}],
      "tools": [{"type": "function", "function": {"name": "add", "description": "adds",
                 "parameters": {"type": "object", "properties": {"a": {"type": "number"}}}}}],
      "add_generation_prompt": true, "bos_token": "<s>", "eos_token": "</s>"})");
  const text::ChatTemplateLimits limits = {.source_bytes = 1 << 16,
                                           .steps = 50'000,
                                           .memory_bytes = 8 << 20,
                                           .output_bytes = 1 << 20,
                                           .depth = 100};
  accepts_or_says_why([&] {
    const auto chat = text::ChatTemplate::parse(bytes, limits);
    const std::string text = chat.render(conversation, 1'700'000'000);
    check(text.size() <= limits.output_bytes, "a text over its limit");
    check(chat.render(conversation, 1'700'000'000) == text, "two renderings differ");
  });
}

}  // namespace atom::fuzz
