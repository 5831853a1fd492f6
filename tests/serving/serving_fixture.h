// A small random model with a real tokenizer behind the API, and replies that write down what they get.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "backend/open.h"
#include "base/executor.h"
#include "base/json.h"
#include "model/random_model.h"
#include "serving/api.h"
#include "serving/engine_thread.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace atom::serving {

constexpr auto kPatience = std::chrono::seconds(60);  // more is a hang

class FakeReply final : public Reply {
 public:
  void send(HttpResponse response) override {
    const std::lock_guard lock(mutex_);
    ++ends_;
    response_ = std::move(response);
    changed_.notify_all();
  }
  void begin_stream(HttpResponse head) override {
    const std::lock_guard lock(mutex_);
    EXPECT_FALSE(streaming_);
    streaming_ = true;
    response_ = std::move(head);
  }
  bool write(std::string bytes) override {
    const std::lock_guard lock(mutex_);
    EXPECT_TRUE(streaming_);
    EXPECT_EQ(ends_, 0) << "bytes after the end";
    response_.body += bytes;
    changed_.notify_all();
    return !gone_;
  }
  void end() override {
    const std::lock_guard lock(mutex_);
    EXPECT_TRUE(streaming_);
    ++ends_;
    changed_.notify_all();
  }
  void on_gone(std::function<void()> gone) override {
    std::unique_lock lock(mutex_);
    if (!gone_) {
      on_gone_ = std::move(gone);
      changed_.notify_all();
      return;
    }
    lock.unlock();
    gone();
  }

  void leave() {  // the client
    std::function<void()> gone;
    {
      const std::lock_guard lock(mutex_);
      gone_ = true;
      gone = std::exchange(on_gone_, nullptr);
    }
    if (gone) gone();
  }
  bool wait_for(const std::function<bool(const FakeReply&)>& what) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, [&] { return what(*this); });
  }
  bool wait() {
    return wait_for([](const FakeReply& reply) { return reply.ends_ > 0; });
  }
  bool wait_started() {
    return wait_for([](const FakeReply& reply) { return reply.on_gone_ != nullptr; });
  }
  bool wait_text() {
    return wait_for([](const FakeReply& reply) { return !reply.response_.body.empty(); });
  }
  HttpResponse response() const {
    const std::lock_guard lock(mutex_);
    return response_;
  }
  int ends() const {
    const std::lock_guard lock(mutex_);
    return ends_;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  HttpResponse response_;
  bool streaming_ = false, gone_ = false;
  int ends_ = 0;
  std::function<void()> on_gone_;
};

// Lets the engine's thread make so many rounds, and holds it before the next.
class Gate {
 public:
  void pass() {  // of the engine's thread
    std::unique_lock lock(mutex_);
    held_ = allowed_ == 0;
    changed_.notify_all();
    changed_.wait(lock, [this] { return allowed_ != 0; });
    held_ = false;
    if (allowed_ > 0) --allowed_;
  }
  void allow(int rounds) {  // -1: any number
    const std::lock_guard lock(mutex_);
    allowed_ = rounds;
    changed_.notify_all();
  }
  // Until the rounds that were allowed are over.
  void wait_held() {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, kPatience, [this] { return held_ && allowed_ == 0; }));
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int allowed_ = -1;
  bool held_ = false;
};

struct SmallModel {
  SmallModel();
  Executor executor{{.threads = 2}};
  std::unique_ptr<backend::Backend> backend;
  text::Tokenizer tokenizer;
  model::RandomModel random;
  const model::Model& model() const { return *random.model; }
};

inline model::ModelConfig small_config(int vocabulary) {
  model::ModelConfig config;
  config.family = &model::find_family("LlamaForCausalLM", "test");
  config.vocabulary = vocabulary;
  config.eos_ids = {2};
  config.hidden = 128;
  config.intermediate = 128;
  config.layers = 1;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_dim = 32;
  config.max_positions = 512;
  config.norm_epsilon = 1e-5f;
  config.rope_theta = 10000;
  config.experts = config.experts_per_token = 1;
  return config;
}

inline model::Scheme small_scheme(const model::ModelConfig& config) {
  model::Scheme scheme;
  scheme.quantized = true;
  scheme.kv.assign(static_cast<size_t>(config.layers), format::KvKind::kInt4);
  scheme.open_page = true;
  for (const std::string& module : model::linear_modules(config))
    scheme.linears.emplace(module,
                           model::LinearScheme{.weight = format::int4(32), .input = format::kInt8});
  return scheme;
}

