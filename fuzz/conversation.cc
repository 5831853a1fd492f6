// Conversations in the templates of known models; the first byte picks one. Any JSON may take the place of any variable.
#include <array>

#include "base/file.h"
#include "fuzz/fuzz.h"
#include "text/chat_template.h"

namespace atom::fuzz {

void run_conversation(std::string_view bytes) {
  static const auto templates = [] {
    constexpr std::array kNames = {"chatml", "command_r",     "deepseek", "gemma",   "llama2",
                                   "llama3", "llama31_tools", "mistral",  "mixtral", "phi3",
                                   "qwen25", "qwen3",         "zephyr"};
    std::vector<text::ChatTemplate> all;
    for (const char* name : kNames)
      all.push_back(text::ChatTemplate::parse(
          read_file(fmt::format("{}/text/chat_templates/{}.jinja", ATOM_FUZZ_DATA, name)),
          {.steps = 50'000, .memory_bytes = 8 << 20, .output_bytes = 1 << 20, .depth = 100}));
    return all;
  }();
  const text::ChatTemplate& chat = templates[take_choice(bytes, templates.size())];
  accepts([&] {
    Json context = parse_json(bytes, {.source = "fuzz", .max_depth = 32});
    if (context.is_array()) context = {{"messages", std::move(context)}};
    if (!context.is_object()) return;
    for (const char* token : {"bos_token", "eos_token"})
      if (!context.contains(token)) context[token] = "<s>";
    if (!context.contains("add_generation_prompt")) context["add_generation_prompt"] = true;
    accepts_or_says_why([&] { chat.render(context, 1'700'000'000); });
  });
}

}  // namespace atom::fuzz
