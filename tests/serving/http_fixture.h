// A server with handlers that tests of sockets need: it echoes, streams, waits, and says who has left.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "serving/http.h"
#include "serving/socket_client.h"

namespace atom::testing {

using serving::HttpHead;
using serving::HttpOptions;
using serving::HttpRequest;
using serving::HttpResponse;
using serving::HttpServer;
using serving::Reply;

inline HttpResponse error_response(int status, const std::string& message) {
  return {.status = status, .body = "{\"error\":{\"message\":\"" + message + "\"}}"};
}

inline HttpOptions quick_options() { return {.linger_seconds = 0.2}; }

class HttpFixture : public ::testing::Test {
 protected:
  void start(HttpOptions options = quick_options()) {
    server_ = std::make_unique<HttpServer>(
        std::move(options),
        serving::HttpHandlers{.admit = [this](const HttpHead& head) { return admit(head); },
                              .handle =
                                  [this](HttpRequest request, std::shared_ptr<Reply> reply) {
                                    handle(std::move(request), std::move(reply));
                                  },
                              .error = error_response});
  }
  void TearDown() override {
    held_.clear();
    server_.reset();
  }
  int port() const { return server_->port(); }

  static std::string get(const std::string& path, const std::string& headers = "") {
    return "GET " + path + " HTTP/1.1\r\nHost: localhost\r\n" + headers + "\r\n";
  }
  static std::string post(const std::string& path, const std::string& body,
                          const std::string& headers = "") {
    return "POST " + path +
           " HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + std::to_string(body.size()) +
           "\r\n" + headers + "\r\n" + body;
  }

  // The reply of a request to /hold, which the test answers.
  std::shared_ptr<Reply> held() {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, std::chrono::milliseconds(Client::kPatience),
                           [this] { return !held_.empty(); }))
      return nullptr;
    auto reply = held_.front();
    held_.pop_front();
    return reply;
  }
  bool wait_for_gone(int count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::milliseconds(Client::kPatience),
                             [&] { return gone_ >= count; });
  }
  template <typename Condition>
  static bool soon(Condition condition) {
    const auto end =
        std::chrono::steady_clock::now() + std::chrono::milliseconds(Client::kPatience);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > end) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
  }

  std::unique_ptr<HttpServer> server_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<Reply>> held_;
  int gone_ = 0;
  std::deque<HttpRequest> kept_;  // those to /keep
  HttpHead last_;                 // of the last request handled

 private:
  std::optional<HttpResponse> admit(const HttpHead& head) {
    if (head.path == "/refused") return error_response(401, "no key");
    return std::nullopt;
  }
  void handle(HttpRequest request, std::shared_ptr<Reply> reply) {
    const std::string path = request.head.path;
    {
      const std::lock_guard lock(mutex_);
      last_ = request.head;
    }
    if (path == "/throw") throw std::runtime_error("a defect");
    if (path == "/drop") return;
    if (path == "/keep") {
      const std::lock_guard lock(mutex_);
      kept_.push_back(std::move(request));
      return reply->send({.body = "kept"});
    }
    if (path == "/stream") return stream(*reply);
    if (path == "/hold") {
      reply->on_gone([this] {
        const std::lock_guard lock(mutex_);
        ++gone_;
        changed_.notify_all();
      });
      const std::lock_guard lock(mutex_);
      held_.push_back(std::move(reply));
      changed_.notify_all();
      return;
    }
    reply->send(
        {.body = request.head.method + " " + path + "?" + request.head.query + " " + request.body});
  }
  static void stream(Reply& reply) {
    reply.begin_stream(
        {.content_type = "text/event-stream", .headers = {{"Cache-Control", "no-cache"}}});
    for (const char* text : {"data: one\n\n", "data: two\n\n", "data: [DONE]\n\n"})
      reply.write(text);
    reply.end();
  }
};

}  // namespace atom::testing
