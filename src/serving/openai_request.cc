#include "serving/openai_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <optional>
#include <random>
#include <utility>

#include "serving/openai_fields.h"
#include "serving/openai_prompt.h"

namespace atom::serving {
namespace {

constexpr int kDefaultTokens = 16;  // of /v1/completions, as everywhere

void refuse_unsupported(const Fields& fields) {
  const auto unsupported = [](std::string_view field) {
    throw ApiError(400, fmt::format("{}: is not supported yet", field), std::string(field));
  };
  for (const std::string_view field : {"tools", "functions"})
    if (const Json* value = fields.find(field)) {
      if (!value->is_array()) refuse_field(field, "must be a list", *value);
      if (!value->empty()) unsupported(field);
    }
  for (const std::string_view field : {"tool_choice", "function_call"})
    if (const Json* value = fields.find(field); value && *value != "none" && *value != "auto")
      unsupported(field);
  if (const Json* format = fields.find("response_format")) {
    const auto type = Fields(*format, "response_format.").text("type", 64);
    if (!type) throw ApiError(400, "response_format.type: is missing", "response_format.type");
    if (*type != "text") unsupported("response_format");
  }
  for (const std::string_view field :
       {"structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar"})
    if (fields.find(field) != nullptr) unsupported(field);
  if (const auto suffix = fields.text("suffix", SIZE_MAX); suffix && !suffix->empty())
    unsupported("suffix");
}

std::vector<std::string> parse_stops(const Fields& fields, const RequestLimits& limits) {
  const Json* stop = fields.find("stop");
  if (stop == nullptr) return {};
  const Json list = stop->is_string() ? Json::array({*stop}) : *stop;
  if (!list.is_array()) refuse_field("stop", "must be a string or a list of strings", *stop);
  if (list.size() > static_cast<size_t>(limits.stops))
    throw ApiError(
        400, fmt::format("stop: has {} strings, at most {} are allowed", list.size(), limits.stops),
        "stop");
  std::vector<std::string> stops;
  for (const Json& one : list) {
    if (!one.is_string() || one.get_ref<const std::string&>().empty() ||
        one.get_ref<const std::string&>().size() > limits.stop_bytes)
      refuse_field("stop", fmt::format("must be strings of 1 to {} bytes", limits.stop_bytes), one);
    stops.push_back(one.get<std::string>());
  }
  return stops;
}

std::vector<std::pair<int32_t, float>> parse_bias(const Fields& fields,
                                                  const RequestLimits& limits) {
  const Json* bias = fields.find("logit_bias");
  if (bias == nullptr) return {};
  if (!bias->is_object()) refuse_field("logit_bias", "must be an object", *bias);
  if (bias->size() > limits.bias_entries)
    throw ApiError(400,
                   fmt::format("logit_bias: has {} entries, at most {} are allowed", bias->size(),
                               limits.bias_entries),
                   "logit_bias");
  std::vector<std::pair<int32_t, float>> out;
  for (const auto& [key, value] : bias->items()) {
    int32_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || id < 0 || id >= limits.vocabulary)
      refuse_field("logit_bias",
                   fmt::format("keys must be token ids from 0 to {}", limits.vocabulary - 1),
                   Json(key));
    if (!value.is_number() || !(value.get<double>() >= -100 && value.get<double>() <= 100))
      refuse_field("logit_bias", "values must be numbers of at least -100 and at most 100", value);
    out.emplace_back(id, value.get<float>());
  }
  return out;
}

void parse_filters(const Fields& fields, const model::GenerationConfig& defaults,
                   engine::SamplingOptions& sampling) {
  const auto number = [&](std::string_view name, double min, double max,
                          std::optional<float> otherwise, float last, bool above = false) {
    const std::optional<double> asked = fields.number(name, min, max, above);
    return asked ? static_cast<float>(*asked) : otherwise.value_or(last);
  };
  sampling.temperature = number("temperature", 0, 2, defaults.temperature, 1);
  sampling.top_p = number("top_p", 0, 1, defaults.top_p, 1, true);
  sampling.top_p = std::max(sampling.top_p, std::numeric_limits<float>::min());
  const auto top_k = fields.integer("top_k", -1, std::numeric_limits<int32_t>::max());
  sampling.top_k = std::max(static_cast<int>(top_k.value_or(defaults.top_k.value_or(0))), 0);
  sampling.min_p = number("min_p", 0, 1, defaults.min_p, 0);
  sampling.repetition_penalty =
      number("repetition_penalty", 0.01, 100, defaults.repetition_penalty, 1);
  const auto penalty = [&](std::string_view name) {
    return static_cast<float>(fields.number(name, -2, 2).value_or(0));
  };
  sampling.frequency_penalty = penalty("frequency_penalty");
  sampling.presence_penalty = penalty("presence_penalty");
}

uint64_t drawn_seed() {
  thread_local std::mt19937_64 seeds{std::random_device()()};
  return seeds();
}

// What both kinds of requests have but for the prompt, max_tokens and logprobs.
ParsedRequest parse_common(const Fields& fields, const Json& body, const RequestContext& context) {
  const RequestLimits& limits = context.limits;
  ParsedRequest out;
  out.model = served_model(body, context);
  refuse_unsupported(fields);
  engine::SamplingOptions& sampling = out.completion.sampling;
  parse_filters(fields, context.defaults, sampling);
  const auto seed = fields.integer("seed", INT64_MIN, INT64_MAX);
  sampling.seed = seed ? static_cast<uint64_t>(*seed) : drawn_seed();
  sampling.logit_bias = parse_bias(fields, limits);
  sampling.ignore_eos = fields.flag("ignore_eos", false);
  sampling.stop_ids = fields.ids("stop_token_ids", limits.vocabulary, limits.stop_ids);
  if (const auto count = fields.integer("prompt_logprobs", 0, limits.logprobs))
    sampling.prompt_logprobs = static_cast<int>(*count);
  out.completion.n = static_cast<int>(fields.integer("n", 1, limits.n).value_or(1));
  if (const auto best = fields.integer("best_of", 1, limits.n); best && *best != out.completion.n)
    throw ApiError(400,
                   fmt::format("best_of: must equal n, {}, but is {}", out.completion.n, *best),
                   "best_of");
  out.completion.text.stop = parse_stops(fields, limits);
  out.completion.text.include_stop = fields.flag("include_stop_str_in_output", false);
  out.completion.text.skip_special = fields.flag("skip_special_tokens", true);
  out.completion.cache_salt = fields.text("cache_salt", 256).value_or("");
  out.stream = fields.flag("stream", false);
  if (const Json* stream = fields.find("stream_options")) {
    const Fields options(*stream, "stream_options.");
    out.include_usage = options.flag("include_usage", false);
    out.continuous_usage = options.flag("continuous_usage_stats", false);
    if (!out.stream)
      throw ApiError(400, "stream_options: are allowed with stream alone", "stream_options");
  }
  if (out.stream && sampling.prompt_logprobs)
    throw ApiError(400, "prompt_logprobs: are not there with stream", "prompt_logprobs");
  return out;
}

// After prompts and max_tokens are known. `names`: of their fields.
struct SizeFields {
  std::string prompt, max_tokens = "max_tokens", logprobs = "logprobs";
};

// Every logprob is kept until its answer is written. Tokens: of all choices. `field`: of the new tokens' logprobs.
void check_logprobs(const CompletionRequest& c, int64_t prompt_tokens, int64_t new_tokens,
                    const std::string& field, int64_t most) {
  const auto check = [most](const std::string& name, int64_t tokens, int count) {
    if (tokens * (1 + count) > most)
      throw ApiError(400,
                     fmt::format("{}: {} tokens with {} logprobs each exceed the {} logprobs of a "
                                 "request",
                                 name, tokens, 1 + count, most),
                     name);
  };
  if (c.sampling.logprobs)
    check(field, new_tokens + (c.text.echo ? prompt_tokens : 0), *c.sampling.logprobs);
  if (c.sampling.prompt_logprobs)
    check("prompt_logprobs", prompt_tokens, *c.sampling.prompt_logprobs);
}

void check_sizes(const Fields& fields, ParsedRequest& parsed, const SizeFields& names,
                 const RequestLimits& limits) {
  const std::string& prompt_field = names.prompt;
  CompletionRequest& c = parsed.completion;
  if (const auto keep = fields.integer("truncate_prompt_tokens", 1, limits.context))
    for (std::vector<int32_t>& prompt : c.prompts)
      if (prompt.size() > static_cast<size_t>(*keep))
        prompt.erase(prompt.begin(), prompt.end() - *keep);
  int64_t longest = 0, total = 0;
  for (const std::vector<int32_t>& prompt : c.prompts) {
    if (prompt.empty()) throw ApiError(400, prompt_field + ": has no tokens", prompt_field);
    longest = std::max(longest, static_cast<int64_t>(prompt.size()));
    total += static_cast<int64_t>(prompt.size()) * c.n;
  }
  if (longest >= limits.context)
    throw ApiError(400,
                   fmt::format("{}: has {} tokens, but the model's context of {} must also hold "
                               "at least one new one",
                               prompt_field, longest, limits.context),
                   prompt_field, "context_length_exceeded");
  if (total > limits.prompt_tokens)
    throw ApiError(400,
                   fmt::format("{}: has {} tokens in all choices, at most {} are allowed",
                               prompt_field, total, limits.prompt_tokens),
                   prompt_field);
  const int64_t room = limits.context - longest;
  const int64_t asked = c.sampling.max_tokens;
  if (asked > room)
    throw ApiError(
        400,
        fmt::format("{}: {} new tokens and {} of the prompt exceed the model's context of {}",
                    names.max_tokens, asked, longest, limits.context),
        names.max_tokens, "context_length_exceeded");
  const int64_t choices = static_cast<int64_t>(c.prompts.size()) * c.n;
  if (choices > limits.choices)
    throw ApiError(
        400,
        fmt::format("n: {} choices are asked for, at most {} are allowed", choices, limits.choices),
        "n");
  if (choices * asked > limits.new_tokens)
    throw ApiError(400,
                   fmt::format("{}: {} choices of {} tokens exceed the {} tokens of a request",
                               names.max_tokens, choices, asked, limits.new_tokens),
                   names.max_tokens);
  check_logprobs(c, total, choices * asked, names.logprobs, limits.all_logprobs);
  const int64_t least = fields.integer("min_tokens", 0, std::max<int64_t>(asked, 0)).value_or(0);
  c.sampling.min_tokens = c.text.min_tokens = static_cast<int>(least);
}

// Missing: `otherwise`, or what is left of the context where that is less.
void set_max_tokens(std::optional<int64_t> asked, int64_t otherwise, ParsedRequest& parsed,
                    const Fields& fields, const RequestLimits& limits) {
  if (!asked) {
    size_t longest = 0;
    for (const auto& prompt : parsed.completion.prompts) longest = std::max(longest, prompt.size());
    auto tokens = static_cast<int64_t>(longest);
    if (const auto keep = fields.integer("truncate_prompt_tokens", 1, limits.context))
      tokens = std::min(tokens, *keep);
    const int64_t choices =
        static_cast<int64_t>(parsed.completion.prompts.size()) * parsed.completion.n;
    int64_t most = limits.new_tokens;
    if (const auto& logprobs = parsed.completion.sampling.logprobs)
      most = std::min(most, limits.all_logprobs / (1 + *logprobs));
    const int64_t share = most / std::max<int64_t>(choices, 1);
    asked = std::max<int64_t>(std::min({otherwise, limits.context - tokens, share}), 1);
  }
  parsed.completion.sampling.max_tokens = static_cast<int>(*asked);
}

}  // namespace