inline SmallModel::SmallModel()
    : backend(backend::open_backend("cpu", {.executor = &executor})),
      tokenizer(text::Tokenizer::from_file(std::string(ATOM_SOURCE_DIR) +
                                           "/models/ref-dense-11m/tokenizer.json")),
      random(model::make_random_model(
          *backend, {.config = small_config(tokenizer.vocab_size()),
                     .scheme = small_scheme(small_config(tokenizer.vocab_size()))})) {}

// Made once: it is only read.
inline SmallModel& small_model() {
  static SmallModel model;
  return model;
}

struct ApiAnswer {
  HttpResponse response;
  Json json() const { return parse_json(response.body); }
  std::string header(const std::string& name) const {
    for (const auto& [key, value] : response.headers)
      if (key == name) return value;
    return "";
  }
  // Of a stream; the last, [DONE], is left out.
  std::vector<Json> chunks() const {
    std::vector<Json> out;
    std::string_view rest = response.body;
    bool done = false;
    while (!rest.empty()) {
      EXPECT_FALSE(done) << "a chunk after [DONE]";
      const size_t end = rest.find("\n\n");
      EXPECT_NE(end, std::string_view::npos);
      EXPECT_EQ(rest.substr(0, 6), "data: ");
      const std::string_view data = rest.substr(6, end - 6);
      done = data == "[DONE]";
      if (!done) out.push_back(parse_json(data));
      rest.remove_prefix(end + 2);
    }
    return out;
  }
};

class ApiTest : public ::testing::Test {
 protected:
  // Of the engine, the template and the API; before the first request.
  engine::EngineOptions engine_options_{
      .max_sequences = 8, .max_rows = 64, .pages = 64, .check_each_step = true};
  ApiOptions api_options_{.models = {"small", "alias"}, .version = "1.2"};
  std::function<void()> before_step_ = [this] { gate_.pass(); };
  bool has_template_ = true;
  Gate gate_;

  EngineThread& engine() {
    if (engine_ == nullptr)
      engine_ = std::make_unique<EngineThread>(small_model().model(), engine_options_,
                                               EngineThreadOptions{.before_step = before_step_});
    return *engine_;
  }
  Api& api() {
    if (api_ == nullptr)
      api_ = std::make_unique<Api>(engine(), small_model().tokenizer,
                                   has_template_ ? &template_ : nullptr, api_options_);
    return *api_;
  }
  std::shared_ptr<FakeReply> begin(const std::string& path, const std::string& body,
                                   const std::string& method = "POST",
                                   const std::string& type = "application/json") {
    HttpRequest request;
    request.head.method = method;
    request.head.path = path;
    request.head.content_type = type;
    request.body = body;
    auto reply = std::make_shared<FakeReply>();
    api().handle(std::move(request), reply);
    return reply;
  }
  ApiAnswer ask(const std::string& path, const std::string& body,
                const std::string& method = "POST", const std::string& type = "application/json") {
    const auto reply = begin(path, body, method, type);
    EXPECT_TRUE(reply->wait()) << path << " " << body.substr(0, 200);
    EXPECT_EQ(reply->ends(), 1);
    return {reply->response()};
  }
  ApiAnswer get(const std::string& path) { return ask(path, "", "GET", ""); }
  // {"error": ...} of its shape; the message is returned.
  static std::string expect_error(const ApiAnswer& answer, int status, const Json& param) {
    EXPECT_EQ(answer.response.status, status) << answer.response.body;
    const Json error = answer.json().value("error", Json::object());
    EXPECT_EQ(error.size(), 4u) << answer.response.body;
    EXPECT_EQ(error.value("param", Json("none")), param) << answer.response.body;
    EXPECT_TRUE(error.contains("code") && (error["code"].is_null() || error["code"].is_string()));
    EXPECT_TRUE(error.contains("type") && error["type"].is_string());
    return error.value("message", "");
  }
  void expect_no_pages() {
    const auto until = std::chrono::steady_clock::now() + kPatience;
    while (std::chrono::steady_clock::now() < until) {
      const engine::EngineStats stats = engine().stats().engine;
      if (stats.pages_held == 0 && stats.running == 0 && stats.waiting == 0) return;
      std::this_thread::yield();
    }
    ADD_FAILURE() << engine().stats().engine.pages_held << " pages are held";
  }
  ~ApiTest() override { gate_.allow(-1); }

  text::ChatTemplate template_ = text::ChatTemplate::parse(
      "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}");
  std::unique_ptr<EngineThread> engine_;
  std::unique_ptr<Api> api_;
};

}  // namespace atom::serving
