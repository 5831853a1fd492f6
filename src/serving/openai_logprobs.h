// Logprobs as the OpenAI API shows them: lists beside each other for completions, a list of objects for chats.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "serving/completion.h"

namespace atom::serving {

class LogprobsText {
 public:
  LogprobsText(bool chat, int count) : chat_(chat), count_(static_cast<size_t>(count)) {}

  void add(const TokenInfo& token, const TokenTexts& texts);
  std::string take();  // the JSON of what was added; it then starts anew

 private:
  void add_chat(const TokenInfo& token, const TokenTexts& texts);

  bool chat_;
  size_t count_;
  std::string tokens_, logprobs_, most_,
      offsets_;  // items of lists, with commas between; of a chat: tokens_
};

// [null, {"ID": {"logprob", "rank", "decoded_token"}, ...}, ...] of a prompt's tokens.
std::string prompt_logprobs_text(std::span<const engine::Logprobs> logprobs, int count,
                                 const TokenTexts& texts);

}  // namespace atom::serving