std::string served_model(const Json& body, const RequestContext& context) {
  const auto name = Fields(body).text("model", 1024);
  if (!name) return context.models.front();
  if (std::find(context.models.begin(), context.models.end(), *name) == context.models.end())
    throw ApiError(404, fmt::format("the model `{}` does not exist", *name), "model",
                   "model_not_found");
  return *name;
}

ParsedRequest parse_completion(const Json& body, const RequestContext& context) {
  const Fields fields(body);
  const RequestLimits& limits = context.limits;
  ParsedRequest out = parse_common(fields, body, context);
  out.completion.text.echo = fields.flag("echo", false);
  if (const auto count = fields.integer("logprobs", 0, limits.logprobs))
    out.completion.sampling.logprobs = static_cast<int>(*count);
  const auto asked = fields.integer("max_tokens", out.completion.text.echo ? 0 : 1,
                                    std::numeric_limits<int32_t>::max());
  out.completion.prompts = parse_prompts(fields, context);
  set_max_tokens(asked, kDefaultTokens, out, fields, limits);
  check_sizes(fields, out, {.prompt = "prompt"}, limits);
  return out;
}

ParsedRequest parse_chat(const Json& body, const RequestContext& context) {
  const Fields fields(body);
  const RequestLimits& limits = context.limits;
  ParsedRequest out = parse_common(fields, body, context);
  out.chat = true;
  const bool logprobs = fields.flag("logprobs", false);
  const auto top = fields.integer("top_logprobs", 0, limits.logprobs);
  if (top && *top > 0 && !logprobs)
    throw ApiError(400, "top_logprobs: are allowed with logprobs alone", "top_logprobs");
  if (logprobs) out.completion.sampling.logprobs = static_cast<int>(top.value_or(0));
  auto asked = fields.integer("max_completion_tokens", 1, std::numeric_limits<int32_t>::max());
  const auto old_name = fields.integer("max_tokens", 1, std::numeric_limits<int32_t>::max());
  const std::string name = asked ? "max_completion_tokens" : "max_tokens";
  if (!asked) asked = old_name;
  out.completion.prompts = {parse_messages(fields, context)};
  set_max_tokens(asked,
                 context.defaults.max_new_tokens.value_or(std::numeric_limits<int32_t>::max()), out,
                 fields, limits);
  check_sizes(fields, out, {.prompt = "messages", .max_tokens = name, .logprobs = "top_logprobs"},
              limits);
  return out;
}

std::vector<int32_t> parse_tokenize(const Json& body, const RequestContext& context) {
  const Fields fields(body);
  served_model(body, context);
  if (fields.find("messages") != nullptr) return parse_messages(fields, context);
  if (const Json* prompt = fields.find("prompt"); prompt != nullptr && !prompt->is_string())
    refuse_field("prompt", "must be a string", *prompt);
  return parse_prompts(fields, context).front();
}

}  // namespace atom::serving
