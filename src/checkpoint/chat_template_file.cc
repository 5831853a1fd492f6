#include "checkpoint/chat_template_file.h"

#include <functional>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "checkpoint/model_files.h"

namespace atom::checkpoint {
namespace {

constexpr uint64_t kMaxBytes = 8 << 20;

// Small files of a model, by name.
struct SmallFiles {
  std::function<std::optional<std::string>(const char* name)> read;
  std::function<std::string(const char* name)> source;  // what messages name

  // The object in a file; an empty one where the file is missing.
  Json object_of(const char* name) const {
    const std::optional<std::string> bytes = read(name);
    if (!bytes) return Json::object();
    Json json = parse_json(*bytes, {.source = source(name)});
    if (!json.is_object())
      fail("{}: must be a JSON object, but is {}", source(name), shown_json(json));
    return json;
  }
};

// "default" of a list of named templates, or else its first.
void take_named(const Json& list, ChatTemplateFile& out) {
  if (list.empty()) fail("{}: the list \"chat_template\" is empty", out.origin);
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string entry = fmt::format("{}: chat_template[{}]", out.origin, i);
    const std::string name = get_string(list[i], "name", entry);
    std::string source = get_string(list[i], "template", entry);
    if (name == "default" && out.name == name)
      fail("{}: chat_template has the name '{}' twice", out.origin, name);
    if (out.source && name != "default") continue;
    out.source = std::move(source);
    out.name = name;
  }
}

void take_template(const Json& config, const std::string& source, ChatTemplateFile& out) {
  const auto field = config.find("chat_template");
  if (field == config.end() || field->is_null()) return;
  out.origin = source;
  if (field->is_array()) return take_named(*field, out);
  if (!field->is_string())
    fail("{}: the field \"chat_template\" must be a string or a list of named templates, but is {}",
         out.origin, shown_json(*field));
  out.source = field->get<std::string>();
}

// A special token: its text, or an object with the text in "content".
std::string token_of(const Json& config, const std::string& key, const std::string& source) {
  const auto field = config.find(key);
  if (field == config.end() || field->is_null()) return "";
  if (field->is_string()) return field->get<std::string>();
  if (!field->is_object())
    fail("{}: the field \"{}\" must be a string or an object with \"content\", but is {}", source,
         key, shown_json(*field));
  return get_string(*field, "content", fmt::format("{}: {}", source, key));
}

ChatTemplateFile read_template(const SmallFiles& files, const std::filesystem::path& file) {
  constexpr const char* kConfig = "tokenizer_config.json";
  constexpr const char* kMap = "special_tokens_map.json";
  constexpr const char* kTemplate = "chat_template.jinja";
  const Json config = files.object_of(kConfig);
  const Json map = files.object_of(kMap);
  ChatTemplateFile out;
  if (!file.empty()) {
    out.source = read_file(file, kMaxBytes);
    out.origin = file.native();
  } else if (std::optional<std::string> own = files.read(kTemplate)) {
    out.source = std::move(own);
    out.origin = files.source(kTemplate);
  } else {
    take_template(config, files.source(kConfig), out);
  }
  const auto token = [&](const std::string& key) {
    std::string text = token_of(config, key, files.source(kConfig));
    return text.empty() ? token_of(map, key, files.source(kMap)) : text;
  };
  out.bos_token = token("bos_token");
  out.eos_token = token("eos_token");
  return out;
}

}  // namespace

ChatTemplateFile read_chat_template(const std::filesystem::path& folder,
                                    const std::filesystem::path& file) {
  if (!std::filesystem::is_directory(folder)) fail("{}: is not a folder", folder.native());
  const auto read = [&](const char* name) -> std::optional<std::string> {
    if (!std::filesystem::exists(folder / name)) return std::nullopt;
    return read_file(folder / name, kMaxBytes);
  };
  return read_template({read, [&](const char* name) { return (folder / name).native(); }}, file);
}

ChatTemplateFile read_chat_template(const ModelFiles& model, const std::filesystem::path& file) {
  if (!model.is_gguf()) return read_chat_template(model.folder(), file);
  return read_template({[&](const char* name) { return model.small_file(name, kMaxBytes); },
                        [&](const char* name) { return model.source_of(name); }},
                       file);
}

}  // namespace atom::checkpoint
