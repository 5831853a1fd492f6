// Runs the program `atom` as a user would: arguments, environment, exit code, both outputs.
//
//   const Result result = run_program({"inspect", folder});
//   EXPECT_EQ(result.code, 0) << result.err;
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace atom::testing {

struct Result {
  int code = -1;  // exit code; 128 + signal when a signal ended the program
  std::string out;
  std::string err;
};

struct Invocation {
  std::vector<std::string> arguments;
  std::vector<std::pair<std::string, std::string>> environment = {};  // besides the own one
  long file_bytes = 0;               // no file may grow beyond it; 0: no limit
  std::string interrupt_after = {};  // sends `signal` once stderr holds this text
  int signal = SIGINT;
  std::function<void(pid_t)> interrupt = {};  // is called instead
  std::string out_path = {};                  // stdout goes to this file or device instead
  bool terminal = false;  // stdout is a terminal, and TERM says that it knows colours
  std::string program = ATOM_PROGRAM;
};

// Never returns; the child side of run_program.
[[noreturn]] inline void become_program(const Invocation& run, int out, int err) {
  ::dup2(out, STDOUT_FILENO);
  if (!run.out_path.empty()) ::dup2(::open(run.out_path.c_str(), O_WRONLY), STDOUT_FILENO);
  if (run.terminal) ::setenv("TERM", "xterm", 1);
  ::dup2(err, STDERR_FILENO);
  for (const auto& [name, value] : run.environment) ::setenv(name.c_str(), value.c_str(), 1);
  if (run.file_bytes > 0) {
    const rlimit limit = {static_cast<rlim_t>(run.file_bytes), static_cast<rlim_t>(run.file_bytes)};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  std::vector<char*> arguments = {const_cast<char*>(run.program.c_str())};
  for (const std::string& argument : run.arguments)
    arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  ::execv(run.program.c_str(), arguments.data());
  ::_exit(127);
}

// Reads both pipes until they close.
inline void collect(const Invocation& run, pid_t child, int out, int err, Result& result) {
  pollfd files[2] = {{out, POLLIN, 0}, {err, POLLIN, 0}};
  std::string* texts[2] = {&result.out, &result.err};
  bool interrupted = run.interrupt_after.empty();
  for (int open = 2; open > 0;) {
    if (::poll(files, 2, -1) < 0) continue;
    for (int i = 0; i < 2; ++i) {
      if (files[i].fd < 0 || files[i].revents == 0) continue;
      char buffer[4096];
      const ssize_t size = ::read(files[i].fd, buffer, sizeof buffer);
      if (size > 0) {
        texts[i]->append(buffer, static_cast<size_t>(size));
      } else {  // the end; of a terminal EIO
        ::close(files[i].fd);
        files[i].fd = -1;
        --open;
      }
    }
    if (!interrupted && result.err.find(run.interrupt_after) != std::string::npos) {
      if (run.interrupt)
        run.interrupt(child);
      else
        ::kill(child, run.signal);
      interrupted = true;
    }
  }
}

// A terminal: [0] is the side of the user, [1] that of the program.
inline bool open_terminal(int (&ends)[2]) {
  ends[0] = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (ends[0] < 0 || ::grantpt(ends[0]) != 0 || ::unlockpt(ends[0]) != 0) return false;
  ends[1] = ::open(::ptsname(ends[0]), O_RDWR | O_NOCTTY | O_CLOEXEC);
  return ends[1] >= 0;
}

// A container without a mounted devpts has no terminals to give.
inline bool has_terminals() {
  int ends[2] = {-1, -1};
  const bool open = open_terminal(ends);
  for (const int end : ends)
    if (end >= 0) ::close(end);
  return open;
}

inline Result run_program(const Invocation& run) {
  int out[2], err[2];
  if (!(run.terminal ? open_terminal(out) : ::pipe2(out, O_CLOEXEC) == 0) ||
      ::pipe2(err, O_CLOEXEC) != 0)
    throw std::runtime_error("no pipe or terminal for the program");
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("fork failed");
  if (child == 0) become_program(run, out[1], err[1]);
  ::close(out[1]);
  ::close(err[1]);
  Result result;
  collect(run, child, out[0], err[0], result);
  int status = 0;
  ::waitpid(child, &status, 0);
  result.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

inline Result run_program(std::vector<std::string> arguments) {
  return run_program(Invocation{.arguments = std::move(arguments)});
}

}  // namespace atom::testing
