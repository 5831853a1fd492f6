// The chat template of a model folder, as text: chat_template.jinja, or else "chat_template" of
// tokenizer_config.json (a text, or a list of {"name", "template"}).
//
//   const ChatTemplateFile file = read_chat_template("models/llama");
//   if (file.source) ... text::ChatTemplate::parse(*file.source) ... file.bos_token ...
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace atom::checkpoint {

struct ChatTemplateFile {
  std::optional<std::string> source;  // nothing: the model has none
  // Texts of the special tokens that templates print, of tokenizer_config.json or
  // special_tokens_map.json; empty where no file names them.
  std::string bos_token, eos_token;
};

// `name` picks one of a list of templates; of a folder with one template it must be "default".
// Error: no such folder, a file that cannot be read or is over 8 MiB (tokenizer_config.json lists
// every added token), a field of a wrong type, a name that the list lacks or has twice.
ChatTemplateFile read_chat_template(const std::filesystem::path& folder,
                                    std::string_view name = "default");

}  // namespace atom::checkpoint
