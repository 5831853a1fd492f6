// A model's chat template: turns a conversation into the text of its prompt.
//
//   const ChatTemplate chat = ChatTemplate::parse(source);
//   const std::string prompt = chat.render({{"messages", messages}, {"add_generation_prompt", true},
//                                           {"bos_token", "<s>"}, {"eos_token", "</s>"}});
//
// The language is the part of Jinja that Hugging Face's templates use, in their environment:
// trim_blocks, lstrip_blocks, break and continue, raise_exception(), strftime_now(), tojson as
// json.dumps, {% generation %}, an immutable sandbox. docs/chat_templates.md lists what differs.
#pragma once

#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"

namespace atom::text {

// Of one template and one rendering of it; going over one is an Error.
struct ChatTemplateLimits {
  size_t source_bytes = 1 << 20;
  size_t steps = 20'000'000;        // nodes evaluated, elements and 16 bytes of text touched
  size_t memory_bytes = 256 << 20;  // all values together, output included
  size_t output_bytes = 64 << 20;
  int depth = 600;  // nested evaluations, calls of macros included
};

class ChatTemplate {
 public:
  // Error: names the line and the cause.
  static ChatTemplate parse(std::string_view source, const ChatTemplateLimits& limits = {});

  // `context`: an object with the variables of the template: messages, add_generation_prompt,
  // bos_token, eos_token, tools, documents ... `now` (default: the clock) is what strftime_now()
  // prints, in local time. Error: what the template raised, or the budget, with the line.
  // Threads may share a template.
  std::string render(const Json& context, std::optional<std::time_t> now = {}) const;

 private:
  struct Program;
  std::shared_ptr<const Program> program_;
};

}  // namespace atom::text
