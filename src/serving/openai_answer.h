// Answers of the OpenAI API: whole ones and streams of server-sent events.
//
// What does not change between the chunks of a stream is written once; a chunk costs its text's escaping.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "serving/completion.h"
#include "serving/http.h"
#include "serving/openai_fields.h"
#include "serving/openai_request.h"

namespace atom::serving {

struct AnswerOptions {
  std::string id;  // without "cmpl-" or "chatcmpl-"
  std::string model, fingerprint;
  int64_t created = 0;  // Unix seconds
  bool chat = false, stream = false;
  bool include_usage = false, continuous_usage = false;
  size_t choices = 1;
  bool echo = false;
  std::optional<int> logprobs;  // so many most likely ones
  bool prompt_logprobs = false;
  int prompt_logprobs_count = 0;
  std::function<int()> retry_after;  // seconds
  std::shared_ptr<const TokenTexts> tokens;
  std::shared_ptr<void> busy;  // held until the answer has ended
};

// {"error": ...}; Retry-After where it is not 0.
HttpResponse error_response(const ApiError& error, int retry_after = 0);
std::string error_body(const ApiError& error);

// The sink of a completion that answers `reply`.
std::shared_ptr<CompletionSink> make_answer(AnswerOptions options, std::shared_ptr<Reply> reply);

}  // namespace atom::serving
