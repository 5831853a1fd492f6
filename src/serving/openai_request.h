// Bodies of requests of the OpenAI API, checked field by field, become completions.
// Unknown fields are ignored; known ones with wrong values, or that ask for what is not there yet, are an ApiError.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "model/generation_config.h"
#include "serving/completion.h"
#include "text/tokenizer.h"

namespace atom::serving {

// A chat's context (an object: messages, add_generation_prompt, bos_token, eos_token, ...) -> the prompt.
// Error: what the template raises.
using RenderChat = std::function<std::string(const Json& context)>;

struct RequestLimits {
  int64_t context = 0;              // tokens of prompt and text
  int64_t vocabulary = 0;           // ids of the model
  int choices = 512;                // prompts x n
  int64_t new_tokens = 1 << 20;     // prompts x n x max_tokens
  int64_t prompt_tokens = 1 << 20;  // of all choices
  size_t prompt_bytes = 1 << 20;    // of one text: to make tokens of more takes too long
  int n = 128;
  int stops = 64;
  size_t stop_bytes = 1024;  // of each
  size_t stop_ids = 256;
  size_t bias_entries = 1024;
  int logprobs = 20;
  int64_t all_logprobs = 2 << 20;  // tokens with logprobs of all choices x (1 + logprobs)
  int messages = 4096;
};

struct RequestContext {
  const text::Tokenizer& tokenizer;
  const RequestLimits& limits;
  const std::vector<std::string>& models;  // names that are served; the first is the default
  const RenderChat& chat;                  // empty: none
  std::string bos_token, eos_token;        // for the template
  model::GenerationConfig defaults;        // of fields that a request leaves out
};

struct ParsedRequest {
  CompletionRequest completion;
  std::string model;
  bool chat = false;
  bool stream = false;
  bool include_usage = false, continuous_usage = false;  // in a stream
};

ParsedRequest parse_completion(const Json& body, const RequestContext& context);
ParsedRequest parse_chat(const Json& body, const RequestContext& context);

// The ids of {"prompt": ...} or {"messages": ...}, for /tokenize.
std::vector<int32_t> parse_tokenize(const Json& body, const RequestContext& context);
// The name of a model that is served. ApiError 404.
std::string served_model(const Json& body, const RequestContext& context);

}  // namespace atom::serving
