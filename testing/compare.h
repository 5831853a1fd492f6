// Comparisons of floats by bits and by a bound per element, with one message for a whole array.
//
//   EXPECT_TRUE(same_bits(expected, actual));             // any NaN equals any NaN
//   EXPECT_TRUE(all_within(expected, actual, bounds));    // |a - b| <= bound, element by element
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>

namespace atom::testing {

inline bool same_bits(float a, float b) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b);
}

inline ::testing::AssertionResult same_bits(std::span<const float> expected,
                                            std::span<const float> actual) {
  if (expected.size() != actual.size())
    return ::testing::AssertionFailure()
           << expected.size() << " and " << actual.size() << " values";
  size_t wrong = 0, first = 0;
  for (size_t i = 0; i < expected.size(); ++i)
    if (!same_bits(expected[i], actual[i]) && wrong++ == 0) first = i;
  if (wrong == 0) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure()
         << wrong << " of " << expected.size() << " differ, the first at " << first << ": expected "
         << expected[first] << ", got " << actual[first];
}

// Integers: codes, bytes, ids.
template <typename T>
::testing::AssertionResult same_values(std::span<const T> expected, std::span<const T> actual) {
  if (expected.size() != actual.size())
    return ::testing::AssertionFailure()
           << expected.size() << " and " << actual.size() << " values";
  size_t wrong = 0, first = 0;
  for (size_t i = 0; i < expected.size(); ++i)
    if (expected[i] != actual[i] && wrong++ == 0) first = i;
  if (wrong == 0) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure()
         << wrong << " of " << expected.size() << " differ, the first at " << first << ": expected "
         << +expected[first] << ", got " << +actual[first];
}

// A NaN is within any bound of a NaN and of nothing else.
inline ::testing::AssertionResult all_within(std::span<const float> expected,
                                             std::span<const float> actual,
                                             std::span<const double> bounds) {
  if (expected.size() != actual.size() || bounds.size() != actual.size())
    return ::testing::AssertionFailure() << "sizes differ";
  size_t wrong = 0, worst = 0;
  double worst_ratio = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    if (same_bits(expected[i], actual[i])) continue;
    const double off = std::abs(double{expected[i]} - double{actual[i]});
    if (off <= bounds[i]) continue;
    ++wrong;
    double ratio = std::numeric_limits<double>::infinity();  // also where one is NaN
    if (!std::isnan(off) && bounds[i] > 0) ratio = off / bounds[i];
    if (ratio > worst_ratio) {
      worst_ratio = ratio;
      worst = i;
    }
  }
  if (wrong == 0) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure()
         << wrong << " of " << expected.size() << " are off, the worst at " << worst
         << ": expected " << expected[worst] << ", got " << actual[worst] << ", bound "
         << bounds[worst];
}

}  // namespace atom::testing
