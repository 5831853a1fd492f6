// One HTTP/1.x request out of bytes as they come: limits, and the rules that keep two servers from reading one request
// differently (RFC 9112, sections 2 to 7). No sockets.
//
//   RequestParser parser({.body_bytes = 1 << 20}, "10.0.0.7");
//   size_t used = parser.feed(bytes);     // what is not used belongs to what follows
//   if (parser.state() == RequestParser::State::kDone) serve(parser.take_request());
//
// feed() stops behind the head, so that it can be looked at, and goes on with the body when it is called again.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "serving/http.h"

namespace atom::serving {

class RequestParser {
 public:
  struct Limits {
    size_t target_bytes = 8 << 10;
    size_t head_bytes = 32 << 10;
    size_t body_bytes = 16 << 20;
  };
  enum class State { kHead, kBody, kDone, kRefused };

  RequestParser(const Limits& limits, std::string client);  // HttpHead::client
  ~RequestParser();
  RequestParser(const RequestParser&) = delete;
  RequestParser& operator=(const RequestParser&) = delete;

  size_t feed(
      std::string_view
          bytes);  // how many were used; 0: more are needed, or the request is done or refused
  State state() const { return state_; }

  // From kBody on.
  const HttpHead& head() const { return request_.head; }
  bool head_only() const { return head_only_; }    // HEAD, which head() calls GET
  bool keep_alive() const { return keep_alive_; }  // as the client wishes, or its version says
  bool http_1_0() const { return http_1_0_; }
  bool has_body() const { return has_body_; }
  size_t body_memory() const;                              // bytes that the body takes by now
  bool wants_continue() const { return wants_continue_; }  // Expect: 100-continue

  // Of kRefused.
  int status() const { return status_; }
  const std::string& message() const { return message_; }

  void refuse(int status, std::string message);  // for a cause of the caller's

  HttpRequest take_request() { return std::move(request_); }  // of kDone, once

 private:
  struct Impl;
  void refuse_bytes(std::string_view bytes, const std::string& cause);
  void refuse_long_head(bool is_target);
  void read_head();

  const Limits limits_;
  State state_ = State::kHead;
  bool begun_ = false;     // the request line was taken
  size_t head_bytes_ = 0;  // taken so far
  HttpRequest request_;
  bool head_only_ = false, keep_alive_ = false, http_1_0_ = false, has_body_ = false,
       chunked_ = false, wants_continue_ = false;
  int status_ = 0;
  std::string message_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace atom::serving
