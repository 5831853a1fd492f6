#include "serving/openai_answer.h"

#include <fmt/format.h>

#include <utility>
#include <vector>

#include "serving/json_text.h"
#include "serving/openai_logprobs.h"

namespace atom::serving {
namespace {

std::string usage_text(const Usage& usage) {
  return fmt::format(
      "{{\"prompt_tokens\":{},\"completion_tokens\":{},\"total_tokens\":{},"
      "\"prompt_tokens_details\":{{\"cached_tokens\":{}}}}}",
      usage.prompt_tokens, usage.completion_tokens, usage.prompt_tokens + usage.completion_tokens,
      usage.cached_tokens);
}

// From the opening brace to "choices": in an answer, and in every chunk.
std::string head_text(const AnswerOptions& options, bool chunk) {
  const char* object = !options.chat ? "text_completion"
                       : chunk       ? "chat.completion.chunk"
                                     : "chat.completion";
  return fmt::format(
      "{{\"id\":\"{}{}\",\"object\":\"{}\",\"created\":{},\"model\":{},\"system_fingerprint\":{},"
      "\"choices\":[",
      options.chat ? "chatcmpl-" : "cmpl-", options.id, object, options.created,
      json_string(options.model), json_string(options.fingerprint));
}

ApiError api_error(Failure why, const std::string& message) {
  switch (why) {
    case Failure::kInvalid:
      return {400, message};
    case Failure::kOverloaded:
      return {429, "too many requests are waiting; try again later", "", "rate_limit_exceeded"};
    case Failure::kUnavailable:
      return {503, message};
    case Failure::kDeadline:
      return {504, message};
    case Failure::kFailed:
      break;
  }
  return {500, message};
}

const char* error_type(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 429:
      return "rate_limit_error";
    case 503:
      return "service_unavailable_error";
    case 504:
      return "timeout_error";
    default:
      return status >= 500 ? "server_error" : "invalid_request_error";
  }
}

class Answer : public CompletionSink {
 public:
  Answer(AnswerOptions options, std::shared_ptr<Reply> reply)
      : options_(std::move(options)), reply_(std::move(reply)) {}

  void failed(Failure why, const std::string& message) override {
    const bool later = why == Failure::kOverloaded || why == Failure::kUnavailable;
    reply_->send(error_response(api_error(why, message), later ? options_.retry_after() : 0));
  }

 protected:
  LogprobsText logprobs_text() const { return {options_.chat, options_.logprobs.value_or(0)}; }

  const AnswerOptions options_;
  const std::shared_ptr<Reply> reply_;
};

class WholeAnswer final : public Answer {
 public:
  WholeAnswer(AnswerOptions options, std::shared_ptr<Reply> reply)
      : Answer(std::move(options), std::move(reply)) {
    for (size_t i = 0; i < options_.choices; ++i)
      choices_.push_back({.text = {}, .logprobs = logprobs_text()});
  }

  void accepted() override {}
  void piece(const Piece& piece, const Usage&) override {
    Choice& choice = choices_[piece.choice];
    append_json_escaped(choice.text, piece.text);
    if (options_.logprobs)
      for (const TokenInfo& token : piece.tokens) choice.logprobs.add(token, *options_.tokens);
    if (options_.prompt_logprobs && choice.prompt.empty())
      choice.prompt = prompt_logprobs_text(piece.prompt_logprobs, options_.prompt_logprobs_count,
                                           *options_.tokens);
    if (piece.finish != nullptr) choice.finish = piece.finish;
  }

  void done(const Usage& usage) override {
    std::string body = head_text(options_, false);
    for (size_t i = 0; i < choices_.size(); ++i) {
      Choice& choice = choices_[i];
      fmt::format_to(std::back_inserter(body), "{}{{\"index\":{},", i > 0 ? "," : "", i);
      body += options_.chat ? "\"message\":{\"role\":\"assistant\",\"content\":\"" : "\"text\":\"";
      body += choice.text;
      body += options_.chat ? "\"},\"logprobs\":" : "\",\"logprobs\":";
      body += options_.logprobs ? choice.logprobs.take() : "null";
      fmt::format_to(std::back_inserter(body), ",\"finish_reason\":\"{}\"", choice.finish);
      if (options_.prompt_logprobs) body += ",\"prompt_logprobs\":" + choice.prompt;
      body += '}';
    }
    body += "],\"usage\":" + usage_text(usage) + "}";
    reply_->send({.body = std::move(body), .headers = {}});
  }

