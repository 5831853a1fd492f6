#include "checkpoint/chat_template_file.h"

#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"

namespace atom::checkpoint {
namespace {

constexpr uint64_t kMaxBytes = 8 << 20;

// The object in a file of the folder; an empty one where the file is missing.
Json object_of(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) return Json::object();
  Json json = parse_json(read_file(path, kMaxBytes), {.source = path.native()});
  if (!json.is_object()) fail("{}: must be a JSON object", path.native());
  return json;
}

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

void take_template(const Json& config, const std::filesystem::path& path, ChatTemplateFile& out) {
  const auto field = config.find("chat_template");
  if (field == config.end() || field->is_null()) return;
  out.origin = path.native();
  if (field->is_array()) return take_named(*field, out);
  if (!field->is_string())
    fail("{}: the field \"chat_template\" must be a string or a list of named templates",
         out.origin);
  out.source = field->get<std::string>();
}

// A special token: its text, or an object with the text in "content".
std::string token_of(const Json& config, const std::string& key, const std::string& source) {
  const auto field = config.find(key);
  if (field == config.end() || field->is_null()) return "";
  if (field->is_string()) return field->get<std::string>();
  if (!field->is_object())
    fail("{}: the field \"{}\" must be a string or an object with \"content\"", source, key);
  return get_string(*field, "content", fmt::format("{}: {}", source, key));
}

}  // namespace

ChatTemplateFile read_chat_template(const std::filesystem::path& folder,
                                    const std::filesystem::path& file) {
  if (!std::filesystem::is_directory(folder)) fail("{}: is not a folder", folder.native());
  const std::filesystem::path config_path = folder / "tokenizer_config.json";
  const std::filesystem::path map_path = folder / "special_tokens_map.json";
  const Json config = object_of(config_path);
  const Json map = object_of(map_path);
  ChatTemplateFile out;
  const std::filesystem::path own = file.empty() ? folder / "chat_template.jinja" : file;
  if (!file.empty() || std::filesystem::exists(own)) {
    out.source = read_file(own, kMaxBytes);
    out.origin = own.native();
  } else {
    take_template(config, config_path, out);
  }
  const auto token = [&](const std::string& key) {
    std::string text = token_of(config, key, config_path.native());
    return text.empty() ? token_of(map, key, map_path.native()) : text;
  };
  out.bos_token = token("bos_token");
  out.eos_token = token("eos_token");
  return out;
}

}  // namespace atom::checkpoint
