#include "text/tokenizer_settings.h"

#include <charconv>
#include <filesystem>
#include <map>

#include "base/error.h"

namespace atom::text {
namespace {

constexpr std::string_view kConfigName = "tokenizer_config.json";

const Json* field(const Json& object, std::string_view key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

Json special_entry(int64_t id, const std::string& content) {
  return {{"id", id}, {"content", content}, {"special", true}, {"normalized", false}};
}

// "added_tokens_decoder": {"32000": {"content": "<|im_start|>", "special": true, ...}}.
void read_decoder(const Json& decoder, std::string_view source, std::map<int64_t, Json>& tokens) {
  if (!decoder.is_object())
    fail("{}: added_tokens_decoder must be an object and is {}", source, shown_json(decoder));
  for (const auto& [key, value] : decoder.items()) {
    int64_t id = -1;
    const auto end = std::from_chars(key.data(), key.data() + key.size(), id);
    if (end.ec != std::errc() || end.ptr != key.data() + key.size() || !value.is_object()) {
      fail("{}: added_tokens_decoder must map ids to objects and has the key '{}' for {}", source,
           key, shown_json(value));
    }
    tokens[id] = value;
    tokens[id]["id"] = id;
  }
}

}  // namespace

std::string beside(std::string_view source, std::string_view name) {
  return std::filesystem::path(source).replace_filename(name).string();
}

std::string tokenizer_class(const TokenizerSettings& settings, std::string_view source) {
  if (settings.config.is_null()) return {};
  std::string name =
      get_string_or(settings.config, "tokenizer_class", "", beside(source, kConfigName));
  if (name.ends_with("Fast")) name.resize(name.size() - 4);
  return name;
}

std::string special_token(const Json& config, std::string_view key, std::string_view source) {
  const Json* token = field(config, key);
  if (token == nullptr) return {};
  if (token->is_string()) return token->get<std::string>();
  const std::string file = beside(source, kConfigName);
  if (!token->is_object())
    fail("{}: {} must be a string or an object and is {}", file, key, shown_json(*token));
  return get_string(*token, "content", fmt::format("{}: {}", file, key));
}

Json added_tokens_of(const TokenizerSettings& settings, const std::vector<OwnToken>& own,
                     const Vocabulary& vocabulary, std::string_view source) {
  std::map<int64_t, Json> tokens;
  for (const OwnToken& token : own) tokens[token.id] = special_entry(token.id, token.content);
  if (settings.added_tokens.is_object()) {
    for (const auto& [content, id] : settings.added_tokens.items()) {
      if (!id.is_number_integer())
        fail("{}: the id of the token '{}' must be an integer and is {}",
             beside(source, "added_tokens.json"), content, shown_json(id));
      tokens[id.get<int64_t>()] = special_entry(id.get<int64_t>(), content);
    }
  }
  for (const char* key : {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token",
                          "cls_token", "mask_token"}) {
    const std::string content = special_token(settings.config, key, source);
    const int32_t id = content.empty() ? -1 : vocabulary.find(content);
    if (id >= 0) tokens[id] = special_entry(id, content);
  }
  if (const Json* decoder = field(settings.config, "added_tokens_decoder")) {
    read_decoder(*decoder, beside(source, kConfigName), tokens);
  }
  Json out = Json::array();
  for (auto& [id, token] : tokens) out.push_back(std::move(token));
  return out;
}

}  // namespace atom::text
