// A conversation: its turns, the request that asks for the next answer, and the answer as it comes.
//
//   Talk talk(server, settings);
//   talk.say("Hello");
//   const Spoken spoken = talk.answer([&](std::string_view piece) { ... }, stopped);
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "chat_server.h"

namespace atom::app {

// What is not given is left to the server.
struct ChatSettings {
  std::optional<double> temperature, top_p, min_p;
  std::optional<int> top_k, max_tokens;
  std::optional<int64_t> seed;
};

struct Spoken {
  std::string finish;  // "stop", "length", ...; empty: it was stopped
  bool stopped = false;
  int64_t tokens = 0;  // those that the server counts, else pieces
  double first = 0;    // seconds from the request to the first piece
  double rest = 0;     // from there to the last
};

class Talk {
 public:
  Talk(ChatServer& server, ChatSettings settings) : server_(server), settings_(settings) {}

  void set_system(std::string text) { system_ = std::move(text); }  // empty: none
  void clear() { turns_.clear(); }
  void say(std::string text);  // a question that got no answer is forgotten
  bool again();                // the last question once more; false: there is none
  // Asks for the answer to the last question. `show` gets its pieces, whole characters. What was said before `stopped` stays.
  // Error: of the server, of the connection, of an answer that is none; the question stays for again().
  Spoken answer(const std::function<void(std::string_view piece)>& show, const Stopped& stopped);
  std::string text() const;  // {"model", "messages"} as JSON

 private:
  struct Turn {
    std::string question;
    std::optional<std::string> answer;
    int64_t repeated = 0;
  };
  std::string request() const;

  ChatServer& server_;
  const ChatSettings settings_;
  std::string system_;
  std::vector<Turn> turns_;
};

}  // namespace atom::app
