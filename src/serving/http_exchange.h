// The answer to one request between the threads that make it and the I/O thread that sends it: a queue of bytes that are
// ready for the wire.
//
// The connection owns the exchange, the handler a Reply on it. Bytes that come while others are being sent are sent
// together, by one call of the system.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "serving/http_message.h"

namespace atom::serving {

class Exchange {
 public:
  struct Options {
    std::string request_id;
    bool head_only = false;  // a HEAD request
    bool chunked = true;     // false: HTTP/1.0, where a stream ends with the connection
    bool keep_alive = true;
    size_t queue_bytes = 1 << 20;
    std::function<bool()> closing;  // the server drains; any thread
    std::function<void()> wake;     // tells the connection that there is news; any thread
    std::function<HttpResponse(int, const std::string&)> error;  // as in HttpHandlers
  };
  explicit Exchange(Options options) : options_(std::move(options)) {}

  // ---- any thread ----
  void send(HttpResponse response);
  void begin_stream(HttpResponse head);
  bool write(std::string_view bytes);
  void end();
  void on_gone(std::function<void()> gone);
  void abandon();  // the Reply has gone

  // ---- the I/O thread ----
  struct Taken {
    std::string bytes;
    bool ended = false;  // these are the last ones
    bool cut = false;    // nothing more is to be sent: close
  };
  Taken take();  // all that is ready; the bytes count as queued until the next take()
  bool cut() const;
  bool keep_alive() const;  // once it has ended: whether the connection may serve another request
  void leave();             // the client has gone: calls on_gone
  void close_after();       // the connection takes no more requests

 private:
  enum class State { kOpen, kStreaming, kEnded };
  void wake(std::unique_lock<std::mutex>& lock);  // unlocks
  void head(HttpResponse& response, Framing framing);

  const Options options_;
  mutable std::mutex mutex_;
  State state_ = State::kOpen;
  bool close_ = false;  // the head said so
  bool last_ = false;   // close_after()
  bool gone_ = false;
  bool cut_ = false;
  bool woken_ = false;
  std::string ready_;
  size_t being_sent_ = 0;
  std::function<void()> on_gone_;
};

std::shared_ptr<Reply> make_reply(std::shared_ptr<Exchange> exchange);

}  // namespace atom::serving
