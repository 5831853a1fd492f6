#include "chat_input.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "session.h"
#include "text/unicode.h"

namespace atom::app {
namespace {

constexpr size_t kMaxBytes = 16 << 20;  // of one text
constexpr std::string_view kQuotes = "\"\"\"";

volatile sig_atomic_t noted_signal = 0;
int wake_pipe[2] = {
    -1, -1};  // a byte for each noted signal, so that a poll that is just beginning wakes, too

void note_signal(int signal) {
  if (noted_signal != 0) ::_exit(128 + signal);
  noted_signal = signal;
  const int error = errno;
  [[maybe_unused]] const ssize_t written = ::write(wake_pipe[1], "", 1);
  errno = error;
}

void check_size(const std::string& text) {
  if (text.size() > kMaxBytes) fail("a text has more than {} MiB", kMaxBytes >> 20);
}

}  // namespace

void catch_chat_signals() {
  if (::pipe2(wake_pipe, O_CLOEXEC | O_NONBLOCK) != 0)
    fail("cannot make a pipe: {}", std::strerror(errno));
  struct sigaction action = {};
  action.sa_handler = note_signal;
  action.sa_flags = SA_RESTART;  // of writes to the terminal
  sigemptyset(&action.sa_mask);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction old = {};
    if (::sigaction(signal, nullptr, &old) == 0 && old.sa_handler != SIG_IGN)
      ::sigaction(signal, &action, nullptr);
  }
}

int chat_signal() { return noted_signal; }

void forget_chat_signal() {
  char bytes[16];
  while (::read(wake_pipe[0], bytes, sizeof bytes) > 0) {
  }
  noted_signal = 0;
}

bool ChatInput::fill() {
  pollfd files[2] = {{file_, POLLIN, 0}, {wake_pipe[0], POLLIN, 0}};
  while (::poll(files, 2, -1) < 0)
    if (errno != EINTR) fail("cannot wait for input: {}", std::strerror(errno));
  if (chat_signal() != 0) throw Interrupted(chat_signal());
  char bytes[4096];
  const ssize_t size = ::read(file_, bytes, sizeof bytes);
  // Not an Error, after which a conversation would go on to read.
  if (size < 0) throw std::system_error(errno, std::generic_category(), "the standard input");
  buffer_.append(bytes, static_cast<size_t>(size));
  if (buffer_.size() > kMaxBytes) {
    buffer_.clear();
    fail("a line has more than {} MiB", kMaxBytes >> 20);
  }
  return size > 0;
}

std::optional<std::string> ChatInput::line(bool more) {
  prompt_(more);
  size_t end = 0, looked = 0;
  while ((end = buffer_.find('\n', looked)) == std::string::npos) {
    looked = buffer_.size();
    if (fill()) continue;
    if (buffer_.empty()) return std::nullopt;
    end = buffer_.size();
    break;
  }
  std::string text = buffer_.substr(0, end);
  buffer_.erase(0, end + 1);
  if (text.ends_with('\r')) text.pop_back();
  return text;
}

std::optional<ChatLine> ChatInput::next() {
  std::optional<std::string> first = line(false);
  if (!first) return std::nullopt;
  ChatLine result;
  std::string& text = result.text = std::move(*first);
  const auto add = [&] {
    const std::optional<std::string> next = line(true);
    if (next) text += "\n" + *next;
    check_size(text);
    return next.has_value();
  };
  const bool quoted = text.starts_with(kQuotes);
  if (quoted) {
    text.erase(0, kQuotes.size());
    while (!text.ends_with(kQuotes) && add()) {
    }
    if (text.ends_with(kQuotes)) text.resize(text.size() - kQuotes.size());
    if (text.starts_with('\n')) text.erase(0, 1);
    if (text.ends_with('\n')) text.pop_back();
  } else {
    while (text.ends_with('\\')) {
      text.pop_back();
      if (!add()) break;
    }
  }
  if (!text::is_valid_utf8(text)) fail("the text is not UTF-8");
  if (quoted || !text.starts_with('/')) return result;
  if (text.starts_with("//")) {
    text.erase(0, 1);
    return result;
  }
  const size_t word = text.find_first_of(" \t\n");
  result.command = text.substr(0, word);
  const size_t begin = word == std::string::npos ? word : text.find_first_not_of(" \t\n", word);
  text.erase(0, std::min(begin, text.size()));
  return result;
}

}  // namespace atom::app