 private:
  struct Choice {
    std::string text;  // escaped
    LogprobsText logprobs;
    std::string prompt;
    const char* finish = "stop";
  };
  std::vector<Choice> choices_;
};

class StreamAnswer final : public Answer {
 public:
  StreamAnswer(AnswerOptions options, std::shared_ptr<Reply> reply)
      : Answer(std::move(options), std::move(reply)),
        head_("data: " + head_text(options_, true)),
        logprobs_(logprobs_text()) {}

  void accepted() override {
    begun_ = true;
    reply_->begin_stream({.content_type = "text/event-stream; charset=utf-8",
                          .body = "",
                          .headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}}});
    if (!options_.chat) return;
    std::string out;
    for (size_t i = 0; i < options_.choices; ++i)
      append_chunk(out, i, "\"delta\":{\"role\":\"assistant\",\"content\":\"\"}", "null", nullptr,
                   {});
    reply_->write(std::move(out));
  }

  void piece(const Piece& piece, const Usage& so_far) override {
    std::string out, logprobs = "null";
    if (options_.logprobs && !piece.tokens.empty()) {
      for (const TokenInfo& token : piece.tokens) logprobs_.add(token, *options_.tokens);
      logprobs = logprobs_.take();
    }
    std::string text = options_.chat ? "\"delta\":{\"content\":\"" : "\"text\":\"";
    append_json_escaped(text, piece.text);
    text += options_.chat ? "\"}" : "\"";
    if (!options_.chat) {
      append_chunk(out, piece.choice, text, logprobs, piece.finish, so_far);
    } else {
      if (!piece.tokens.empty() || !piece.text.empty())
        append_chunk(out, piece.choice, text, logprobs, nullptr, so_far);
      if (piece.finish != nullptr)
        append_chunk(out, piece.choice, "\"delta\":{}", "null", piece.finish, so_far);
    }
    reply_->write(std::move(out));
  }

  void done(const Usage& usage) override {
    std::string out;
    if (options_.include_usage) out = head_ + "],\"usage\":" + usage_text(usage) + "}\n\n";
    reply_->write(out + "data: [DONE]\n\n");
    reply_->end();
  }

  void failed(Failure why, const std::string& message) override {
    if (!begun_) return Answer::failed(why, message);
    reply_->write("data: " + error_body(api_error(why, message)) + "\n\n");
    reply_->end();
  }

 private:
  void append_chunk(std::string& out, size_t index, std::string_view text,
                    std::string_view logprobs, const char* finish, const Usage& so_far) const {
    out += head_;
    fmt::format_to(std::back_inserter(out),
                   "{{\"index\":{},{},\"logprobs\":{},\"finish_reason\":", index, text, logprobs);
    if (finish != nullptr)
      fmt::format_to(std::back_inserter(out), "\"{}\"", finish);
    else
      out += "null";
    out += "}]";
    if (options_.include_usage)
      out += ",\"usage\":" + (options_.continuous_usage ? usage_text(so_far) : "null");
    out += "}\n\n";
  }

  const std::string head_;
  LogprobsText logprobs_;
  bool begun_ = false;
};

}  // namespace

std::string error_body(const ApiError& error) {
  const auto text_or_null = [](const std::string& text) {
    return text.empty() ? std::string("null") : json_string(text);
  };
  return fmt::format("{{\"error\":{{\"message\":{},\"type\":\"{}\",\"param\":{},\"code\":{}}}}}",
                     json_string(error.what()), error_type(error.status()),
                     text_or_null(error.param()), text_or_null(error.code()));
}

HttpResponse error_response(const ApiError& error, int retry_after) {
  HttpResponse response{.status = error.status(), .body = error_body(error), .headers = {}};
  if (retry_after > 0) response.headers.emplace_back("Retry-After", std::to_string(retry_after));
  return response;
}

std::shared_ptr<CompletionSink> make_answer(AnswerOptions options, std::shared_ptr<Reply> reply) {
  if (options.stream) return std::make_shared<StreamAnswer>(std::move(options), std::move(reply));
  return std::make_shared<WholeAnswer>(std::move(options), std::move(reply));
}

}  // namespace atom::serving
