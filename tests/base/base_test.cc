// Error, log, random numbers and SHA-256.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/random.h"
#include "base/sha256.h"
#include "testing/expect_error.h"

namespace atom {
namespace {

TEST(Error, FailFormatsAndCheckNamesItsPlace) {
  testing::expect_error([] { fail("{}: {} is wrong", "file", 7); }, {"file: 7 is wrong"});
  EXPECT_NO_THROW(check(true, "fine"));
  try {
    check(false, "one and one");
    FAIL();
  } catch (const InvariantError& error) {
    EXPECT_NE(std::string(error.what()).find("one and one"), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("base_test.cc"), std::string::npos);
  }
}

TEST(Log, GoesToTheSinkAndIsSilentWithoutOne) {
  std::vector<std::pair<LogLevel, std::string>> lines;
  set_log_sink([&](LogLevel level, const std::string& line) { lines.emplace_back(level, line); });
  log_info("layer {}", 3);
  log_warning("{} left", 1);
  set_log_sink({});
  log_info("nobody hears");
  const std::vector<std::pair<LogLevel, std::string>> expected = {{LogLevel::kInfo, "layer 3"},
                                                                  {LogLevel::kWarning, "1 left"}};
  EXPECT_EQ(lines, expected);
}

TEST(Random, MatchesXoshiro256StarStarSeededBySplitMix64) {
  // From a separate integer implementation of both papers, itself checked against the published
  // outputs 11520, 0, 1509978240, 1215971899390074240 of the state {1, 2, 3, 4}.
  Random zero(0);
  EXPECT_EQ(zero.next(), 0x99ec5f36cb75f2b4u);
  EXPECT_EQ(zero.next(), 0xbf6e1f784956452au);
  EXPECT_EQ(zero.next(), 0x1a5f849d4933e6e0u);
  Random other(42);
  EXPECT_EQ(other.next(), 0x15780b2e0c2ec716u);
  EXPECT_EQ(other.next(), 0x6104d9866d113a7eu);
}

TEST(Random, BelowIsUniformInItsRange) {
  Random random(1);
  std::vector<int> counts(7);
  constexpr int kDraws = 70'000;
  for (int i = 0; i < kDraws; ++i) ++counts.at(random.below(7));
  // 10000 expected, standard deviation sqrt(70000 * 1/7 * 6/7) = 93: six of them.
  for (const int count : counts) EXPECT_NEAR(count, 10'000, 6 * 93);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(random.below(1), 0u);
  for (int i = 0; i < 100; ++i)
    EXPECT_LT(random.below((uint64_t{1} << 63) + 1), (uint64_t{1} << 63) + 1);
  EXPECT_THROW(random.below(0), InvariantError);
}

TEST(Random, PythonRandomDrawsWhatPythonDraws) {
  // [random.randrange(n) for n in bounds] of CPython 3.11 after random.seed(s).
  struct Case {
    uint64_t seed;
    std::vector<uint64_t> draws;
  };
  const std::vector<uint64_t> bounds = {
      10, 1, 1'000'000, uint64_t{1} << 32, (uint64_t{1} << 40) + 3, ~uint64_t{0}, 7, 7};
  const std::vector<Case> cases = {
      {0, {6, 0, 42450, 2195908194, 788025983492, 16448235973081859711u, 1, 4}},
      {42, {1, 0, 777572, 1181241943, 305901360862, 1890702223848595625, 5, 5}},
      {(uint64_t{1} << 40) + 7,
       {9, 0, 263029, 3091373771, 972351302369, 15927155559309870078u, 2, 1}}};
  for (const Case& c : cases) {
    PythonRandom random(c.seed);
    for (size_t i = 0; i < bounds.size(); ++i)
      EXPECT_EQ(random.below(bounds[i]), c.draws[i]) << c.seed << " " << i;
  }
  EXPECT_THROW(PythonRandom(1).below(0), InvariantError);
}

TEST(Random, UniformAndNormalHaveTheirMoments) {
  Random random(2);
  constexpr int kDraws = 100'000;
  double sum_uniform = 0, sum = 0, squares = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double u = random.uniform();
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum_uniform += u;
    const double n = random.normal();
    ASSERT_TRUE(std::isfinite(n));
    sum += n;
    squares += n * n;
  }
  // Six standard errors: sqrt(1/12/N) = 0.00091, sqrt(1/N) = 0.0032, sqrt(2/N) = 0.0045.
  EXPECT_NEAR(sum_uniform / kDraws, 0.5, 6 * 0.00092);
  EXPECT_NEAR(sum / kDraws, 0.0, 6 * 0.0032);
  EXPECT_NEAR(squares / kDraws, 1.0, 6 * 0.0045);
}

TEST(Sha256, MatchesThePublishedVectors) {
  // FIPS 180-4 examples: the empty message, "abc", and a million times "a" in uneven pieces.
  EXPECT_EQ(sha256_hex({}), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex(std::as_bytes(std::span("abc", 3))),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  const std::string text(1'000'000, 'a');
  Sha256 hash;
  for (size_t begin = 0; begin < text.size(); begin += 777)
    hash.update(
        std::as_bytes(std::span(text)).subspan(begin, std::min<size_t>(777, text.size() - begin)));
  EXPECT_EQ(hash.finish(), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  EXPECT_THROW(hash.finish(), InvariantError);
  EXPECT_THROW(hash.update({}), InvariantError);
}

}  // namespace
}  // namespace atom
