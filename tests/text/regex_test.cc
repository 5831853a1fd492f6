#include "text/regex.h"

#include <gtest/gtest.h>

#include "text/pattern.h"

namespace atom::text {
namespace {

TEST(RegexTest, LookbehindSeesTheTextBefore) {
  const Regex regex = Regex::compile("(?<=a)b", "test");
  RegexSearch search(regex);
  const auto hit = search.next("ab", 1);
  ASSERT_TRUE(hit.has_value());
  EXPECT_EQ(hit->begin, 1u);
  EXPECT_FALSE(search.next("bb", 0).has_value());
}

TEST(RegexTest, TranslationOfRubySyntax) {
  const auto translated = [](std::string_view pattern) { return translate_regex(pattern, "test"); };
  EXPECT_EQ(translated("a(?i)b|c"), "a(?i:b|c)");
  EXPECT_EQ(translated("(a(?m)b)c"), "(a(?s:b))c");
  EXPECT_EQ(translated("(?m-i:.)"), "(?s-i:.)");
  EXPECT_EQ(translated("x{,3}y{2,}z{}"), "x{0,3}y{2,}z{}");
  EXPECT_EQ(translated("\\u4e00\\Qa\\v"), "\\x{4e00}Qa\\x{0B}");
  EXPECT_EQ(translated("a(?#remark)b"), "ab");
  EXPECT_EQ(translated("[\\h-]"), "[0-9A-Fa-f-]");
}

TEST(RegexTest, SplitCoversTheText) {
  Pattern pattern;
  pattern.regex = Regex::compile("x*", "test");
  PatternSearch search(pattern);
  std::vector<MatchPart> parts;
  search.split("axxb", parts);
  // Empty at 0, then "xx"; none directly after it; empty at the end.
  std::string shape;
  for (const MatchPart& part : parts) {
    shape +=
        std::to_string(part.begin) + (part.is_match ? "m" : "-") + std::to_string(part.end) + " ";
  }
  EXPECT_EQ(shape, "0m0 0-1 1m3 3-4 4m4 ");
  search.split("", parts);
  EXPECT_TRUE(parts.empty());
}

}  // namespace
}  // namespace atom::text
