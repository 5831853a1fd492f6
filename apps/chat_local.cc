// A model in this process: what `atom serve` has, but for the sockets.
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>

#include "chat_server.h"
#include "console.h"
#include "event_reader.h"
#include "serve_model.h"
#include "serving/api.h"
#include "serving/engine_thread.h"
#include "session.h"

namespace atom::app {
namespace {

constexpr auto kTick = std::chrono::milliseconds(50);  // between two looks at `stopped`

// Bytes of one answer on their way from the API's threads to the one that waits.
class AnswerQueue {
 public:
  bool push(std::string bytes) {
    const std::lock_guard lock(mutex_);
    if (left_) return false;
    bytes_.push_back(std::move(bytes));
    ready_.notify_one();
    return true;
  }
  void set_status(int status) {
    const std::lock_guard lock(mutex_);
    status_ = status;
  }
  void close(bool whole) {
    const std::lock_guard lock(mutex_);
    if (closed_) return;
    closed_ = true;
    whole_ = whole;
    ready_.notify_one();
  }
  void on_gone(std::function<void()> gone) {
    {
      const std::lock_guard lock(mutex_);
      if (!left_) return std::swap(gone_, gone);
    }
    gone();
  }

  // Of the one who waits. Nothing: there is no more. Error: `stopped`, or an answer without an end.
  std::optional<std::string> pop(const Stopped& stopped) {
    std::unique_lock lock(mutex_);
    while (bytes_.empty() && !closed_) {
      if (stopped()) fail("stopped");
      ready_.wait_for(lock, kTick);
    }
    if (bytes_.empty() && !whole_) fail("the answer has no end");
    if (bytes_.empty()) return std::nullopt;
    std::string bytes = std::move(bytes_.front());
    bytes_.pop_front();
    return bytes;
  }
  int status() {
    const std::lock_guard lock(mutex_);
    return status_;
  }
  // Nobody waits any more: the request is cancelled unless its answer has ended.
  void leave() {
    std::function<void()> gone;
    {
      const std::lock_guard lock(mutex_);
      left_ = true;
      if (!closed_) gone.swap(gone_);
      gone_ = nullptr;
    }
    if (gone) gone();
  }

 private:
  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<std::string> bytes_;
  std::function<void()> gone_;
  int status_ = 0;
  bool closed_ = false, whole_ = false, left_ = false;
};

class LocalReply : public serving::Reply {
 public:
  explicit LocalReply(std::shared_ptr<AnswerQueue> queue) : queue_(std::move(queue)) {}
  ~LocalReply() override { queue_->close(false); }
  LocalReply(const LocalReply&) = delete;
  LocalReply& operator=(const LocalReply&) = delete;

  void send(serving::HttpResponse response) override {
    queue_->set_status(response.status);
    queue_->push(std::move(response.body));
    queue_->close(true);
  }
  void begin_stream(serving::HttpResponse head) override { queue_->set_status(head.status); }
  bool write(std::string bytes) override { return queue_->push(std::move(bytes)); }
  void end() override { queue_->close(true); }
  void on_gone(std::function<void()> gone) override { queue_->on_gone(std::move(gone)); }

 private:
  const std::shared_ptr<AnswerQueue> queue_;
};

class LocalServer : public ChatServer {
 public:
  LocalServer(const ServeOptions& options, Stopped stopped);

  Answer chat(const std::string& body, const std::function<void(std::string_view)>& event) override;
  const std::string& model() const override { return name_; }
  const std::string& place() const override { return place_; }

 private:
  const std::string place_, name_;
  const Stopped stopped_;
  const checkpoint::ModelFiles files_;
  const model::ModelConfig config_;
  const text::Tokenizer tokenizer_;
  std::optional<text::ChatTemplate> template_;
  Runtime runtime_;
  std::unique_ptr<model::Model> model_;
  std::optional<serving::EngineThread> engine_;
  std::optional<serving::Api> api_;
};

LocalServer::LocalServer(const ServeOptions& options, Stopped stopped)
    : place_(options.model),
      name_(model_names(options).front()),
      stopped_(std::move(stopped)),
      files_(open_model(options.model)),
      config_(load_config(files_, options.max_model_len.value_or(0))),
      tokenizer_(load_tokenizer(files_, config_)),
      runtime_(options.common) {
  const checkpoint::ChatTemplateFile chat_file =
      checkpoint::read_chat_template(files_, options.chat_template);
  template_ = load_chat_template(chat_file);
  if (!template_)
    fail(
        "{}: this model has no chat template, so it cannot chat; --chat-template gives one, and "
        "atom generate continues a text",
        options.model);
  model::GenerationConfig generation = load_generation_config(options, files_, config_);
  model_ = load_weights(files_, runtime_, cache_kind(options), options.max_model_len.value_or(0));
  model::add_eos_ids(model_->config.eos_ids, generation.eos_ids);
  runtime_.show_fallbacks();
  engine_.emplace(*model_, engine_plan(options, *model_).options);
  api_.emplace(*engine_, tokenizer_, &*template_,
               serving::ApiOptions{.models = {name_},
                                   .version = ATOM_VERSION,
                                   .bos_token = chat_file.bos_token,
                                   .eos_token = chat_file.eos_token,
                                   .defaults = std::move(generation)});
}

ChatServer::Answer LocalServer::chat(const std::string& body,
                                     const std::function<void(std::string_view)>& event) {
  const auto queue = std::make_shared<AnswerQueue>();
  const auto leave = [](AnswerQueue* waited) { waited->leave(); };
  const std::unique_ptr<AnswerQueue, decltype(leave)> waiting(queue.get(), leave);
  serving::HttpRequest request = {.head = {}, .body = body};
  request.head.method = "POST";
  request.head.path = "/v1/chat/completions";
  request.head.content_type = "application/json";
  api_->handle(std::move(request), std::make_shared<LocalReply>(queue));
  Answer answer;
  EventReader reader(event);
  while (const auto bytes = queue->pop(stopped_)) {
    if (queue->status() == 200)
      reader(*bytes);
    else
      answer.body += *bytes;
  }
  answer.status = queue->status();
  return answer;
}

}  // namespace

std::unique_ptr<ChatServer> load_chat(const ServeOptions& options, const Stopped& stopped) {
  return std::make_unique<LocalServer>(options, stopped);
}

}  // namespace atom::app
