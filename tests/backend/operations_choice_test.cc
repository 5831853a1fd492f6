// Routing, the sum over experts, and sampling on every backend.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "backend/backends_under_test.h"
#include "testing/compare.h"
#include "testing/random_data.h"

namespace atom::backend {
namespace {

using atom::testing::all_within;
using atom::testing::between;
using atom::testing::normal_values;
using atom::testing::same_bits;

struct Routed {
  std::vector<int32_t> row_index, row_ends, slots;
  std::vector<float> weights;
};

struct RouteCase {
  int rows, experts, top_k, renormalize;
};

Routed run_route(Backend& backend, const RouteCase& c, const std::vector<float>& logits) {
  const size_t choices = static_cast<size_t>(c.rows * c.top_k);
  const Guarded x(backend, logits), row_index(backend, choices * 4), slots(backend, choices * 4);
  const Guarded row_ends(backend, static_cast<size_t>(c.experts) * 4),
      weights(backend, choices * 4);
  backend.route({.logits = x.as<float>(),
                 .rows = c.rows,
                 .experts = c.experts,
                 .top_k = c.top_k,
                 .renormalize = c.renormalize,
                 .row_index = row_index.as<int32_t>(),
                 .row_ends = row_ends.as<int32_t>(),
                 .slots = slots.as<int32_t>(),
                 .weights = weights.as<float>()});
  return {row_index.values<int32_t>(), row_ends.values<int32_t>(), slots.values<int32_t>(),
          weights.values<float>()};
}

// The definition: sort (logit descending, expert ascending), take top_k, order by expert.
Routed expected_route(const RouteCase& c, const std::vector<float>& logits) {
  std::vector<std::vector<int>> chosen;
  Routed out;
  for (int row = 0; row < c.rows; ++row) {
    const float* x = logits.data() + row * c.experts;
    std::vector<int> experts(static_cast<size_t>(c.experts));
    std::iota(experts.begin(), experts.end(), 0);
    std::stable_sort(experts.begin(), experts.end(), [&](int a, int b) { return x[a] > x[b]; });
    double all = 0, some = 0;
    for (size_t j = 0; j < experts.size(); ++j) {
      const double p = std::exp(double{x[experts[j]]} - double{x[experts[0]]});
      all += p;
      if (j < static_cast<size_t>(c.top_k)) some += p;
    }
    const double top = double{x[experts[0]]};
    experts.resize(static_cast<size_t>(c.top_k));
    std::sort(experts.begin(), experts.end());
    for (const int e : experts)
      out.weights.push_back(
          static_cast<float>(std::exp(double{x[e]} - top) / (c.renormalize ? some : all)));
    chosen.push_back(experts);
  }
  out.slots.assign(static_cast<size_t>(c.rows * c.top_k), -1);
  for (int e = 0; e < c.experts; ++e) {
    for (int row = 0; row < c.rows; ++row)
      for (int j = 0; j < c.top_k; ++j)
        if (chosen[row][j] == e) {
          out.slots[row * c.top_k + j] = static_cast<int32_t>(out.row_index.size());
          out.row_index.push_back(row);
        }
    out.row_ends.push_back(static_cast<int32_t>(out.row_index.size()));
  }
  return out;
}

class Choice : public BackendTest {};

TEST_P(Choice, RoutesToTheLargestLogits) {
  Random random(41);
  for (const int experts : {1, 4, 8, 60})
    for (const int top_k : {1, 2, 4, 8}) {
      if (top_k > experts) continue;
      for (const int renormalize : {0, 1})
        for (const int rows : {1, 2, 33}) {
          SCOPED_TRACE(fmt::format("{} of {}, rows {}", top_k, experts, rows));
          const RouteCase c{rows, experts, top_k, renormalize};
          // Multiples of 1/4, so that ties are exact and other differences plain.
          std::vector<float> logits;
          double largest = 0;
          for (int i = 0; i < rows * experts; ++i) {
            logits.push_back(static_cast<float>(between(random, -16, 16)) / 4);
            largest = std::max(largest, std::abs(double{logits.back()}));
          }
          const Routed expected = expected_route(c, logits),
                       actual = run_route(*backend, c, logits);
          EXPECT_EQ(expected.row_index, actual.row_index);
          EXPECT_EQ(expected.row_ends, actual.row_ends);
          EXPECT_EQ(expected.slots, actual.slots);
          // In f32: exp of an argument off by u * 2 largest, its own 2 ulp, a sum of `experts`
          // positive terms (relative error experts * u), and two divisions.
          std::vector<double> bounds;
          for (const float w : expected.weights)
            bounds.push_back(double{w} * 0x1p-24 * (4 * largest + experts + 10));
          EXPECT_TRUE(all_within(expected.weights, actual.weights, bounds));
        }
    }
}

TEST_P(Choice, BreaksTiesByTheLowerExpert) {
  const Routed r = run_route(*backend, {2, 4, 2, 1}, {1, 1, 1, 1, 0, 2, 0, 0});
  EXPECT_EQ(r.row_index, (std::vector<int32_t>{0, 1, 0, 1}));
  EXPECT_EQ(r.row_ends, (std::vector<int32_t>{2, 4, 4, 4}));
  EXPECT_EQ(r.slots, (std::vector<int32_t>{0, 2, 1, 3}));
  EXPECT_FLOAT_EQ(r.weights[0], 0.5f);
}

// Rows that are not numbers still get valid places, or the other rows would lose theirs.
TEST_P(Choice, RoutesBadRowsSomewhere) {
  Random random(42);
  const RouteCase c{5, 8, 2, 1};
  std::vector<float> logits = normal_values(random, 5 * 8);
  const Routed good = run_route(*backend, c, logits);
  logits[1 * 8 + 3] = kNaN;
  for (int e = 0; e < 8; ++e) logits[static_cast<size_t>(3 * 8 + e)] = kNaN;
  const Routed bad = run_route(*backend, c, logits);
  ASSERT_EQ(bad.row_ends.back(), 10);
  EXPECT_TRUE(std::is_sorted(bad.row_ends.begin(), bad.row_ends.end()));
  std::vector<int32_t> slots = bad.slots;
  std::sort(slots.begin(), slots.end());
  for (int i = 0; i < 10; ++i) EXPECT_EQ(slots[i], i);
  for (int row = 0; row < 5; ++row)
    for (int j = 0; j < 2; ++j) {
      const size_t i = static_cast<size_t>(row * 2 + j);
      EXPECT_EQ(bad.row_index[static_cast<size_t>(bad.slots[i])], row);
      if (row == 1 || row == 3)
        EXPECT_TRUE(std::isnan(bad.weights[i])) << i;
      else
        EXPECT_TRUE(same_bits(good.weights[i], bad.weights[i])) << i;
    }
}

TEST_P(Choice, CombinesExperts) {
  Random random(43);
  for (const int n : {1, 15, 16, 130})
    for (const int top_k : {1, 2, 8}) {
      constexpr int kRows = 7;
      const std::vector<float> x = normal_values(random, static_cast<size_t>(kRows * top_k * n));
      const std::vector<int32_t> slots = atom::testing::permutation(random, kRows * top_k);
      std::vector<float> weights = normal_values(random, slots.size());
      const std::vector<float> before = normal_values(random, static_cast<size_t>(kRows * n));
      std::vector<float> expected;
      std::vector<double> bounds;
      for (int t = 0; t < kRows; ++t)
        for (int i = 0; i < n; ++i) {
          double sum = double{before[t * n + i]}, magnitude = std::abs(sum);
          for (int j = 0; j < top_k; ++j) {
            const double term =
                double{weights[t * top_k + j]} * double{x[slots[t * top_k + j] * n + i]};
            sum += term;
            magnitude += std::abs(term);
          }
          expected.push_back(static_cast<float>(sum));
          bounds.push_back((top_k + 3) * 0x1p-24 * magnitude);  // top_k + 1 terms in f32, any order
        }
      const Guarded device_x(*backend, x), device_slots(*backend, slots), w(*backend, weights);
      const Guarded y(*backend, before);
      backend->combine({.x = device_x.as<float>(),
                        .slots = device_slots.as<int32_t>(),
                        .weights = w.as<float>(),
                        .rows = kRows,
                        .top_k = top_k,
                        .n = n,
                        .y = y.as<float>()});
      EXPECT_TRUE(all_within(expected, y.values<float>(), bounds));
    }
}

std::vector<int32_t> draw(Backend& backend, const std::vector<float>& logits, int vocabulary,
                          const std::vector<SampleRule>& rules) {
  const Guarded x(backend, logits);
  std::vector<int32_t> ids(rules.size(), -7);
  backend.sample({.logits = x.as<float>(),
                  .rows = static_cast<int>(rules.size()),
                  .vocabulary = vocabulary,
                  .rules = rules.data(),
                  .ids = ids.data()});
  return ids;
}

TEST_P(Choice, SamplesTheMostLikelyAtTemperatureZero) {
  Random random(44);
  for (const int vocabulary : {1, 2, 17, 1000}) {
    std::vector<float> logits = normal_values(random, static_cast<size_t>(4 * vocabulary));
    // A tie of the largest: the lower id wins.
    logits[static_cast<size_t>(vocabulary - 1)] = 50;
    logits[static_cast<size_t>(vocabulary / 2)] = 50;
    for (int i = 0; i < vocabulary; ++i) logits[static_cast<size_t>(vocabulary + i)] = -kInfinity;
    logits[static_cast<size_t>(vocabulary + vocabulary - 1)] = -3e38f;
    for (int i = 0; i < vocabulary; ++i) logits[static_cast<size_t>(2 * vocabulary + i)] = 0.25f;
    logits[static_cast<size_t>(3 * vocabulary + vocabulary / 2)] = kNaN;
    const std::vector<int32_t> ids = draw(*backend, logits, vocabulary, std::vector<SampleRule>(4));
    EXPECT_EQ(ids[0], vocabulary / 2);
    EXPECT_EQ(ids[1], vocabulary - 1);
    EXPECT_EQ(ids[2], 0);
    EXPECT_EQ(ids[3], -1);
  }
}

TEST_P(Choice, SamplesByHand) {
  // Probabilities 1/8, 1/2, 1/8, 1/4 at temperature 1; from the largest down: ids 1, 3, 0, 2.
  const float l = std::log(2.0f);
  const std::vector<float> one = {-3 * l, -l, -3 * l, -2 * l};
  struct Draw {
    SampleRule rule;
    int32_t id;
  };
  const std::vector<Draw> draws = {
      {{.temperature = 1, .uniform = 0}, 1},
      {{.temperature = 1, .uniform = 0.499}, 1},
      {{.temperature = 1, .uniform = 0.501}, 3},
      {{.temperature = 1, .uniform = 0.749}, 3},
      {{.temperature = 1, .uniform = 0.751}, 0},
      {{.temperature = 1, .uniform = 0.874}, 0},
      {{.temperature = 1, .uniform = 0.876}, 2},
      {{.temperature = 1, .uniform = 0x1.fffffffffffffp-1}, 2},
      {{.temperature = 1, .top_k = 1, .uniform = 0.999}, 1},
      {{.temperature = 1, .top_k = 2, .uniform = 0.66}, 1},
      {{.temperature = 1, .top_k = 2, .uniform = 0.67}, 3},
      {{.temperature = 1, .top_k = 9, .uniform = 0.9}, 2},
      {{.temperature = 1, .top_p = 0.01f, .uniform = 0.999}, 1},
      {{.temperature = 1, .top_p = 0.49f, .uniform = 0.999}, 1},
      {{.temperature = 1, .top_p = 0.51f, .uniform = 0.999}, 3},
      {{.temperature = 1, .top_p = 0.8f, .uniform = 0.999}, 0},
      {{.temperature = 1, .top_p = 0.9f, .uniform = 0.999}, 2},
      {{.temperature = 1, .min_p = 0.51f, .uniform = 0.999}, 1},  // 1, 1/4, 1/2, 1/4 of the first
      {{.temperature = 1, .min_p = 0.49f, .uniform = 0.66}, 1},
      {{.temperature = 1, .min_p = 0.49f, .uniform = 0.67}, 3},
      {{.temperature = 1, .min_p = 0.24f, .uniform = 0.999}, 2},
      {{.temperature = 1, .min_p = 1, .uniform = 0.999}, 1},
      {{.temperature = 2, .min_p = 0.51f, .uniform = 0.999}, 3},  // after temperature
      {{.temperature = 1, .top_k = 1, .min_p = 0.24f, .uniform = 0.999}, 1},
      {{.temperature = 1, .min_p = 0.49f, .top_p = 0.6f, .uniform = 0.999},
       1},  // 2/3 of what is left
      {{.temperature = 1, .min_p = 0.49f, .top_p = 0.7f, .uniform = 0.999}, 3},
      {{.temperature = 0.5f, .uniform = 0.72}, 1},  // 16/22, 4/22, 1/22, 1/22
      {{.temperature = 0.5f, .uniform = 0.74}, 3},
      {{.temperature = 1e-6f, .uniform = 0.999}, 1},
  };
  std::vector<float> logits;
  std::vector<SampleRule> rules;
  std::vector<int32_t> expected;
  for (const Draw& d : draws) {
    logits.insert(logits.end(), one.begin(), one.end());
    rules.push_back(d.rule);
    expected.push_back(d.id);
  }
  EXPECT_EQ(draw(*backend, logits, 4, rules), expected);
}

TEST_P(Choice, SamplesAsTheReferenceDoes) {
  Random random(45);
  for (const int vocabulary : {1, 5, 512, 4099, 40001}) {
    std::vector<float> logits;
    std::vector<SampleRule> rules;
    for (int row = 0; row < (vocabulary > 10000 ? 16 : 64); ++row) {
      for (int i = 0; i < vocabulary; ++i)
        logits.push_back(row % 8 == 7   ? static_cast<float>(between(random, -4, 4))
                         : row % 8 == 5 ? static_cast<float>(10 + 1e-3 * random.normal())  // flat
                                        : static_cast<float>(3 * random.normal()));
      rules.push_back({.temperature = row % 4 == 0 ? 0.0f : 0.25f * static_cast<float>(row % 7 + 1),
                       .top_k = row % 3 == 0 ? 0 : between(random, 1, 60),
                       .min_p = row % 6 < 4 ? 0.0f : 0.2f * static_cast<float>(random.uniform()),
                       .top_p = row % 5 == 0 ? 1.0f : static_cast<float>(random.uniform()),
                       .uniform = random.uniform()});
    }
    logits[static_cast<size_t>(5 * vocabulary)] = -1e4f;  // the others in few bins
    for (const int row : {3, 11})
      logits[static_cast<size_t>(row * vocabulary + vocabulary / 2)] = kNaN;
    const std::vector<int32_t> ids = draw(*backend, logits, vocabulary, rules);
    EXPECT_EQ(draw(*reference, logits, vocabulary, rules), ids);
    EXPECT_EQ(ids[3], -1);
    EXPECT_EQ(ids[11], -1);
  }
}

TEST_P(Choice, EditsOnlyTheLogitsThatAreNamed) {
  const std::vector<float> logits = {2, -2, 0, 1, 5, 6, 7, 8, -1, 4, 0.5f, 3};  // 3 rows of 4
  const Guarded data(*backend, logits);
  const LogitEdit edits[] = {{.row = 0, .id = 0, .factor = 4, .add = 1},
                             {.row = 0, .id = 1, .factor = 4, .add = 1},
                             {.row = 2, .id = 3, .add = -kInfinity},
                             {.row = 2, .id = 0, .add = 0.25f}};
  backend->edit_logits(data.as<float>(), 4, edits);
  const std::vector<float> expected = {1.5f, -7, 0, 1, 5, 6, 7, 8, -0.75f, 4, 0.5f, -kInfinity};
  EXPECT_TRUE(same_bits(expected, data.values<float>()));
  const std::vector<SampleRule> greedy(3);
  std::vector<int32_t> ids(3);
  backend->sample({.logits = data.as<float>(),
                   .rows = 3,
                   .vocabulary = 4,
                   .rules = greedy.data(),
                   .ids = ids.data()});
  EXPECT_EQ(ids, (std::vector<int32_t>{0, 3, 1}));
}

TEST_P(Choice, ScoresTargets) {
  Random random(46);
  for (const int vocabulary : {1, 3, 1000}) {
    constexpr int kRows = 5;
    std::vector<float> logits = normal_values(random, static_cast<size_t>(kRows * vocabulary), 10);
    for (int i = 0; i < vocabulary; ++i) logits[static_cast<size_t>(2 * vocabulary + i)] += 1e6f;
    logits[static_cast<size_t>(4 * vocabulary)] = kNaN;
    std::vector<int32_t> targets;
    for (int row = 0; row < kRows; ++row) targets.push_back(between(random, 0, vocabulary - 1));
    std::vector<double> got(kRows, -7);
    const Guarded x(*backend, logits);
    backend->sample({.logits = x.as<float>(),
                     .rows = kRows,
                     .vocabulary = vocabulary,
                     .targets = targets.data(),
                     .log_probabilities = got.data()});
    for (int row = 0; row < kRows - 1; ++row) {
      const float* l = logits.data() + row * vocabulary;
      const double top = double{*std::max_element(l, l + vocabulary)};
      double mass = 0;
      for (int i = 0; i < vocabulary; ++i) mass += std::exp(double{l[i]} - top);
      const double expected = double{l[targets[row]]} - top - std::log(mass);
      // In f64, though exp may be a polynomial: far below the seventh digit of a perplexity.
      EXPECT_NEAR(got[row], expected, 1e-9 * (1 + std::abs(expected))) << row;
    }
    EXPECT_TRUE(std::isnan(got[kRows - 1]));
  }
}

INSTANTIATE_TEST_SUITE_P(All, Choice, ::testing::ValuesIn(candidates()), candidate_name);

}  // namespace
}  // namespace atom::backend
