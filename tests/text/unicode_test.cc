#include "text/unicode.h"

#include <gtest/gtest.h>

#include "base/random.h"

namespace atom::text {
namespace {

TEST(UnicodeTest, CodePointsSurviveTheirEncoding) {
  for (uint32_t c = 0; c <= 0x10FFFF; c += (c < 0x3000 ? 1 : 37)) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    append_utf8(text, c);
    ASSERT_TRUE(is_valid_utf8(text)) << c;
    const CodePoint back = decode_utf8(text, 0);
    ASSERT_EQ(back.value, c);
    ASSERT_EQ(back.size, text.size());
    ASSERT_EQ(previous_utf8(text, text.size()), 0u);
  }
}

// The examples of the Unicode standard, section 3.9, tables 3-8 to 3-11; R stands for U+FFFD.
TEST(UnicodeTest, MaximalSubpartsBecomeOneReplacement) {
  const auto shown = [](std::string_view bytes) {
    const std::string clean = replace_invalid_utf8(bytes);
    std::string out;
    for (size_t at = 0; at < clean.size();) {
      const CodePoint c = decode_utf8(clean, at);
      out += c.value == 0xFFFD ? 'R' : clean[at];
      at += c.size;
    }
    return out;
  };
  EXPECT_EQ(shown("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"), "RRRRRRRRA");
  EXPECT_EQ(shown("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41"), "RRRRRRRRA");
  EXPECT_EQ(shown("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42"), "RRRRRARRB");
  EXPECT_EQ(shown("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), "RRRRA");
  EXPECT_EQ(shown("a\xE4\xB8"), "aR");
}

TEST(UnicodeTest, RepairInPartsEqualsRepairAtOnce) {
  Random random(3);
  for (int round = 0; round < 300; ++round) {
    std::string bytes;
    const size_t size = random.below(24);
    while (bytes.size() < size) {
      bytes.push_back(
          static_cast<char>(random.below(3) == 0 ? random.below(256) : 0x80 + random.below(128)));
    }
    std::string out;
    Utf8Repair repair;
    for (size_t at = 0; at < bytes.size();) {
      const size_t step = 1 + random.below(3);
      repair.push(std::string_view(bytes).substr(at, step), out);
      EXPECT_TRUE(is_valid_utf8(out));
      at += step;
    }
    repair.finish(out);
    EXPECT_EQ(out, replace_invalid_utf8(bytes));
  }
}

TEST(UnicodeTest, Classes) {
  EXPECT_TRUE(is_whitespace(0x3000));
  EXPECT_FALSE(is_whitespace(0x180E));
  EXPECT_FALSE(is_whitespace(0x200B));
  EXPECT_TRUE(is_numeric(0xBD));
  EXPECT_FALSE(is_numeric('x'));
  EXPECT_TRUE(is_punctuation('$'));
  EXPECT_TRUE(is_punctuation(0x2014));
  EXPECT_FALSE(is_punctuation(0x20AC));
  EXPECT_TRUE(is_word('_'));
  EXPECT_TRUE(is_word(0x301));
  EXPECT_FALSE(is_word('-'));
}

}  // namespace
}  // namespace atom::text
