// `atom serve` as a user starts it, and what its clients send.
//
//   Served served(serve({"--max-num-seqs", "2"}));
//   Client client(served.port());
//   client.send(request("GET", "/health"));
#pragma once

#include <gtest/gtest.h>

#include "apps/run_program.h"
#include "base/json.h"
#include "serving/socket_client.h"

namespace atom::testing {

inline const std::string kServedModel = std::string(ATOM_SOURCE_DIR) + "/models/ref-dense-11m";

// The program as long as a test needs it.
class Served {
 public:
  explicit Served(Invocation run) {
    int out[2], err[2];
    if (::pipe2(out, O_CLOEXEC) != 0 || ::pipe2(err, O_CLOEXEC) != 0)
      throw std::runtime_error("no pipe");
    child_ = ::fork();
    if (child_ == 0) become_program(run, out[1], err[1]);
    ::close(out[1]);
    ::close(err[1]);
    out_ = out[0];
    err_ = err[0];
    char byte = 0;
    while (::read(out_, &byte, 1) == 1 && byte != '\n') line_ += byte;
  }
  ~Served() {
    if (child_ > 0) ::kill(child_, SIGKILL);
    code();
    ::close(out_);
    ::close(err_);
  }
  Served(const Served&) = delete;
  Served& operator=(const Served&) = delete;

  const std::string& line() const { return line_; }  // the first of stdout
  int port() const {
    const size_t colon = line_.rfind(':');
    return colon == std::string::npos ? 0 : std::atoi(line_.c_str() + colon + 1);
  }
  void signal(int number) const { ::kill(child_, number); }
  // Exit code, or 128 + signal; waits for the end.
  int code() {
    if (child_ > 0) {
      int status = 0;
      ::waitpid(child_, &status, 0);
      child_ = 0;
      code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
    return code_;
  }
  // Until stderr holds `words`. False: it has ended without them.
  bool wait_for_error(const std::string& words) {
    while (said_.find(words) == std::string::npos)
      if (!read_errors()) return false;
    return true;
  }
  std::string errors() {  // of stderr, once it has ended
    while (read_errors()) {
    }
    return said_;
  }

 private:
  bool read_errors() {
    char bytes[4096];
    const ssize_t size = ::read(err_, bytes, sizeof bytes);
    if (size > 0) said_.append(bytes, static_cast<size_t>(size));
    return size > 0;
  }

  pid_t child_ = -1;
  int out_ = -1, err_ = -1, code_ = -1;
  std::string line_, said_;
};

inline std::string request(const std::string& method, const std::string& path,
                           const std::string& body = "", const std::string& headers = "") {
  return method + " " + path + " HTTP/1.1\r\nHost: localhost\r\n" + headers +
         (body.empty() ? ""
                       : "Content-Type: application/json\r\nContent-Length: " +
                             std::to_string(body.size()) + "\r\n") +
         "\r\n" + body;
}

inline Invocation serve(std::vector<std::string> more) {
  std::vector<std::string> arguments = {"serve",           kServedModel, "--port",    "0",
                                        "--max-model-len", "256",        "--threads", "2"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return {.arguments = std::move(arguments)};
}

inline Json json_of(const Answer& answer) {
  try {
    return parse_json(answer.body, {.source = "the answer"});
  } catch (const std::exception& error) {
    ADD_FAILURE() << answer.status << " " << answer.body << " " << error.what();
    return Json::object();
  }
}

}  // namespace atom::testing
