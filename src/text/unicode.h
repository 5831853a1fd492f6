// UTF-8 and the Unicode classes that tokenizer files rely on.
//
//   const std::string clean = replace_invalid_utf8(request_body);
//   for (size_t at = 0; at < clean.size();) {
//     const CodePoint c = decode_utf8(clean, at);
//     at += c.size;
//   }
//
// Invalid bytes become U+FFFD, one for each maximal subpart (Unicode 15, section 3.9, "U+FFFD
// Substitution of Maximal Subparts").
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace atom::text {

struct CodePoint {
  uint32_t value;
  uint32_t size;  // bytes in UTF-8
};

// What starts at one byte of unchecked text.
struct Utf8Unit {
  enum class Kind { kCharacter, kInvalid, kIncomplete };
  Kind kind;
  uint32_t size;  // bytes: the character, the maximal invalid subpart, or all that is left
};

// at < bytes.size(). kIncomplete: a valid beginning of a character that the end of `bytes` cuts
// off.
Utf8Unit scan_utf8(std::string_view bytes, size_t at);

// Decodes the character at `at` of text that is valid UTF-8; at < valid.size().
inline CodePoint decode_utf8(std::string_view valid, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<uint8_t>(valid[i])); };
  const uint32_t lead = byte(at);
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xE0) return {(lead & 0x1F) << 6 | (byte(at + 1) & 0x3F), 2};
  if (lead < 0xF0) {
    return {(lead & 0x0F) << 12 | (byte(at + 1) & 0x3F) << 6 | (byte(at + 2) & 0x3F), 3};
  }
  return {(lead & 0x07) << 18 | (byte(at + 1) & 0x3F) << 12 | (byte(at + 2) & 0x3F) << 6 |
              (byte(at + 3) & 0x3F),
          4};
}

// Start of the character that ends before `at`, in valid UTF-8; 0 < at <= valid.size().
size_t previous_utf8(std::string_view valid, size_t at);

void append_utf8(std::string& out, uint32_t code_point);

// At most `bytes` of the front, in whole characters: for messages.
std::string_view utf8_prefix(std::string_view valid, size_t bytes);

bool is_valid_utf8(std::string_view bytes);
std::string replace_invalid_utf8(std::string_view bytes);

// replace_invalid_utf8 for bytes that come in parts: an incomplete character waits for its rest.
class Utf8Repair {
 public:
  void push(std::string_view bytes, std::string& out);
  void finish(std::string& out);  // an incomplete rest becomes one U+FFFD

 private:
  std::string pending_;  // at most 3 bytes
};

bool is_whitespace(uint32_t code_point);   // property White_Space
bool is_numeric(uint32_t code_point);      // categories Nd, Nl, No
bool is_punctuation(uint32_t code_point);  // ASCII punctuation and symbols, category P
bool is_word(uint32_t code_point);  // Alphabetic, M, Nd, Pc, Join_Control (UTS 18, annex C, \w)

// Appends the full lower-case mapping of one character, without context (no final sigma).
void append_lowercase(std::string& out, uint32_t code_point);

}  // namespace atom::text
