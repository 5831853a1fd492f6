// What some model families add to attention, on every backend: a sliding window, and the norm of each head of Q and K.
#include <gtest/gtest.h>

#include <cmath>

#include "backend/attention_test.h"
#include "testing/sanitized.h"

namespace atom::backend {
namespace {

using atom::testing::same_bits;
using format::KvKind;

class Heads : public Attention {};

// Prompts in chunks and single rows, across pages and far beyond the window.
const Steps kSteps = {
    {{0, 0, 21}, {1, 0, 1}},
    {{0, 21, 22}, {1, 1, 90}},
    {{1, 90, 91}, {0, 22, 150}},
    {{0, 150, 151}, {1, 91, 92}},
};

AttentionShape windowed(const AttentionShape& shape, int window) {
  AttentionShape out = shape;
  out.window = window;
  return out;
}

TEST_P(Heads, ReadNoFartherThanTheWindow) {
  using Windows = std::vector<int>;
  for (const int window : atom::testing::kSanitized ? Windows{16} : Windows{1, 16, 70})
    check_steps(windowed({4, 2, 16, KvKind::kF32}, window), kSteps);
  check_steps(windowed({4, 2, 16, KvKind::kInt8}, 5), kSteps);
  // A window of the query's own page, of some pages, and one that no position leaves.
  for (const int window : atom::testing::kSanitized ? Windows{3} : Windows{3, 40, 224}) {
    check_steps(windowed({3, 1, 16, KvKind::kInt4, 16, 0, false, true}, window), kSteps);
    check_steps(windowed({2, 1, 32, KvKind::kInt8Int4, 64, 16, true, true, 0.9f}, window), kSteps);
  }
}

TEST_P(Heads, AWindowDoesNotDependOnChunks) {
  for (const bool open_page : {false, true}) {
    const AttentionShape shape = windowed({4, 2, 32, KvKind::kInt4, 16, 0, false, open_page}, 19);
    AttentionRun whole(*backend, shape, 1, 7), parts(*backend, shape, 1, 7);
    const std::vector<float> all = whole.step({{0, 0, 100}});
    std::vector<float> joined;
    for (const auto& [begin, end] : {std::pair{0, 33}, {33, 34}, {34, 66}, {66, 67}, {67, 100}}) {
      const std::vector<float> y = parts.step({{0, begin, end}});
      joined.insert(joined.end(), y.begin(), y.end());
    }
    if (GetParam().name == "cuda") continue;  // equal to rounding there: check_steps
    EXPECT_TRUE(same_bits(all, joined));
  }
}

TEST_P(Heads, AreNormedApartAndValuesStay) {
  constexpr int kRows = 3, kHeads = 4, kKvHeads = 2;
  for (const int d : {12, 64, 128}) {
    const int width = (kHeads + 2 * kKvHeads) * d;
    Random random(5);
    std::vector<float> x = atom::testing::normal_values(
        random, static_cast<size_t>(kRows) * static_cast<size_t>(width));
    for (int i = 0; i < d; ++i) x[static_cast<size_t>(width + i)] = 0;  // a head of zeros stays one
    const std::vector<float> q_gain = atom::testing::normal_values(random, static_cast<size_t>(d));
    const std::vector<float> k_gain = atom::testing::normal_values(random, static_cast<size_t>(d));
    const Guarded rows(*backend, x), q(*backend, q_gain), k(*backend, k_gain);
    constexpr float kEpsilon = 1e-5f;
    backend->norm_heads({.qkv = rows.as<float>(),
                         .rows = kRows,
                         .heads = kHeads,
                         .kv_heads = kKvHeads,
                         .head_dim = d,
                         .q_gain = q.as<float>(),
                         .k_gain = k.as<float>(),
                         .epsilon = kEpsilon});
    backend->synchronize();
    const std::vector<float> y = rows.values<float>();
    for (size_t i = 0; i < x.size(); ++i) {
      const int head = static_cast<int>(i) % width / d;
      const size_t begin = i / static_cast<size_t>(d) * static_cast<size_t>(d), at = i - begin;
      if (head >= kHeads + kKvHeads) {
        EXPECT_EQ(x[i], y[i]) << i;
        continue;
      }
      double squares = 0;
      for (size_t j = begin; j < begin + static_cast<size_t>(d); ++j)
        squares += double{x[j]} * x[j];
      const double gain = double{head < kHeads ? q_gain[at] : k_gain[at]};
      const double expected = x[i] / std::sqrt(squares / d + double{kEpsilon}) * gain;
      // The factor and both products are rounded.
      EXPECT_NEAR(y[i], expected, 3 * std::ldexp(std::abs(expected), -24)) << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, Heads, ::testing::ValuesIn(candidates()), candidate_name);

}  // namespace
}  // namespace atom::backend
