// Codes of a few bits in words of 32, the first value in the lowest bits; a code may begin in one word and end in the next.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace atom::checkpoint {

// Word `at` of bytes that need not be aligned.
inline uint32_t word_at(const std::byte* words, int64_t at) {
  uint32_t word;
  std::memcpy(&word, words + at * 4, sizeof word);
  return word;
}

// Code `at` of a stream whose words are `stride` words apart.
inline uint8_t code_at(const std::byte* words, int64_t stride, int64_t at, int bits) {
  const int64_t bit = at * bits, word = bit / 32;
  const int shift = static_cast<int>(bit % 32);
  uint32_t code = word_at(words, word * stride) >> shift;
  if (shift + bits > 32) code |= word_at(words, (word + 1) * stride) << (32 - shift);
  return static_cast<uint8_t>(code & ((1u << bits) - 1));
}

// Where AWQ keeps output i of eight: its nibble in the word.
inline constexpr int kAwqNibble[8] = {0, 4, 1, 5, 2, 6, 3, 7};

}  // namespace atom::checkpoint
