#include "chat_talk.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "console.h"

namespace atom::app {
namespace {

constexpr size_t kMaxAnswer = 64 << 20;  // bytes
constexpr int kDepth = 32;

struct StoppedByUser {};

// The field of an object; null where there is none.
const Json* field(const Json* object, const char* name) {
  if (object == nullptr || !object->is_object()) return nullptr;
  const auto found = object->find(name);
  return found == object->end() || found->is_null() ? nullptr : &*found;
}

// Reads the events of one answer.
class AnswerReader {
 public:
  AnswerReader(const std::function<void(std::string_view)>& show, const Stopped& stopped)
      : show_(show), stopped_(stopped) {}

  void event(std::string_view data) {
    if (stopped_()) throw StoppedByUser();
    if (done_) return;
    if (data == "[DONE]") {
      done_ = true;
      return;
    }
    const Json json = parse_json(data, {.source = "the server's answer", .max_depth = kDepth});
    if (field(&json, "error") != nullptr) {
      const std::string message = error_message(data);
      fail("{}", message.empty() ? "the server ended the answer with an error" : message);
    }
    if (const Json* count = field(field(&json, "usage"), "completion_tokens");
        count != nullptr && count->is_number_integer())
      counted_ = count->get<int64_t>();
    const Json* choices = field(&json, "choices");
    if (choices != nullptr && choices->is_array() && !choices->empty()) choice(choices->front());
  }

  // Error: the answer had no end.
  Spoken end() {
    if (finish_.empty() && !done_) fail("the server ended the answer too early");
    return spoken();
  }
  Spoken spoken() const {
    return {.finish = finish_,
            .tokens = counted_.value_or(pieces_),
            .first = first_.value_or(watch_.seconds()),
            .rest = first_ ? last_ - *first_ : 0};
  }
  const std::string& text() const { return text_; }

 private:
  void choice(const Json& choice) {
    if (const Json* finish = field(&choice, "finish_reason"); finish && finish->is_string())
      finish_ = finish->get<std::string>();
    const Json* content = field(field(&choice, "delta"), "content");
    if (content == nullptr) return;
    if (!content->is_string()) fail("the server's answer has a content that is no text");
    const std::string& piece = content->get_ref<const std::string&>();
    if (piece.empty()) return;
    last_ = watch_.seconds();
    if (!first_) first_ = last_;
    ++pieces_;
    text_ += piece;
    if (text_.size() > kMaxAnswer) fail("the server's answer is too long");
    show_(piece);
  }

  const std::function<void(std::string_view)>& show_;
  const Stopped& stopped_;
  const Stopwatch watch_;
  std::string text_, finish_;
  bool done_ = false;
  int64_t pieces_ = 0;
  std::optional<int64_t> counted_;
  std::optional<double> first_;
  double last_ = 0;
};

template <typename Value>
void put(Json& body, const char* name, const std::optional<Value>& value) {
  if (value) body[name] = *value;
}

}  // namespace

void Talk::say(std::string text) {
  if (!turns_.empty() && !turns_.back().answer) turns_.pop_back();
  turns_.push_back({.question = std::move(text), .answer = std::nullopt});
}

bool Talk::again() {
  if (turns_.empty()) return false;
  turns_.back().answer.reset();
  ++turns_.back().repeated;
  return true;
}

Spoken Talk::answer(const std::function<void(std::string_view)>& show, const Stopped& stopped) {
  AnswerReader reader(show, stopped);
  bool ended = false;
  try {
    const ChatServer::Answer answer =
        server_.chat(request(), [&](std::string_view data) { reader.event(data); });
    if (answer.status != 200) fail("{}", server_error(answer.status, answer.body));
    if (!answer.body.empty()) fail("the server's answer is no stream of events");
    ended = true;
  } catch (const StoppedByUser&) {
  } catch (const Error&) {
    if (!stopped()) throw;
  }
  Spoken spoken = ended ? reader.end() : reader.spoken();
  spoken.stopped = !ended;
  if (ended || !reader.text().empty()) turns_.back().answer = reader.text();
  return spoken;
}

std::string Talk::request() const {
  Json body = parse_json(text());
  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  put(body, "temperature", settings_.temperature);
  put(body, "top_p", settings_.top_p);
  put(body, "top_k", settings_.top_k);
  put(body, "min_p", settings_.min_p);
  put(body, "max_tokens", settings_.max_tokens);
  // A question that is asked again would get the same answer.
  if (settings_.seed) body["seed"] = (*settings_.seed + turns_.back().repeated) & INT64_MAX;
  return body.dump();
}

std::string Talk::text() const {
  Json messages = Json::array();
  const auto add = [&](const char* role, const std::string& content) {
    messages.push_back({{"role", role}, {"content", content}});
  };
  if (!system_.empty()) add("system", system_);
  for (const Turn& turn : turns_) {
    add("user", turn.question);
    if (turn.answer) add("assistant", *turn.answer);
  }
  return Json({{"model", server_.model()}, {"messages", messages}}).dump(2);
}

}  // namespace atom::app
