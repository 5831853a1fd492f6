// Saturated codes are counted alike on every backend.
#include <gtest/gtest.h>

#include <limits>

#include "backend/backends_under_test.h"
#include "format/list.h"
#include "testing/random_data.h"

namespace atom::backend {
namespace {

using format::int4;
using format::kF32;
using format::kInt8;
using format::Segments;

class Saturated : public BackendTest {};

uint64_t count(Backend& backend, const Input& input, uint64_t before) {
  const Guarded counter(backend, std::vector<uint64_t>{before});
  backend.count_saturated(input.activation(), counter.as<uint64_t>());
  return counter.values<uint64_t>()[0];
}

// From what is read back, group by group.
uint64_t expected_count(const Input& input) {
  const std::vector<int8_t> codes = input.codes().codes;
  uint64_t all = 0;
  size_t at = 0;
  for (int row = 0; row < input.rows(); ++row)
    for (const format::Segment& s : input.spec().segments.at) {
      const bool integer = format::is_integer(s.format);
      const int high = format::bits(s.format) == 8 ? 127 : format::is_e2m1(s.format) ? 12 : 7;
      const int low = high == 7 ? -8 : -high;
      for (int i = 0, ends = 0; i < s.size; ++i, ++at) {
        if (i % format::group_size(s.format, s.size) == 0) ends = 0;
        if (integer && (codes[at] == low || codes[at] == high) && ++ends > 1) ++all;
      }
    }
  return all;
}

TEST_P(Saturated, ByHand) {
  // The scale is that of 8 at clip 7/8: 1. Four values end at 7, two at -8, and one of the six is that of the scale; the
  // other group has its largest value alone at an end.
  std::vector<float> x(64, 0.0f);
  x[0] = 8, x[1] = 7.4f, x[2] = 6.6f, x[3] = 7, x[4] = -8, x[31] = -7.6f, x[5] = 6.4f, x[6] = -7.4f;
  x[40] = 8, x[41] = -7;
  Input input(*backend, format::whole(int4(32), 64), 1, {}, 0.875f);
  input.quantize(x);
  EXPECT_EQ(count(*backend, input, 10), 15u);
}

TEST_P(Saturated, AllFormatsAndSizes) {
  Random random(47);
  bool any = false;
  for (const int k : {16, 72, 129, 384, 1000, 4096}) {
    for (const format::Format f : {int4(32), int4(64), int4(128), int4(0), format::e2m1(32),
                                   format::kMxfp4, format::kNvfp4, kInt8, kF32})
      for (const int kept : {0, 16, 128}) {
        if (kept >= k) continue;
        constexpr int kRows = 5;
        // Quarters: many values are the largest of their group.
        std::vector<float> x;
        for (int i = 0; i < kRows * k; ++i)
          x.push_back(static_cast<float>(atom::testing::between(random, -40, 40)) / 4);
        for (int i = 0; i < k; ++i) x[static_cast<size_t>(k + i)] = 0;
        x[static_cast<size_t>(2 * k)] = std::numeric_limits<float>::quiet_NaN();
        Input input(*backend, split(f, kInt8, k, kept), kRows, {}, 0.7f);
        input.set_signed_scales(random.below(2) == 1);
        input.quantize(x);
        Input same(*reference, split(f, kInt8, k, kept), kRows, {}, 0.7f);
        same.set_signed_scales(input.spec().signed_scales);
        same.quantize(x);
        SCOPED_TRACE(fmt::format("{} {}, kept {}", format::name(f), k, kept));
        const uint64_t expected = expected_count(input);
        EXPECT_EQ(count(*backend, input, 3), 3 + expected);
        EXPECT_EQ(count(*reference, same, 0), expected);
        any = any || expected > 0;
      }
  }
  EXPECT_TRUE(any);
}

TEST_P(Saturated, NoRowsHaveNone) {
  const Input input(*backend, format::whole(kInt8, 64), 0);
  EXPECT_EQ(count(*backend, input, 7), 7u);
}

INSTANTIATE_TEST_SUITE_P(All, Saturated, ::testing::ValuesIn(candidates()), candidate_name);

}  // namespace
}  // namespace atom::backend
