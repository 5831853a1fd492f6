// A client of raw bytes: what a test sends is what the server gets.
//
//   Client client(server.port());
//   client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
//   const Answer answer = client.answer();
//   EXPECT_EQ(answer.status, 200);
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace atom::testing {

struct Answer {
  int status = 0;                              // 0: the connection ended before a whole answer
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
  std::vector<std::string> chunks;  // of a chunked body
};

inline std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

class Client {
 public:
  static constexpr int kPatience = 20000;  // ms; only a defect lasts so long

  // before_connect is called once the socket is there.
  explicit Client(
      int port, int receive_bytes = 0, const std::function<void()>& before_connect = [] {})
      : file_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    if (receive_bytes > 0)
      ::setsockopt(file_, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes);
    before_connect();
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(file_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  }
  ~Client() { close(); }
  Client(Client&& other) noexcept
      : file_(std::exchange(other.file_, -1)),
        connected_(other.connected_),
        input_(std::move(other.input_)) {}
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  bool connected() const { return connected_; }
  int file() const { return file_; }
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t size = ::send(file_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (size <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(size));
    }
    return true;
  }
  void half_close() { ::shutdown(file_, SHUT_WR); }
  void reset() {  // as a client that crashes
    const linger now = {1, 0};
    ::setsockopt(file_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close();
  }
  void close() {
    if (file_ >= 0) ::close(file_);
    file_ = -1;
  }

  // Waits for the end of the connection; bytes before it are thrown away.
  bool closed_by_server() {
    while (receive()) input_.clear();
    return !late_;
  }
  // Reads until the input holds `text`.
  bool read_until(std::string_view text) {
    while (input_.find(text) == std::string::npos)
      if (!receive()) return false;
    return true;
  }
  std::string& input() { return input_; }

  Answer answer(bool head_only = false) {
    Answer answer;
    if (!read_until("\r\n\r\n")) return {};
    const size_t end = input_.find("\r\n\r\n");
    read_head(std::string_view(input_).substr(0, end + 2), answer);
    input_.erase(0, end + 4);
    if (head_only || answer.status == 100) return answer;
    if (answer.headers.contains("transfer-encoding"))
      return read_chunks(answer) ? answer : Answer{};
    if (!answer.headers.contains("content-length")) {
      while (receive()) {
      }
      answer.body = std::exchange(input_, {});
      return answer;
    }
    const size_t size = std::stoul(answer.headers["content-length"]);
    while (input_.size() < size)
      if (!receive()) return {};
    answer.body = input_.substr(0, size);
    input_.erase(0, size);
    return answer;
  }

 private:
  bool receive() {
    pollfd file = {file_, POLLIN, 0};
    late_ = ::poll(&file, 1, kPatience) <= 0;
    char bytes[16384];
    const ssize_t size = late_ ? 0 : ::recv(file_, bytes, sizeof bytes, 0);
    if (size > 0) input_.append(bytes, static_cast<size_t>(size));
    return size > 0;
  }
  static void read_head(std::string_view text, Answer& answer) {
    answer.status = std::atoi(text.data() + 9);
    for (size_t at = text.find("\r\n") + 2; at < text.size();) {
      const size_t end = text.find("\r\n", at);
      const std::string_view line = text.substr(at, end - at);
      const size_t colon = line.find(": ");
      answer.headers[lower(std::string(line.substr(0, colon)))] = line.substr(colon + 2);
      at = end + 2;
    }
  }
  bool read_chunks(Answer& answer) {
    for (;;) {
      if (!read_until("\r\n")) return false;
      const size_t line = input_.find("\r\n");
      const size_t size = std::stoul(input_.substr(0, line), nullptr, 16);
      while (input_.size() < line + 2 + size + 2)
        if (!receive()) return false;
      const std::string bytes = input_.substr(line + 2, size);
      input_.erase(0, line + 2 + size + 2);
      if (size == 0) return true;
      answer.body += bytes;
      answer.chunks.push_back(bytes);
    }
  }

  int file_;
  bool connected_ = false;
  bool late_ = false;
  std::string input_;
};

}  // namespace atom::testing
