#include "text/regex.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "base/error.h"
#include "base/random.h"
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

// Each place of the text stays below the limit of steps; together they took half a minute.
TEST(RegexTest, ASearchHasALimitOfTime) {
  const std::string text(4400, 'a');
  for (const char* pattern : {"(?=a*a*[bc])", "a*?a*?(?=[bc])", "(?:a|aa)+(?<=[bc])"}) {
    const Regex regex = Regex::compile(pattern, "test");
    RegexSearch search(regex, std::chrono::milliseconds(5));
    EXPECT_THROW(search.next(text, 0), Error) << pattern;
  }
}

// What a text may cost, by how far its searches got: nothing here is measured.
TEST(RegexTest, TimeGrowsWithWhatIsDoneNotWithTheText) {
  using std::chrono::milliseconds, std::chrono::nanoseconds;
  constexpr milliseconds kSlack{500}, kStuck{4000};
  constexpr size_t kMega = 1'000'000;
  // A short text has a microsecond for each byte that is done.
  for (const size_t bytes : {size_t{0}, size_t{1}, size_t{4400}, kMega, 3 * kMega})
    EXPECT_EQ(regex_time(bytes, bytes, kSlack), kSlack + nanoseconds(1000) * bytes) << bytes;
  // Where nothing is done, no length buys more than four seconds; a single match may double them.
  for (const size_t bytes : {4 * kMega, 8 * kMega, 64 * kMega, 2000 * kMega, SIZE_MAX})
    EXPECT_LT(regex_time(bytes, 0, kSlack), kStuck) << bytes;
  // 10 MB/s are honest however long the text is, and twice the cost is not for long.
  for (const size_t done : {kMega, 8 * kMega, 100 * kMega, 2000 * kMega}) {
    EXPECT_GT(regex_time(4000 * kMega, done, kSlack), nanoseconds(100) * done) << done;
    EXPECT_LT(regex_time(4000 * kMega, done, kSlack), kStuck + nanoseconds(100) * done) << done;
  }
  EXPECT_GT(regex_time(SIZE_MAX, SIZE_MAX, kSlack), kStuck);  // without overflow
}

// Few steps at a place are fewer in a long text, and what needs more is found all the same.
TEST(RegexTest, LongTextsHaveTheMatchesOfShortOnes) {
  const std::string line = "of 12 words, xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n";
  std::string text;
  while (text.size() < size_t{10} << 20) text += line;
  for (const char* pattern : {"\\p{N}+", "(?:x|xx)+$", "(?:x?x?)*\n"}) {
    Pattern found;
    found.regex = Regex::compile(pattern, "test");
    PatternSearch search(found);
    std::vector<MatchPart> parts, whole;
    search.split(line, parts);
    const MatchPart first = *std::find_if(parts.begin(), parts.end(),
                                          [](const MatchPart& part) { return part.is_match; });
    search.split(text, whole);
    size_t lines = 0;
    for (const MatchPart& part : whole) {
      if (!part.is_match) continue;
      ASSERT_EQ(part.begin, lines * line.size() + first.begin) << pattern;
      ASSERT_EQ(part.end - part.begin, first.end - first.begin) << pattern;
      ++lines;
    }
    EXPECT_EQ(lines, text.size() / line.size()) << pattern;
  }
}

// Many searches share the time of what they are part of.
TEST(RegexTest, SearchesTogetherHaveALimitOfTime) {
  const std::string text(10'000, 'a');
  const Regex regex = Regex::compile("(?=a*[bc])", "test");
  const auto search_all = [&] {
    const RegexTime all(text.size());
    const RegexTime inner(size_t{1} << 40);  // no more than the outer one has
    for (int i = 0; i < 1000; ++i) RegexSearch(regex).next(text, 0);
  };
  EXPECT_THROW(search_all(), Error);
  RegexSearch(regex).next(text, 0);  // the next ones have their own
}

// What needs many steps at one place is found as what needs few is.
TEST(RegexTest, LongRunsAreFoundAtTheirPlaces) {
  const Regex regex = Regex::compile("x*[yz]|\\s+$", "test");
  RegexSearch search(regex);
  for (const size_t size : {10U, 100U, 1000U, 100'000U}) {
    const std::string text = "\xc3\xa9w " + std::string(size, 'x') + "y  v";
    const auto hit = search.next(text, 0);
    ASSERT_TRUE(hit.has_value());
    EXPECT_EQ(hit->begin, 4U);
    EXPECT_EQ(hit->end, size + 5);
    EXPECT_FALSE(search.next(text, size + 5).has_value());
  }
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
