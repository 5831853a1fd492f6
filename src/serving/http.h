// HTTP/1.1 server: sockets, TLS, limits and timeouts. It knows no JSON and no routes.
//
//   HttpServer server({.host = "127.0.0.1", .port = 8000}, {.admit = admit, .handle = handle, .error = error});
//   ... server.port() ...                       // accepts from here on
//   server.drain();                             // no new connections; open requests may end
//   while (!server.drained()) ...
//   server.stop();                              // or the destructor: closes everything
//
// One thread of its own serves all connections; handlers run on it and return soon. Requests of a connection are served one
// after the other, in their order. A client that closes, or half-closes, its connection while a request is under way has
// left: its request is cancelled. HEAD is shown to the handlers as GET, and answered without the body.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace atom::serving {

struct HttpHead {                   // what is known before the body
  std::string method, path, query;  // path as sent, without the query
  std::string host, authorization, content_type, origin;
  std::string
      request_id;  // x-request-id where it is printable ASCII of at most 128 bytes, else drawn; echoed
  std::string client;  // the peer's address, without the port
};
struct HttpRequest {
  HttpHead head;
  std::string body;
  std::shared_ptr<const void> body_charge =
      nullptr;  // lives as long as the body; see all_body_bytes
};
struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;  // besides those that the server adds
};

// The answer to one request. Any thread may call; once the client is gone the calls do nothing. When the last copy goes
// before the answer has ended, the client gets a 500, or a stream is cut off.
class Reply {
 public:
  virtual ~Reply() = default;
  virtual void send(HttpResponse response) = 0;      // all of it, once
  virtual void begin_stream(HttpResponse head) = 0;  // then write() any number of times, then end()
  // False: the client is gone, or its queue is full (more than HttpOptions::stream_queue_bytes wait already): it is cut off.
  virtual bool write(std::string bytes) = 0;
  virtual void end() = 0;
  // Once, from the I/O thread, when the client leaves before the answer has ended; at once if it has left already.
  virtual void on_gone(std::function<void()> gone) = 0;
};

// They run on the I/O thread and return soon; `error` is called by other threads, too.
struct HttpHandlers {
  std::function<std::optional<HttpResponse>(const HttpHead&)>
      admit;  // before the body is read: a response refuses
  std::function<void(HttpRequest, std::shared_ptr<Reply>)> handle;
  // Bodies of the server's own answers: 400 405 408 413 414 417 431 500 503.
  std::function<HttpResponse(int status, const std::string& message)> error;
};

struct HttpOptions {
  std::string host =
      "127.0.0.1";  // a name or an address; "0.0.0.0" and "::" are all of this machine
  int port = 0;     // 0: any free one
  std::string certificate_file, key_file;  // PEM; both or none; TLS 1.2 and newer
  size_t target_bytes = 8 << 10;           // more: 414
  size_t head_bytes = 32 << 10;            // request line and headers; more: 431
  size_t body_bytes = 16 << 20;            // more: 413
  size_t all_body_bytes = 256 << 20;       // of all bodies in memory; more: 503
  size_t stream_queue_bytes = 1 << 20;     // of one stream, not taken by the client yet
  int max_connections = 1024;              // more: 503
  // Seconds.
  double idle_seconds = 75;   // until a request's first byte
  double head_seconds = 15;   // from there to its last header; of a TLS handshake, too
  double body_seconds = 60;   // of a body
  double write_seconds = 30;  // for a client to take 256 KiB or what there is
  double linger_seconds = 2;  // for a client to close after the last answer
};

class HttpServer {
 public:
  // Error: host, port and cause; or a certificate or key that cannot be used.
  HttpServer(HttpOptions options, HttpHandlers handlers);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  int port() const;
  void
  drain();  // accepts no more connections; idle ones are closed, answers say `Connection: close`
  bool drained() const;  // no request is under way
  int connections() const;
  // Reads the files of the certificate and its key again, for connections that come from now on; open ones stay. Error: they
  // cannot be used, and nothing has changed.
  void reload_certificate();
  void stop();  // closes everything; the thread has ended

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace atom::serving
