// The OpenAI API over an engine: routes, and what all of them refuse. It knows neither sockets nor threads of the server.
//
//   GET  /health /v1/health /ready /ping /live /load /version /metrics /tokenizer_info /v1/models /v1/models/{id}
//   POST /v1/completions /v1/chat/completions /tokenize /detokenize
//
// GET is answered at once. POST goes to threads of its own, since reading and tokenizing a long prompt takes a while; long
// ones leave a thread to the others. A connection has one request at a time, so its order is kept.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "model/generation_config.h"
#include "serving/http.h"

namespace atom::text {
class ChatTemplate;
class Tokenizer;
}  // namespace atom::text

namespace atom::serving {

class EngineThread;

inline constexpr const char* kHealthy = "{\"status\":\"ok\"}";  // of /health, /live and their like

struct ApiOptions {
  std::vector<std::string> models = {"model"};  // names that are served; the first is the default
  std::string version;
  std::string bos_token,
      eos_token;  // as templates and clients write them; empty: those of the model, where it has them
  // What requests get that leave the fields out; max_new_tokens is that of chats. Its eos_ids are not looked at.
  model::GenerationConfig defaults = {};
  double request_seconds = 0;        // a request that takes longer ends with 504; 0: none does
  bool vllm_metrics = false;         // vLLM's names beside the own ones
  int max_choices = 512;             // prompts x n of a request
  int64_t max_new_tokens = 1 << 20;  // prompts x n x max_tokens
  size_t queue_bytes = 64 << 20;     // bodies that wait to be read; more: 429
  int work_threads = 3;              // that read them
};

class Api {
 public:
  // All of them outlive it, and it outlives the server that calls it; null: no chat template.
  Api(EngineThread& engine, const text::Tokenizer& tokenizer,
      const text::ChatTemplate* chat_template, ApiOptions options);
  ~Api();
  Api(const Api&) = delete;
  Api& operator=(const Api&) = delete;

  void handle(HttpRequest request, std::shared_ptr<Reply> reply);  // any thread
  // {"error": {"message", "type", "param", "code"}}; empty param, code: null.
  static HttpResponse error(int status, const std::string& message, const std::string& param = "",
                            const std::string& code = "");
  void begin_drain();  // /health says 503; new completions are refused with 503 and Retry-After
  bool idle() const;   // no request under way

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace atom::serving
