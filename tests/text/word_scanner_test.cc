// The scanners of well-known patterns against the regex engine.
#include <gtest/gtest.h>

#include "base/random.h"
#include "text/regex.h"
#include "text/unicode.h"
#include "text/word_scanner.h"

namespace atom::text {
namespace {

constexpr const char* kPatterns[] = {
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"};

// Ranges without characters that a later Unicode may assign, so that versions of libraries do not matter.
struct Range {
  uint32_t first, last;
};
constexpr Range kRanges[] = {
    {0x80, 0x24F},      {0x300, 0x36F},     {0x391, 0x3A1},     {0x3A3, 0x3FF},   {0x400, 0x52F},
    {0x5D0, 0x5EA},     {0x620, 0x6FF},     {0x900, 0x97F},     {0xE01, 0xE3A},   {0x1680, 0x1680},
    {0x180E, 0x180E},   {0x2000, 0x2064},   {0x2070, 0x2071},   {0x2100, 0x218B}, {0x2460, 0x24FF},
    {0x3000, 0x303F},   {0x3041, 0x3096},   {0x4E00, 0x9FEF},   {0xAC00, 0xD7A3}, {0xFF01, 0xFFBE},
    {0x10400, 0x1049D}, {0x1D400, 0x1D454}, {0x1F300, 0x1F5FF}, {0xFFFD, 0xFFFD}};
constexpr std::string_view kAscii = "''''   \n\n\r\t\v sSdDmMtTlLrReEvVaZ019.,!?_-";

uint32_t random_character(Random& random) {
  switch (random.below(6)) {
    case 0: {
      const Range range = kRanges[random.below(std::size(kRanges))];
      return range.first + static_cast<uint32_t>(random.below(range.last - range.first + 1));
    }
    case 1:
      return static_cast<uint32_t>(random.below(0x80));
    case 2:
      return random.below(2) == 0 ? 0x17F : 0x85;  // the long s; a line end that is not ASCII
    default:
      return static_cast<uint32_t>(kAscii[random.below(kAscii.size())]);
  }
}

void expect_same_words(const char* pattern, const std::string& text) {
  const Regex regex = Regex::compile(pattern, "test");
  RegexSearch search(regex);
  const WordScanner words = *WordScanner::of_pattern(pattern);
  for (size_t at = 0; at < text.size();) {
    const auto match = search.next(text, at);
    ASSERT_TRUE(match && match->begin == at);
    ASSERT_EQ(words.end(text, at), match->end) << "at " << at << ::testing::PrintToString(text);
    at = match->end;
  }
}

TEST(WordScannerTest, RandomTextsHaveTheWordsOfTheRegex) {
  Random random(4);
  for (const char* pattern : kPatterns) {
    for (int i = 0; i < 40; ++i) {
      std::string text;
      for (int k = 0; k < 400; ++k) append_utf8(text, random_character(random));
      expect_same_words(pattern, std::string(utf8_prefix(text, text.size() / 8)));
      expect_same_words(pattern, text);
    }
  }
}

TEST(WordScannerTest, EveryCharacterOfTheRangesHasTheKindOfTheRegex) {
  for (const char* pattern : kPatterns) {
    std::string text;
    for (const Range& range : kRanges) {
      const uint32_t step = range.last - range.first > 0x1000 ? 97 : 1;
      for (uint32_t c = range.first; c <= range.last; c += step) {
        for (const char* around : {"a", " ", "1", "."}) append_utf8(text += around, c);
      }
    }
    expect_same_words(pattern, text);
  }
}

TEST(WordScannerTest, ShortTextsOfTheDifficultCharacters) {
  constexpr std::string_view kFew = "'sL \n.a1";
  for (const char* pattern : kPatterns) {
    const Regex regex = Regex::compile(pattern, "test");
    RegexSearch search(regex);
    const WordScanner words = *WordScanner::of_pattern(pattern);
    for (int code = 0; code < 8 * 8 * 8 * 8; ++code) {  // all texts of four
      std::string text;
      for (int k = 0; k < 4; ++k) text += kFew[static_cast<size_t>(code >> 3 * k & 7)];
      ASSERT_EQ(words.end(text, 0), search.next(text, 0)->end) << ::testing::PrintToString(text);
    }
  }
}

TEST(WordScannerTest, OtherPatternsAreLeftToTheRegex) {
  const std::string llama = kPatterns[1];
  for (const std::string& pattern :
       std::vector<std::string>{"", "a", llama.substr(1), llama + "|a"}) {
    EXPECT_FALSE(WordScanner::of_pattern(pattern).has_value()) << pattern;
  }
}

}  // namespace
}  // namespace atom::text
