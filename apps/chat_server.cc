// The server at a URL.
#include "chat_server.h"

#include <utility>

#include "base/json.h"
#include "console.h"
#include "load_client.h"
#include "serving/access.h"

namespace atom::app {
namespace {

constexpr double kListSeconds = 60;     // for the list of models
constexpr double kAnswerSeconds = 600;  // without a byte of an answer
constexpr size_t kShown = 200;          // characters of an answer that is no JSON
constexpr int kAnswerDepth = 32;

class UrlServer : public ChatServer {
 public:
  UrlServer(std::string url, LoadClientOptions options, std::string model)
      : url_(std::move(url)), model_(std::move(model)), client_(std::move(options)) {}

  Answer chat(const std::string& body,
              const std::function<void(std::string_view)>& event) override {
    LoadClient::Answer answer = client_.stream("/v1/chat/completions", body, event);
    return {.status = answer.status, .body = std::move(answer.body)};
  }
  const std::string& model() const override { return model_; }
  const std::string& place() const override { return url_; }

 private:
  const std::string url_, model_;
  LoadClient client_;
};

std::string first_model(const LoadClientOptions& options) {
  const LoadClient::Answer answer = LoadClient(options).get("/v1/models");
  if (answer.status != 200) fail("{}", server_error(answer.status, answer.body));
  const Json models = parse_json(answer.body, {.source = "/v1/models", .max_depth = kAnswerDepth});
  const auto data = models.is_object() ? models.find("data") : models.end();
  if (data == models.end() || !data->is_array() || data->empty())
    fail("/v1/models names no model; --model gives a name");
  return get_string(data->front(), "id", "/v1/models");
}

}  // namespace

std::string error_message(std::string_view json) {
  Json value;
  try {
    value = parse_json(json, {.max_depth = kAnswerDepth});
  } catch (const Error&) {
    return {};
  }
  if (!value.is_object()) return {};
  for (const char* name : {"error", "message", "detail"}) {
    const auto found = value.find(name);
    if (found == value.end()) continue;
    if (found->is_string()) return found->get<std::string>();
    const auto inner = found->is_object() ? found->find("message") : found->end();
    if (found->is_object() && inner != found->end() && inner->is_string())
      return inner->get<std::string>();
  }
  return {};
}

std::string server_error(int status, const std::string& body) {
  const std::string message = error_message(body);
  if (!message.empty()) return fmt::format("the server answered {}: {}", status, message);
  std::string_view rest = std::string_view(body).substr(0, body.find_first_of("\r\n"));
  const std::string_view shown = clipped(rest, kShown);
  return fmt::format("the server answered {} without a message{}{}{}", status,
                     shown.empty() ? "" : ": ", shown, shown.size() < rest.size() ? "..." : "");
}

bool is_url(std::string_view target) { return target.find("://") != std::string_view::npos; }

std::unique_ptr<ChatServer> connect_chat(const ChatUrl& to, const Stopped& stopped) {
  std::string base = to.url, model = to.model;
  if (base.ends_with('/')) base.pop_back();
  if (base.ends_with("/v1")) base.resize(base.size() - 3);
  LoadClientOptions options = {.address = parse_server("URL", base),
                               .api_key = to.api_key,
                               .authorities = to.authorities,
                               .timeout = kListSeconds,
                               .stopped = stopped};
  if (!to.api_key.empty()) serving::check_key(to.api_key, "--api-key");
  if (model.empty()) model = first_model(options);
  options.timeout = kAnswerSeconds;
  std::string place = options.address.url();
  return std::make_unique<UrlServer>(std::move(place), std::move(options), std::move(model));
}

}  // namespace atom::app
