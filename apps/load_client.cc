#include "load_client.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <memory>

#include "base/error.h"
#include "command_line.h"
#include "event_reader.h"
#include "serving/tls_client.h"

namespace atom::app {
namespace {

constexpr int kTick = 100;            // milliseconds between two looks at `stopped`
constexpr size_t kMaxLine = 1 << 16;  // bytes of a line of the head
constexpr size_t kMaxBody = 1 << 26;  // bytes of an answer that is kept

std::string lower(std::string text) {
  std::ranges::transform(text, text.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

// Value of a field in a head of lower-case lines; empty: absent.
std::string field(const std::string& head, const std::string& name) {
  const size_t at = head.find("\n" + name + ":");
  if (at == std::string::npos) return {};
  const size_t begin = head.find_first_not_of(" \t", at + name.size() + 2);
  const size_t end = head.find('\n', at + 1);
  return begin < end ? head.substr(begin, end - begin) : std::string();
}

size_t number(std::string_view text, int base) {
  size_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || end == text.data()) fail("the server sent a length that is none");
  return value;
}

}  // namespace

std::string ServerAddress::authority() const {
  const bool bare = host.find(':') == std::string::npos;
  return (bare ? host : "[" + host + "]") + ":" + port;
}

std::string ServerAddress::url() const { return (tls ? "https://" : "http://") + authority(); }

ServerAddress parse_server(const std::string& option, const std::string& url) {
  ServerAddress address;
  address.tls = url.starts_with("https://");
  if (!address.tls && !url.starts_with("http://"))
    usage_fail("{}: '{}' begins neither with http:// nor with https://", option, url);
  if (address.tls) address.port = "443";
  std::string rest = url.substr(url.find("//") + 2);
  if (rest.ends_with('/')) rest.pop_back();
  const size_t bracket = rest.starts_with('[') ? rest.find(']') : std::string::npos;
  const size_t colon = rest.find(':', bracket == std::string::npos ? 0 : bracket);
  address.host = bracket == std::string::npos ? rest.substr(0, colon) : rest.substr(1, bracket - 1);
  if (colon != std::string::npos) address.port = rest.substr(colon + 1);
  if (address.host.empty() || address.host.find_first_of("/?#@[] ") != std::string::npos)
    usage_fail("{}: '{}' is not of the form http://HOST:PORT or https://HOST:PORT", option, url);
  int port = 0;
  const char* end = address.port.data() + address.port.size();
  if (std::from_chars(address.port.data(), end, port).ptr != end || port < 1 || port > 65535)
    usage_fail("{}: '{}' has a port that is not from 1 to 65535", option, url);
  return address;
}

LoadClient::LoadClient(LoadClientOptions options) : options_(std::move(options)) {}

LoadClient::~LoadClient() { close(); }

void LoadClient::close() {
  tls_.reset();
  if (socket_ >= 0) ::close(socket_);
  socket_ = -1;
  buffer_.clear();
}

void LoadClient::open() {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const auto& [host, port, tls] = options_.address;
  if (const int code = ::getaddrinfo(host.c_str(), port.c_str(), &hints, &found); code != 0)
    fail("cannot find the server {}: {}", host, ::gai_strerror(code));
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> list(found, ::freeaddrinfo);
  int error = 0;
  for (const addrinfo* one = list.get(); one != nullptr; one = one->ai_next) {
    if (connect_to(one->ai_family, one->ai_addr, one->ai_addrlen)) return;
    error = errno;
    close();
  }
  fail("cannot connect to {}: {}", options_.address.url(), std::strerror(error));
}

bool LoadClient::connect_to(int family, const void* address, unsigned size) {
  socket_ = ::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (socket_ < 0) return false;
  const timeval limit = {.tv_sec = static_cast<time_t>(options_.timeout) + 1, .tv_usec = 0};
  ::setsockopt(socket_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);  // of connect() too
  if (::connect(socket_, static_cast<const sockaddr*>(address), size) != 0) return false;
  const int on = 1;
  ::setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return true;
}

// The handshake. From then on a wait for the socket ends after a tick.
void LoadClient::begin_tls() {
  const timeval tick = {.tv_sec = 0, .tv_usec = 1000 * kTick};
  ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &tick, sizeof tick);
  ::setsockopt(socket_, SOL_SOCKET, SO_SNDTIMEO, &tick, sizeof tick);
  waiting_since_ = std::chrono::steady_clock::now();
  tls_ = std::make_unique<serving::TlsClient>(
      socket_,
      serving::TlsNames{.host = options_.address.host, .authorities = options_.authorities},
      [this] { idle(); });
}

void LoadClient::idle() const {
  if (options_.stopped()) fail("stopped");
  const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - waiting_since_;
  if (waited.count() > options_.timeout)
    fail("the server sent nothing for {} seconds", options_.timeout);
}

void LoadClient::send(std::string_view bytes) {
  waiting_since_ = std::chrono::steady_clock::now();
  if (tls_ != nullptr) return tls_->send(bytes);
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) fail("cannot send to {}: {}", options_.address.url(), std::strerror(errno));
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
}

