#include "checkpoint/chat_template_file.h"

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

// One of a list of named templates.
std::string named_template(const Json& list, const std::string& source, std::string_view name) {
  std::optional<std::string> found;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string entry = fmt::format("{}: chat_template[{}]", source, i);
    if (get_string(list[i], "name", entry) != name) continue;
    if (found) fail("{}: chat_template has the name '{}' twice", source, name);
    found = get_string(list[i], "template", entry);
  }
  if (!found) fail("{}: chat_template has no template of the name '{}'", source, name);
  return *found;
}

std::optional<std::string> template_of(const Json& config, const std::string& source,
                                       std::string_view name) {
  const auto field = config.find("chat_template");
  if (field == config.end() || field->is_null()) return std::nullopt;
  if (field->is_array()) return named_template(*field, source, name);
  if (!field->is_string())
    fail("{}: the field \"chat_template\" must be a string or a list of named templates", source);
  return field->get<std::string>();
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

ChatTemplateFile read_chat_template(const std::filesystem::path& folder, std::string_view name) {
  if (!std::filesystem::is_directory(folder)) fail("{}: is not a folder", folder.native());
  const std::filesystem::path config_path = folder / "tokenizer_config.json";
  const std::filesystem::path map_path = folder / "special_tokens_map.json";
  const Json config = object_of(config_path);
  const Json map = object_of(map_path);
  ChatTemplateFile out;
  const std::filesystem::path own = folder / "chat_template.jinja";
  const bool has_own = std::filesystem::exists(own);
  out.source =
      has_own ? read_file(own, kMaxBytes) : template_of(config, config_path.native(), name);
  const bool single = has_own || (out.source && !config.at("chat_template").is_array());
  if (single && name != "default")
    fail("{}: has one chat template, and none of the name '{}'", folder.native(), name);
  const auto token = [&](const std::string& key) {
    std::string text = token_of(config, key, config_path.native());
    return text.empty() ? token_of(map, key, map_path.native()) : text;
  };
  out.bos_token = token("bos_token");
  out.eos_token = token("eos_token");
  return out;
}

}  // namespace atom::checkpoint
