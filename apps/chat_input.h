// What a person or a pipe types into `atom chat`, and the signals that come meanwhile.
//
//   catch_chat_signals();
//   ChatInput input(STDIN_FILENO, [](bool more) { ... });
//   while (const std::optional<ChatLine> line = input.next()) ...
#pragma once

#include <functional>
#include <optional>
#include <string>

namespace atom::app {

// From here on the first of Ctrl-C, SIGTERM and SIGHUP is only noted, also while input is awaited; another one ends the
// program, until the first is forgotten.
void catch_chat_signals();
int chat_signal();  // 0: none
void forget_chat_signal();

struct ChatLine {
  std::string text;     // what is said, or behind the word of the command
  std::string command;  // "/help"; empty: none
};

class ChatInput {
 public:
  // `prompt` is called before each line is read; `more`: it continues one.
  ChatInput(int file, std::function<void(bool more)> prompt)
      : file_(file), prompt_(std::move(prompt)) {}

  // A line; lines joined by a backslash at the end of each but the last; or what is between lines that begin and end with
  // three quotes, where nothing is a command. Outside of them "/word" is a command, and "//" stands for a text's first "/".
  // Nothing: the end. Error: more than 16 MiB, no UTF-8. system_error: a failed read. Interrupted: a signal.
  std::optional<ChatLine> next();

 private:
  std::optional<std::string> line(bool more);
  bool fill();  // false: the end

  const int file_;
  const std::function<void(bool)> prompt_;
  std::string buffer_;
};

}  // namespace atom::app