bool LoadClient::fill() {
  waiting_since_ = std::chrono::steady_clock::now();
  char bytes[16384];
  if (tls_ != nullptr) {
    const size_t size = tls_->receive(bytes);
    buffer_.append(bytes, size);
    return size > 0;
  }
  for (;;) {
    pollfd file = {socket_, POLLIN, 0};
    const int ready = ::poll(&file, 1, kTick);
    if (ready < 0 && errno != EINTR) fail("cannot wait for the server: {}", std::strerror(errno));
    idle();
    if (ready > 0) break;
  }
  const ssize_t size = ::recv(socket_, bytes, sizeof bytes, 0);
  if (size < 0) fail("the connection broke: {}", std::strerror(errno));
  buffer_.append(bytes, static_cast<size_t>(size));
  return size > 0;
}

std::string LoadClient::line() {
  size_t end;
  while ((end = buffer_.find('\n')) == std::string::npos) {
    if (buffer_.size() > kMaxLine) fail("the server sent a line without an end");
    if (!fill()) fail("the server closed the connection in the middle of an answer");
  }
  std::string text = buffer_.substr(0, end);
  buffer_.erase(0, end + 1);
  if (text.ends_with('\r')) text.pop_back();
  return text;
}

void LoadClient::take(size_t count, const Sink& sink) {
  while (count > 0) {
    if (buffer_.empty() && !fill())
      fail("the server closed the connection in the middle of an answer");
    const size_t now = std::min(count, buffer_.size());
    sink(std::string_view(buffer_).substr(0, now));
    buffer_.erase(0, now);
    count -= now;
  }
}

// The body that `head` announces: chunked, of a length, or up to the end of the connection.
void LoadClient::body(const std::string& head, const Sink& sink) {
  if (field(head, "transfer-encoding").ends_with("chunked")) {
    while (const size_t size = number(line(), 16)) {
      take(size, sink);
      line();
    }
    while (!line().empty()) {
    }  // trailers
  } else if (const std::string length = field(head, "content-length"); !length.empty()) {
    take(number(length, 10), sink);
  } else {
    do {
      take(buffer_.size(), sink);
    } while (fill());
    close();
  }
}

LoadClient::Answer LoadClient::exchange(const std::string& request,
                                        const std::function<void(std::string_view)>& event) {
  // A kept connection may have been closed by the server meanwhile.
  if (socket_ >= 0) {
    pollfd file = {socket_, POLLIN, 0};
    if (::poll(&file, 1, 0) != 0 || (tls_ != nullptr && tls_->has_bytes())) close();
  }
  try {
    if (socket_ < 0) open();
    if (options_.address.tls && tls_ == nullptr) begin_tls();
    send(request);
    std::string head = lower(line());
    if (!head.starts_with("http/1.1 ")) fail("the server's answer is not HTTP/1.1");
    Answer answer{.status = static_cast<int>(number(std::string_view(head).substr(9), 10)),
                  .body = {}};
    for (std::string one; !(one = line()).empty(); head += "\n" + lower(one))
      if (head.size() > kMaxLine) fail("the server sent a head without an end");
    head += '\n';
    const bool events =
        answer.status == 200 && field(head, "content-type").starts_with("text/event-stream");
    EventReader reader(event);
    body(head, [&](std::string_view bytes) {
      if (events && event) return reader(bytes);
      if (answer.body.size() + bytes.size() > kMaxBody) fail("the server's answer is too long");
      answer.body += bytes;
    });
    if (field(head, "connection") == "close") close();
    return answer;
  } catch (...) {
    close();
    throw;
  }
}

std::string LoadClient::request_head(const std::string& method_and_path) const {
  return method_and_path + " HTTP/1.1\r\nHost: " + options_.address.authority() + "\r\n" +
         (options_.api_key.empty() ? "" : "Authorization: Bearer " + options_.api_key + "\r\n");
}

LoadClient::Answer LoadClient::get(const std::string& path) {
  return exchange(request_head("GET " + path) + "\r\n", nullptr);
}

LoadClient::Answer LoadClient::stream(const std::string& path, const std::string& body,
                                      const std::function<void(std::string_view data)>& event) {
  return exchange(request_head("POST " + path) +
                      "Content-Type: application/json\r\nContent-Length: " +
                      std::to_string(body.size()) + "\r\n\r\n" + body,
                  event);
}

}  // namespace atom::app
