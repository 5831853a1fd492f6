#include "bus_error.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstring>

#include "base/mapped_ranges.h"
#include "command_line.h"

namespace atom::app {
namespace {

// Set before the handler is.
struct sigaction action_before = {};
bool error_is_terminal = false;

std::atomic_flag telling = ATOMIC_FLAG_INIT;

// One line of fixed length at most: a handler may neither allocate nor print by halves.
class ErrorLine {
 public:
  void add(const char* text) {
    for (; *text != '\0' && size_ < sizeof bytes_ - 1; ++text) bytes_[size_++] = *text;
  }
  // Bytes that could move a terminal's cursor are shown as a question mark.
  void add_path(const char* path) {
    for (; *path != '\0' && size_ < kMostBeforeReason; ++path) {
      const auto byte = static_cast<unsigned char>(*path);
      bytes_[size_++] = byte < 0x20 || byte == 0x7f ? '?' : *path;
    }
  }
  void write_out() {
    bytes_[size_++] = '\n';
    for (size_t done = 0; done < size_;) {
      const ssize_t count = ::write(STDERR_FILENO, bytes_ + done, size_ - done);
      if (count <= 0) return;
      done += static_cast<size_t>(count);
    }
  }

 private:
  static constexpr size_t kMostBeforeReason = 4400;  // PATH_MAX, and what stands before it
  char bytes_[4608];
  size_t size_ = 0;
};

// Async-signal-safe: write, _exit, pause, sigaction, raise, and lock-free atomics.
void on_bus_error(int, siginfo_t* info, void*) {
  const bool by_kernel = info->si_code > 0;
  const char* path = by_kernel ? mapped_file_at(info->si_addr) : nullptr;
  if (path == nullptr) {
    ::sigaction(SIGBUS, &action_before, nullptr);
    // A faulting instruction is repeated after the return, a signal that was sent is not.
    if (!by_kernel) ::raise(SIGBUS);
    return;
  }
  while (telling.test_and_set()) ::pause();  // another thread ends the process
  ErrorLine line;
  if (error_is_terminal) line.add("\r\x1b[K");  // over the progress
  line.add("atom: error: ");
  line.add_path(path);
  line.add(
      ": the file was cut while it was read: another process made it shorter, or its disk failed");
  line.write_out();
  ::_exit(kFailure);
}

}  // namespace

void end_at_cut_files() {
  error_is_terminal = ::isatty(STDERR_FILENO) != 0;
  struct sigaction action = {};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO;
  sigemptyset(&action.sa_mask);
  ::sigaction(SIGBUS, nullptr, &action_before);
  ::sigaction(SIGBUS, &action, nullptr);
}

}  // namespace atom::app
