// The text of one choice as its ids come: what follows the prompt, decoded after the prompt's last tokens (so that a word's
// leading space is there), searched for stop strings.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "serving/stop_finder.h"
#include "text/stream_decoder.h"

namespace atom::serving {

struct TextOptions {
  std::vector<std::string> stop;
  bool include_stop = false;  // the stop string stays in the text
  bool skip_special = true;   // special tokens have no text
  bool echo = false;          // the prompt's text comes first
  int min_tokens = 0;         // stop strings do not count before
};

int64_t count_characters(std::string_view text);  // of UTF-8: code points

class ChoiceText {
 public:
  // The tokenizer outlives it.
  ChoiceText(const text::Tokenizer& tokenizer, std::span<const int32_t> prompt,
             const TextOptions& options);

  // With echo: the prompt's text, once, before the first push; and where each of its tokens begins, in characters.
  std::string prompt_text() const { return prompt_text_; }
  const std::vector<int64_t>& prompt_offsets() const { return prompt_offsets_; }

  int64_t offset() const { return characters_; }  // where the next token's text begins
  std::string push(int32_t id);                   // the text that is certain now
  std::string finish();                           // the rest
  bool stopped() const { return stops_.found(); }
  const std::string& stop() const { return stops_.stop(); }

 private:
  std::string own(std::string text);  // without what belongs to the prompt

  text::StreamDecoder decoder_;
  StopFinder stops_;
  int min_tokens_;
  int tokens_ = 0;
  std::string
      skipped_;  // text of the prompt that the decoder still holds, and that is not the choice's
  std::string prompt_text_;
  std::vector<int64_t> prompt_offsets_;
  int64_t characters_ = 0;
};

// Texts of single tokens, as logprobs show them: as in the middle of a text. Bytes that are no characters are U+FFFD.
class TokenTexts {
 public:
  explicit TokenTexts(const text::Tokenizer& tokenizer);  // outlives it
  std::string text(int32_t id) const;
  std::optional<std::string> bytes(
      int32_t id) const;  // the token's own bytes, where they are known

 private:
  const text::Tokenizer& tokenizer_;
  int32_t anchor_ = -1;  // a token of letters, put before
  std::string anchor_text_;
};

}  // namespace atom::serving
