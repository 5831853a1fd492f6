#include "serving/choice_text.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

#include "text/byte_alphabet.h"
#include "text/unicode.h"

namespace atom::serving {
namespace {

// Enough to know how a word begins, and to hold the bytes of a character.
constexpr size_t kContextTokens = 8;

bool is_word(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  });
}

// "<0xE2>" -> its byte.
std::optional<char> byte_of(std::string_view token) {
  if (token.size() != 6 || token.substr(0, 3) != "<0x" || token[5] != '>') return {};
  int value = 0;
  const auto [end, error] = std::from_chars(token.data() + 3, token.data() + 5, value, 16);
  if (error != std::errc() || end != token.data() + 5) return {};
  return static_cast<char>(value);
}

// The bytes that the characters of a byte-level token stand for; empty where one stands for none.
std::string alphabet_bytes(std::string_view token) {
  std::string bytes;
  for (size_t at = 0; at < token.size();) {
    const text::CodePoint c = text::decode_utf8(token, at);
    const int byte = text::byte_of_character(c.value);
    if (byte < 0) return {};
    bytes += static_cast<char>(byte);
    at += c.size;
  }
  return bytes;
}

}  // namespace

int64_t count_characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; });
}

ChoiceText::ChoiceText(const text::Tokenizer& tokenizer, std::span<const int32_t> prompt,
                       const TextOptions& options)
    : decoder_(tokenizer, {.skip_special_tokens = options.skip_special}),
      stops_(options.stop, options.include_stop),
      min_tokens_(options.min_tokens) {
  const text::DecodeOptions decode = {.skip_special_tokens = options.skip_special};
  if (options.echo) {
    std::string sent;
    for (const int32_t id : prompt) {
      prompt_offsets_.push_back(characters_);
      const std::string piece = decoder_.push(id);
      characters_ += count_characters(piece);
      sent += piece;
    }
    prompt_text_ = tokenizer.decode(prompt, decode);
    skipped_ = prompt_text_.substr(std::min(sent.size(), prompt_text_.size()));
    characters_ += count_characters(skipped_);
    return;
  }
  const auto context = prompt.last(std::min(prompt.size(), kContextTokens));
  std::string sent;
  for (const int32_t id : context) sent += decoder_.push(id);
  const std::string all = tokenizer.decode(context, decode);
  skipped_ = all.substr(std::min(sent.size(), all.size()));
}

std::string ChoiceText::own(std::string text) {
  if (skipped_.empty() || text.empty()) return text;
  const std::string skipped = std::exchange(skipped_, {});
  if (text.compare(0, skipped.size(), skipped) == 0) text.erase(0, skipped.size());
  return text;
}

std::string ChoiceText::push(int32_t id) {
  const std::string text = own(decoder_.push(id));
  characters_ += count_characters(text);
  return ++tokens_ < min_tokens_ ? stops_.pass(text) : stops_.push(text);
}

std::string ChoiceText::finish() {
  const std::string text = own(decoder_.flush());
  characters_ += count_characters(text);
  std::string out = tokens_ < min_tokens_ ? stops_.pass(text) : stops_.push(text);
  return stops_.found() ? out : out + stops_.flush();
}

TokenTexts::TokenTexts(const text::Tokenizer& tokenizer) : tokenizer_(tokenizer) {
  for (int32_t id = 0; id < tokenizer.vocab_size() && anchor_ < 0; ++id) {
    if (!tokenizer.has_token(id) || tokenizer.is_special(id)) continue;
    anchor_text_ = tokenizer.decode(std::vector{id, id});
    if (is_word(anchor_text_)) anchor_ = id;
  }
  anchor_text_ = anchor_ < 0 ? "" : tokenizer.decode(std::vector{anchor_});
}

std::string TokenTexts::text(int32_t id) const {
  const text::DecodeOptions all = {.skip_special_tokens = false};
  if (anchor_ < 0) return tokenizer_.decode(std::vector{id}, all);
  std::string text = tokenizer_.decode(std::vector{anchor_, id}, all);
  if (text.compare(0, anchor_text_.size(), anchor_text_) == 0) text.erase(0, anchor_text_.size());
  return text;
}

std::optional<std::string> TokenTexts::bytes(int32_t id) const {
  if (!tokenizer_.has_token(id)) return "";
  const std::string_view token = tokenizer_.id_to_token(id);
  if (const std::optional<char> byte = byte_of(token)) return std::string{*byte};
  std::string own = text(id);
  if (own.find("\xef\xbf\xbd") == std::string::npos) return own;
  // Byte-level BPE has tokens that are part of a character; where it is another tokenizer, the texts differ.
  std::string bytes = alphabet_bytes(token);
  if (text::replace_invalid_utf8(bytes) != own) return {};
  return bytes;
}

}  // namespace atom::serving
