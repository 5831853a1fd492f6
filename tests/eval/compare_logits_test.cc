#include "eval/compare_logits.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "eval/logits_blocks.h"
#include "testing/expect_error.h"

namespace atom::eval {
namespace {

using testing::expect_error;

void expect_same(const RowComparison& actual, const RowComparison& expected) {
  EXPECT_NEAR(actual.kld, expected.kld, kRounding);
  EXPECT_NEAR(actual.log_probability_a, expected.log_probability_a, kRounding);
  EXPECT_NEAR(actual.log_probability_b, expected.log_probability_b, kRounding);
  EXPECT_EQ(actual.same_top, expected.same_top);
}

TEST(CompareLogitsTest, IsTheDefinition) {
  for (const int vocabulary : {2, 101, 3000}) {
    const Blocks blocks = random_blocks(40, vocabulary);
    const std::vector<RowComparison> rows = blocks.compare();
    for (int row = 0; row < 40; ++row) {
      SCOPED_TRACE(row);
      expect_same(rows[row], by_definition(blocks, row));
    }
  }
}

TEST(CompareLogitsTest, IsNotSymmetric) {
  // p = (3/4, 1/4), q = (1/2, 1/2).
  const Blocks blocks = {.vocabulary = 2, .a = {std::log(3.0f), 0}, .b = {5, 5}, .targets = {1}};
  const double p = 0.75;
  const RowComparison forth = blocks.compare()[0], back = blocks.swapped().compare()[0];
  // log(3) is rounded to f32.
  EXPECT_NEAR(forth.kld, p * std::log(p / 0.5) + (1 - p) * std::log((1 - p) / 0.5), 1e-7);
  EXPECT_NEAR(back.kld, 0.5 * std::log(0.5 / p) + 0.5 * std::log(0.5 / (1 - p)), 1e-7);
  EXPECT_GT(back.kld - forth.kld, 0.01);
  EXPECT_NEAR(forth.log_probability_a, std::log(0.25), 1e-7);
  EXPECT_NEAR(forth.log_probability_b, std::log(0.5), 1e-7);
  EXPECT_EQ(back.log_probability_a, forth.log_probability_b);
}

TEST(CompareLogitsTest, OfEqualLogitsIsExactlyZero) {
  Blocks blocks = random_blocks(20, 500);
  blocks.b = blocks.a;
  for (const RowComparison& row : blocks.compare()) {
    EXPECT_EQ(row.kld, 0);
    EXPECT_TRUE(row.same_top);
    EXPECT_EQ(row.log_probability_a, row.log_probability_b);
  }
}

TEST(CompareLogitsTest, LargeLogitsAndShiftsDoNoHarm) {
  // exp() of either overflows or vanishes; a shift of all logits is no change of the distribution.
  const Blocks blocks = {.vocabulary = 3,
                         .a = {1000, 1001, -3e38f, -2000, -2001, -2002},
                         .b = {-5000, -4999, -3e38f, 2002, 2001, 2000},
                         .targets = {1, 2}};
  const std::vector<RowComparison> rows = blocks.compare();
  for (const RowComparison& row : rows) {
    // A shift of 6000 is rounded at 2^-53 of it.
    EXPECT_NEAR(row.kld, 0, 1e-11);
    EXPECT_GE(row.kld, 0);
    EXPECT_NEAR(row.log_probability_a, row.log_probability_b, 1e-11);
    EXPECT_TRUE(row.same_top);
  }
  EXPECT_NEAR(rows[0].log_probability_a, -std::log(1 + std::exp(-1)), 1e-11);
}

TEST(CompareLogitsTest, TiesGoToTheLowestId) {
  const Blocks blocks = {
      .vocabulary = 3, .a = {1, 2, 2, 1, 2, 2}, .b = {0, 1, 0, 0, 0, 1}, .targets = {0, 0}};
  const std::vector<RowComparison> rows = blocks.compare();
  EXPECT_TRUE(rows[0].same_top);
  EXPECT_FALSE(rows[1].same_top);
}

TEST(CompareLogitsTest, ThreadsDoNotChangeABit) {
  const Blocks blocks = random_blocks(67, 1000);
  const std::vector<RowComparison> one = blocks.compare(1);
  for (const int threads : {2, 3, 5}) {
    const std::vector<RowComparison> rows = blocks.compare(threads);
    for (size_t row = 0; row < rows.size(); ++row) {
      EXPECT_EQ(rows[row].kld, one[row].kld);
      EXPECT_EQ(rows[row].log_probability_a, one[row].log_probability_a);
      EXPECT_EQ(rows[row].log_probability_b, one[row].log_probability_b);
    }
  }
}

TEST(CompareLogitsTest, NamesModelAndPositionOfALogitThatIsNotFinite) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), infinity, -infinity}) {
    Blocks blocks = random_blocks(30, 50);
    blocks.a[20 * 50 + 9] = bad;  // the later rows are looked at last
    blocks.b[4 * 50 + 17] = bad;
    const std::string word = fmt::format("{}", bad);
    expect_error([&] { blocks.compare(); }, {"model B", "id 17", "position 104", "window 7", word});
    expect_error([&] { blocks.swapped().compare(); }, {"model A", "id 17", "position 104", word});
    blocks.b[4 * 50 + 17] = 0;
    expect_error([&] { blocks.compare(); }, {"model A", "id 9", "position 120", word});
  }
}

}  // namespace
}  // namespace atom::eval
