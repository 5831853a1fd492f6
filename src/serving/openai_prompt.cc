#include "serving/openai_prompt.h"

#include <fmt/format.h>

#include <utility>

#include "base/error.h"

namespace atom::serving {
namespace {

std::vector<int32_t> encode(const std::string& text, bool add_special, std::string_view field,
                            const RequestContext& context) {
  if (text.size() > context.limits.prompt_bytes)
    throw ApiError(400,
                   fmt::format("{}: a text has {} bytes, at most {} are allowed", field,
                               text.size(), context.limits.prompt_bytes),
                   std::string(field), "context_length_exceeded");
  try {
    return context.tokenizer.encode(text, {.add_special_tokens = add_special});
  } catch (const Error&) {
    throw ApiError(400, fmt::format("{}: the text cannot be made into tokens", field),
                   std::string(field));
  }
}

std::vector<int32_t> ids_of(const Json& list, const RequestContext& context) {
  std::vector<int32_t> ids;
  ids.reserve(list.size());
  for (const Json& one : list) ids.push_back(token_id(one, "prompt", context.limits.vocabulary));
  return ids;
}

// A string, or a list of {"type": "text", "text": ...}.
std::string content_of(const Json* content, const std::string& name) {
  if (content == nullptr) return {};
  if (content->is_string()) return content->get<std::string>();
  if (!content->is_array())
    refuse_field(name, "must be a string or a list of text parts", *content);
  std::string text;
  for (size_t i = 0; i < content->size(); ++i) {
    const std::string part_name = fmt::format("{}[{}]", name, i);
    const Fields part((*content)[i], part_name + ".");
    const auto type = part.text("type", 64);
    if (type != "text" && type != "input_text")
      throw ApiError(400, part_name + ": only parts of the type \"text\" are supported yet",
                     part_name);
    const auto words = part.text("text", SIZE_MAX);
    if (!words) throw ApiError(400, part_name + ".text: is missing", part_name + ".text");
    if (i > 0) text += '\n';
    text += *words;
  }
  return text;
}

Json message_of(const Json& message, size_t index) {
  const std::string name = fmt::format("messages[{}]", index);
  const Fields fields(message, name + ".");
  auto role = fields.text("role", 64);
  if (!role) throw ApiError(400, name + ".role: is missing", name + ".role");
  if (*role == "developer") role = "system";
  if (*role == "tool" || *role == "function" || fields.find("tool_calls") != nullptr)
    throw ApiError(400, name + ": tools are not supported yet", name);
  if (*role != "system" && *role != "user" && *role != "assistant")
    refuse_field(name + ".role", "must be system, developer, user or assistant", Json(*role));
  const Json* content = fields.find("content");
  if (content == nullptr && *role != "assistant")
    throw ApiError(400, name + ".content: is missing", name + ".content");
  Json out = {{"role", *role}, {"content", content_of(content, name + ".content")}};
  if (const auto author = fields.text("name", 256)) out["name"] = *author;
  return out;
}

}  // namespace

std::vector<std::vector<int32_t>> parse_prompts(const Fields& fields,
                                                const RequestContext& context) {
  const bool add_special = fields.flag("add_special_tokens", true);
  const Json* prompt = fields.find("prompt");
  if (prompt == nullptr) throw ApiError(400, "prompt: is missing", "prompt");
  if (prompt->is_string())
    return {encode(prompt->get_ref<const std::string&>(), add_special, "prompt", context)};
  if (!prompt->is_array() || prompt->empty())
    refuse_field("prompt",
                 "must be a string, a list of strings, a list of token ids or a list of such",
                 *prompt);
  if (prompt->front().is_number()) return {ids_of(*prompt, context)};
  if (prompt->size() > static_cast<size_t>(context.limits.choices))
    throw ApiError(400,
                   fmt::format("prompt: has {} prompts, at most {} are allowed", prompt->size(),
                               context.limits.choices),
                   "prompt");
  std::vector<std::vector<int32_t>> prompts;
  for (const Json& one : *prompt) {
    if (one.type() != prompt->front().type() || !(one.is_string() || one.is_array()))
      refuse_field("prompt", "the list must hold strings, token ids or lists of token ids alone",
                   one);
    prompts.push_back(
        one.is_string() ? encode(one.get_ref<const std::string&>(), add_special, "prompt", context)
                        : ids_of(one, context));
  }
  return prompts;
}

std::vector<int32_t> parse_messages(const Fields& fields, const RequestContext& context) {
  const Json* messages = fields.find("messages");
  if (messages == nullptr) throw ApiError(400, "messages: is missing", "messages");
  if (!messages->is_array() || messages->empty())
    refuse_field("messages", "must be a list of at least one message", *messages);
  if (messages->size() > static_cast<size_t>(context.limits.messages))
    throw ApiError(400,
                   fmt::format("messages: has {} messages, at most {} are allowed",
                               messages->size(), context.limits.messages),
                   "messages");
  Json list = Json::array();
  for (size_t i = 0; i < messages->size(); ++i) list.push_back(message_of((*messages)[i], i));
  if (!context.chat)
    throw ApiError(
        400, "messages: this model has no chat template, so it cannot chat; use /v1/completions",
        "messages");
  Json values = Json::object();
  if (const Json* more = fields.find("chat_template_kwargs")) {
    if (!more->is_object()) refuse_field("chat_template_kwargs", "must be an object", *more);
    values = *more;
  }
  values["messages"] = std::move(list);
  values["add_generation_prompt"] = fields.flag("add_generation_prompt", true);
  values["bos_token"] = context.bos_token;
  values["eos_token"] = context.eos_token;
  std::string text;
  try {
    text = context.chat(values);
  } catch (const Error& error) {
    throw ApiError(400, fmt::format("messages: the chat template refuses them: {}", error.what()),
                   "messages");
  }
  return encode(text, fields.flag("add_special_tokens", false), "messages", context);
}

}  // namespace atom::serving
