// A server of a few lines, which says what a test wants it to say, right or wrong.
#pragma once

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace atom::testing {

// A body in chunks of `piece` bytes.
inline std::string chunked(const std::string& bytes, size_t piece) {
  std::string out;
  for (size_t at = 0; at < bytes.size(); at += piece) {
    const std::string part = bytes.substr(at, piece);
    out += fmt::format("{:x}\r\n{}\r\n", part.size(), part);
  }
  return out + "0\r\n\r\n";
}

inline std::string plain(int status, const std::string& body) {
  return fmt::format("HTTP/1.1 {} x\r\nContent-Length: {}\r\n\r\n{}", status, body.size(), body);
}

// Answers every request of every connection with what `answer` makes of its head and body.
class TinyServer {
 public:
  explicit TinyServer(std::function<std::string(const std::string&)> answer)
      : answer_(std::move(answer)), listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    ::bind(listener_, reinterpret_cast<sockaddr*>(&address), size);
    ::listen(listener_, 64);
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    url_ = fmt::format("http://127.0.0.1:{}", ntohs(address.sin_port));
    accepting_ = std::jthread([this] { accept(); });
  }
  ~TinyServer() {
    ::shutdown(listener_, SHUT_RDWR);
    accepting_.join();
    ::close(listener_);
  }

  const std::string& url() const { return url_; }
  int connections() const { return connections_; }
  std::vector<std::string> requests() {
    const std::lock_guard lock(mutex_);
    return requests_;
  }

 private:
  void accept() {
    std::vector<std::jthread> serving;
    for (int socket; (socket = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC)) >= 0;) {
      ++connections_;
      serving.emplace_back([this, socket] { serve(socket); });
    }
  }

  void serve(int socket) {
    std::string bytes;
    char buffer[4096];
    for (ssize_t size; (size = ::recv(socket, buffer, sizeof buffer, 0)) > 0;) {
      bytes.append(buffer, static_cast<size_t>(size));
      const size_t head = bytes.find("\r\n\r\n");
      if (head == std::string::npos) continue;
      const size_t length = bytes.find("Content-Length: ");
      const size_t body = length < head ? std::stoul(bytes.substr(length + 16)) : 0;
      if (bytes.size() < head + 4 + body) continue;
      {
        const std::lock_guard lock(mutex_);
        requests_.push_back(bytes);
      }
      const std::string answer = answer_(bytes);
      bytes.clear();
      ::send(socket, answer.data(), answer.size(), MSG_NOSIGNAL);
      if (answer.find("Connection: close") != std::string::npos || answer.empty()) break;
    }
    ::close(socket);
  }

  std::function<std::string(const std::string&)> answer_;
  int listener_;
  std::string url_;
  std::atomic<int> connections_ = 0;
  std::mutex mutex_;
  std::vector<std::string> requests_;
  std::jthread accepting_;
};

}  // namespace atom::testing
