// An HTTP/1.1 client for loading a server: one connection, kept from request to request, and answers
// read as server-sent events. Plain sockets; no TLS.
//
//   LoadClient client({.address = parse_server("URL", "http://127.0.0.1:8000"), .api_key = key});
//   client.stream("/v1/completions", body, [&](std::string_view data) { ... });
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace atom::serving {
class TlsClient;
}

namespace atom::app {

struct ServerAddress {
  std::string host;
  std::string port = "80";
  bool tls = false;
  std::string authority() const;  // HOST:PORT
  std::string url() const;
};
// Of http://HOST[:PORT][/] or https://...; an IPv6 address in brackets. UsageError, which begins with `option`.
ServerAddress parse_server(const std::string& option, const std::string& url);

struct LoadClientOptions {
  ServerAddress address;
  std::string api_key;
  std::string authorities;                               // serving::TlsNames::authorities
  double timeout = 600;                                  // seconds without a byte
  std::function<bool()> stopped = [] { return false; };  // asked while waiting: true ends it
};

class LoadClient {
 public:
  explicit LoadClient(LoadClientOptions options);
  ~LoadClient();
  LoadClient(const LoadClient&) = delete;
  LoadClient& operator=(const LoadClient&) = delete;

  struct Answer {
    int status = 0;
    std::string body;  // empty where events were read
  };
  // Error of these: no connection, a certificate that is not accepted, a wait beyond the timeout, an answer that is not
  // HTTP/1.1 or ends early.
  Answer get(const std::string& path);
  // `event` gets the data of each event of a 200 of type text/event-stream, as it arrives.
  Answer stream(const std::string& path, const std::string& body,
                const std::function<void(std::string_view data)>& event);

 private:
  using Sink = std::function<void(std::string_view bytes)>;
  Answer exchange(const std::string& request, const std::function<void(std::string_view)>& event);
  std::string request_head(const std::string& method_and_path) const;
  void open();
  bool connect_to(int family, const void* address, unsigned size);  // false: errno says why
  void begin_tls();
  void idle() const;  // between two looks at the socket; fails where waiting has to end
  void close();
  void send(std::string_view bytes);
  bool fill();  // more bytes into buffer_; false: the server closed
  std::string line();
  void body(const std::string& head, const Sink& sink);
  void take(size_t count, const Sink& sink);

  const LoadClientOptions options_;
  int socket_ = -1;
  std::unique_ptr<serving::TlsClient> tls_;  // null: plain
  std::chrono::steady_clock::time_point waiting_since_;
  std::string buffer_;  // what came and is not used yet
};

}  // namespace atom::app
