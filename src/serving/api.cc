#include "serving/api.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <cmath>
#include <random>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "serving/engine_thread.h"
#include "serving/json_text.h"
#include "serving/metrics.h"
#include "serving/openai_answer.h"
#include "serving/openai_fields.h"
#include "serving/openai_request.h"
#include "serving/work_threads.h"
#include "text/chat_template.h"

namespace atom::serving {
namespace {

constexpr int kDepth = 32;                // of a request's JSON
constexpr size_t kLargeBytes = 64 << 10;  // of a body that takes some milliseconds to read

constexpr size_t kLeastPromptBytes = 1 << 20;

// A text of more bytes cannot be one of so many tokens, were it made of the longest ones; four times that, since
// normalizers may shorten a text.
size_t most_bytes(const text::Tokenizer& tokenizer, int64_t tokens) {
  size_t longest = 0;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id)
    longest = std::max(longest, tokenizer.id_to_token(id).size());
  return 4 * longest * static_cast<size_t>(tokens);
}

int64_t unix_seconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// "%2F" -> "/"; what is not well-formed stays.
std::string percent_decoded(std::string_view text) {
  const auto digit = [](char c) {
    const std::string_view digits = "0123456789abcdef";
    const auto at = digits.find(static_cast<char>(std::tolower(static_cast<unsigned char>(c))));
    return at == std::string_view::npos ? -1 : static_cast<int>(at);
  };
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && digit(text[i + 1]) >= 0 &&
        digit(text[i + 2]) >= 0) {
      out += static_cast<char>(digit(text[i + 1]) * 16 + digit(text[i + 2]));
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

bool is_json(std::string_view content_type) {
  std::string type(content_type.substr(0, content_type.find(';')));
  while (!type.empty() && type.back() == ' ') type.pop_back();
  std::transform(type.begin(), type.end(), type.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return type == "application/json";
}

Json parse_body(const std::string& body) {
  try {
    return parse_json(body, {.source = "the request", .max_depth = kDepth});
  } catch (const Error& error) {
    // Without what the parser says about its states, and the bytes that it quotes.
    std::string message = error.what();
    const std::string_view mark = "not valid JSON at byte ";
    if (const size_t at = message.find(mark); at != std::string::npos)
      message.resize(std::min(message.find(':', at + mark.size()), message.size()));
    throw ApiError(400, message);
  }
}

}  // namespace

class Api::Impl {
 public:
  Impl(EngineThread& engine, const text::Tokenizer& tokenizer,
       const text::ChatTemplate* chat_template, ApiOptions options);
  void handle(HttpRequest request, const std::shared_ptr<Reply>& reply);
  void begin_drain() { draining_ = true; }
  bool idle() const { return *busy_ == 0; }

 private:
  struct Busy {
    explicit Busy(std::shared_ptr<std::atomic<int>> counter) : count(std::move(counter)) {
      ++*count;
    }
    ~Busy() { --*count; }
    Busy(const Busy&) = delete;
    Busy& operator=(const Busy&) = delete;
    std::shared_ptr<std::atomic<int>> count;
  };
  using Post = void (Impl::*)(const Json& body, const std::shared_ptr<Reply>& reply,
                              const std::shared_ptr<void>& busy);

  HttpResponse get(const std::string& path) const;
  HttpResponse health(bool ready) const;
  HttpResponse models(std::optional<std::string> name) const;
  HttpResponse tokenizer_info() const;
  void post(Post action, const std::string& body, const std::shared_ptr<Reply>& reply,
            const std::shared_ptr<void>& busy);
  void completions(const Json& body, const std::shared_ptr<Reply>& reply,
                   const std::shared_ptr<void>& busy);
  void chat(const Json& body, const std::shared_ptr<Reply>& reply,
            const std::shared_ptr<void>& busy);
  void tokenize(const Json& body, const std::shared_ptr<Reply>& reply,
                const std::shared_ptr<void>& busy);
  void detokenize(const Json& body, const std::shared_ptr<Reply>& reply,
                  const std::shared_ptr<void>& busy);
  void start(ParsedRequest parsed, const std::shared_ptr<Reply>& reply,
             const std::shared_ptr<void>& busy);
  void require_engine() const;
  static int retry_after(const EngineThread& engine);
  RequestContext context() const {
    return {tokenizer_,         limits_,          options_.models, render_, options_.bos_token,
            options_.eos_token, options_.defaults};
  }

  EngineThread& engine_;
  const text::Tokenizer& tokenizer_;
  const text::ChatTemplate* template_;
  ApiOptions options_;
  RequestLimits limits_;
  RenderChat render_;
  const std::shared_ptr<const TokenTexts> token_texts_;
  const int64_t created_ = unix_seconds();
  const std::string id_prefix_;
  std::atomic<uint64_t> next_id_ = 1;
  std::atomic<bool> draining_ = false;
  // Answers may outlive the Api, while the engine still holds them.
  const std::shared_ptr<std::atomic<int>> busy_ = std::make_shared<std::atomic<int>>(0);
  WorkThreads work_;  // last: it ends before what it uses
};

Api::Impl::Impl(EngineThread& engine, const text::Tokenizer& tokenizer,
                const text::ChatTemplate* chat_template, ApiOptions options)
    : engine_(engine),
      tokenizer_(tokenizer),
      template_(chat_template),
      options_(std::move(options)),
      token_texts_(std::make_shared<TokenTexts>(tokenizer)),
      id_prefix_(fmt::format("{:08x}{:08x}", std::random_device()(), std::random_device()())),
      work_(options_.work_threads, options_.queue_bytes, kLargeBytes) {
  check(!options_.models.empty(), "a served model has a name");
  limits_.context = engine.context();
  limits_.vocabulary = engine.config().vocabulary;
  limits_.choices = std::min(options_.max_choices, engine.options().max_waiting);
  limits_.new_tokens = options_.max_new_tokens;
  limits_.prompt_tokens = std::max(engine.options().max_waiting_tokens, limits_.context);
  limits_.prompt_bytes = std::max(kLeastPromptBytes, most_bytes(tokenizer, limits_.context));
  if (template_ != nullptr)
    render_ = [this](const Json& context) { return template_->render(context); };
  const auto token = [&](std::string& text, std::optional<int32_t> id) {
    if (text.empty() && id && tokenizer.has_token(*id)) text = tokenizer.id_to_token(*id);
  };
  token(options_.bos_token, tokenizer.bos_id());
  if (!engine.config().eos_ids.empty()) token(options_.eos_token, engine.config().eos_ids.front());
}

void Api::Impl::handle(HttpRequest request, const std::shared_ptr<Reply>& reply) {
  struct Route {
    std::string_view path;
    Post action;  // null: GET
    bool completes = false;
  };
  static constexpr Route kRoutes[] = {{"/v1/completions", &Impl::completions, true},
                                      {"/v1/chat/completions", &Impl::chat, true},
                                      {"/tokenize", &Impl::tokenize},
                                      {"/detokenize", &Impl::detokenize},
                                      {"/health", nullptr},
                                      {"/v1/health", nullptr},
                                      {"/ready", nullptr},
                                      {"/ping", nullptr},
                                      {"/live", nullptr},
                                      {"/load", nullptr},
                                      {"/version", nullptr},
                                      {"/metrics", nullptr},
                                      {"/tokenizer_info", nullptr},
                                      {"/v1/models", nullptr},
                                      {"/v1/models/", nullptr}};
  try {
    const HttpHead& head = request.head;
    const Route* route = nullptr;
    for (const Route& one : kRoutes)
      if (head.path == one.path || (one.path.back() == '/' && head.path.starts_with(one.path)))
        route = &one;
    if (route == nullptr) throw ApiError(404, "there is nothing at this path", "", "not_found");
    const char* method = route->action == nullptr ? "GET" : "POST";
    if (head.method != method) {
      HttpResponse refusal =
          error_response(ApiError(405, fmt::format("the method must be {}", method)));
      refusal.headers.emplace_back("Allow", method);
      return reply->send(std::move(refusal));
    }
    if (route->action == nullptr) return reply->send(get(head.path));
    if (!is_json(head.content_type))
      throw ApiError(415, "the content type must be application/json");
    if (route->completes) require_engine();
    const auto busy = std::make_shared<Busy>(busy_);
    const size_t bytes = request.body.size();
    auto work = [this, action = route->action, body = std::move(request.body),
                 charge = std::move(request.body_charge), reply,
                 busy] { post(action, body, reply, busy); };
    if (!work_.post(bytes, std::move(work)))
      throw ApiError(429, "too many requests are waiting; try again later", "",
                     "rate_limit_exceeded");
  } catch (const ApiError& error) {
    reply->send(error_response(
        error, error.status() == 429 || error.status() == 503 ? retry_after(engine_) : 0));
  }
}

void Api::Impl::post(Post action, const std::string& body, const std::shared_ptr<Reply>& reply,
                     const std::shared_ptr<void>& busy) {
  try {
    (this->*action)(parse_body(body), reply, busy);
  } catch (const ApiError& error) {
    reply->send(error_response(error, error.status() == 503 ? retry_after(engine_) : 0));
  } catch (const std::exception& error) {
    log_warning("a request failed: {}", error.what());
    reply->send(Api::error(500, "the server failed on this request"));
  }
}

void Api::Impl::require_engine() const {
  if (!engine_.alive()) throw ApiError(503, "the engine has stopped");
  if (draining_) throw ApiError(503, "the server is shutting down");
}

int Api::Impl::retry_after(const EngineThread& engine) {
  return static_cast<int>(std::clamp(std::ceil(engine.stats().queue_seconds), 1.0, 60.0));
}

HttpResponse Api::Impl::get(const std::string& path) const {
  if (path == "/health" || path == "/v1/health" || path == "/ready" || path == "/ping")
    return health(!draining_);
  if (path == "/live") return health(true);
  if (path == "/load") {
    const engine::EngineStats stats = engine_.stats().engine;
    return {.body = fmt::format("{{\"server_load\":{}}}", stats.running + stats.waiting),
            .headers = {}};
  }
  if (path == "/version")
    return {.body = "{\"version\":" + json_string(options_.version) + "}", .headers = {}};
  if (path == "/metrics")
    return {.content_type = "text/plain; version=0.0.4; charset=utf-8",
            .body = metrics_text(engine_.stats(), {.model = options_.models.front(),
                                                   .vllm_names = options_.vllm_metrics}),
            .headers = {}};
  if (path == "/tokenizer_info") return tokenizer_info();
  if (path == "/v1/models") return models({});
  return models(
      percent_decoded(std::string_view(path).substr(std::string_view("/v1/models/").size())));
}

HttpResponse Api::Impl::health(bool ready) const {
  if (!engine_.alive()) return Api::error(503, "the engine has stopped");
  if (!ready) return Api::error(503, "the server is shutting down");
  return {.body = kHealthy, .headers = {}};
}

HttpResponse Api::Impl::models(std::optional<std::string> name) const {
  std::string list;
  for (const std::string& model : options_.models) {
    const std::string text = fmt::format(
        "{{\"id\":{},\"object\":\"model\",\"created\":{},\"owned_by\":\"atom\",\"root\":{},"
        "\"parent\":null,\"max_model_len\":{}}}",
        json_string(model), created_, json_string(options_.models.front()), limits_.context);
    if (name == model) return {.body = text, .headers = {}};
    if (!list.empty()) list += ',';
    list += text;
  }
  if (name) return Api::error(404, "this model does not exist", "model", "model_not_found");
  return {.body = "{\"object\":\"list\",\"data\":[" + list + "]}", .headers = {}};
}

HttpResponse Api::Impl::tokenizer_info() const {
  const auto text_or_null = [](const std::string& text) {
    return text.empty() ? std::string("null") : json_string(text);
  };
  return {.body = fmt::format(
              "{{\"tokenizer_class\":\"PreTrainedTokenizerFast\",\"bos_token\":{},\"eos_token\":{},"
              "\"vocab_size\":{},\"model_max_length\":{},\"has_chat_template\":{}}}",
              text_or_null(options_.bos_token), text_or_null(options_.eos_token),
              tokenizer_.vocab_size(), limits_.context, template_ != nullptr),
          .headers = {}};
}

void Api::Impl::tokenize(const Json& body, const std::shared_ptr<Reply>& reply,
                         const std::shared_ptr<void>&) {
  const RequestContext context = this->context();
  const std::vector<int32_t> ids = parse_tokenize(body, context);
  std::string out = fmt::format("{{\"count\":{},\"max_model_len\":{},\"tokens\":[{}]", ids.size(),
                                limits_.context, fmt::join(ids, ","));
  if (Fields(body).flag("return_token_strs", false)) {
    std::string texts;
    for (const int32_t id : ids) {
      if (!texts.empty()) texts += ',';
      append_json_string(texts, tokenizer_.id_to_token(id));
    }
    out += ",\"token_strs\":[" + texts + "]";
  }
  reply->send({.body = out + "}", .headers = {}});
}

void Api::Impl::detokenize(const Json& body, const std::shared_ptr<Reply>& reply,
                           const std::shared_ptr<void>&) {
  const Fields fields(body);
  served_model(body, context());
  if (fields.find("tokens") == nullptr) throw ApiError(400, "tokens: is missing", "tokens");
  const std::vector<int32_t> ids = fields.ids("tokens", limits_.vocabulary, 1 << 20);
  const bool skip = fields.flag("skip_special_tokens", false);
  const std::string text = tokenizer_.decode(ids, {.skip_special_tokens = skip});
  reply->send({.body = "{\"prompt\":" + json_string(text) + "}", .headers = {}});
}

void Api::Impl::completions(const Json& body, const std::shared_ptr<Reply>& reply,
                            const std::shared_ptr<void>& busy) {
  start(parse_completion(body, context()), reply, busy);
}

void Api::Impl::chat(const Json& body, const std::shared_ptr<Reply>& reply,
                     const std::shared_ptr<void>& busy) {
  start(parse_chat(body, context()), reply, busy);
}

void Api::Impl::start(ParsedRequest parsed, const std::shared_ptr<Reply>& reply,
                      const std::shared_ptr<void>& busy) {
  require_engine();  // it may have stopped since
  CompletionRequest& completion = parsed.completion;
  completion.timeout = options_.request_seconds;
  AnswerOptions options{.id = fmt::format("{}{:08x}", id_prefix_, next_id_++),
                        .model = parsed.model,
                        .fingerprint = "atom-" + options_.version,
                        .created = unix_seconds(),
                        .chat = parsed.chat,
                        .stream = parsed.stream,
                        .include_usage = parsed.include_usage,
                        .continuous_usage = parsed.continuous_usage,
                        .choices = completion.prompts.size() * static_cast<size_t>(completion.n),
                        .echo = completion.text.echo,
                        .logprobs = completion.sampling.logprobs,
                        .prompt_logprobs = completion.sampling.prompt_logprobs.has_value(),
                        .prompt_logprobs_count = completion.sampling.prompt_logprobs.value_or(0),
                        .retry_after = [&engine = engine_] { return retry_after(engine); },
                        .tokens = token_texts_,
                        .busy = busy};
  const EngineThread::Ticket ticket = start_completion(engine_, tokenizer_, std::move(completion),
                                                       make_answer(std::move(options), reply));
  // Not the answer itself, which holds the reply.
  reply->on_gone([&engine = engine_, ticket] { engine.cancel(ticket); });
}

Api::Api(EngineThread& engine, const text::Tokenizer& tokenizer,
         const text::ChatTemplate* chat_template, ApiOptions options)
    : impl_(std::make_unique<Impl>(engine, tokenizer, chat_template, std::move(options))) {}

Api::~Api() = default;

void Api::handle(HttpRequest request, std::shared_ptr<Reply> reply) {
  impl_->handle(std::move(request), reply);
}

HttpResponse Api::error(int status, const std::string& message, const std::string& param,
                        const std::string& code) {
  return error_response(ApiError(status, message, param, code));
}

void Api::begin_drain() { impl_->begin_drain(); }
bool Api::idle() const { return impl_->idle(); }

}  // namespace atom::serving
