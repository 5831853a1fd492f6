// The chat template of a model folder, as text: chat_template.jinja, or else "chat_template" of
// tokenizer_config.json (a text, or a list of {"name", "template"}).
//
//   const ChatTemplateFile file = read_chat_template("models/llama");
//   if (file.source) ... text::ChatTemplate::parse(*file.source) ... file.bos_token ...
#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace atom::checkpoint {

struct ChatTemplateFile {
  std::optional<std::string> source;  // nothing: the model has none
  std::string origin;                 // path of the file that holds it; empty without one
  std::string name;                   // in a list of templates; empty: it is the only one
  // Texts of the special tokens that templates print, of tokenizer_config.json or
  // special_tokens_map.json; empty where no file names them.
  std::string bos_token, eos_token;
};

// `file`, where it is not empty, is the template in place of those of the folder, whose tokens still
// count. Of a list of templates "default" is taken, and the first where none has that name: `name`
// says which. Error: no such folder, a file that cannot be read or is over 8 MiB
// (tokenizer_config.json lists every added token), a field of a wrong type, an empty list, two
// templates of the name "default".
ChatTemplateFile read_chat_template(const std::filesystem::path& folder,
                                    const std::filesystem::path& file = {});
// The same of a folder or of a GGUF file, whose template lies in its metadata.
class ModelFiles;
ChatTemplateFile read_chat_template(const ModelFiles& model,
                                    const std::filesystem::path& file = {});

}  // namespace atom::checkpoint
