// Two blocks of logits, and their comparison as the definition says it.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "eval/compare_logits.h"
#include "testing/random_data.h"

namespace atom::eval {

// Two blocks of logits and the tokens that follow.
struct Blocks {
  int vocabulary = 0;
  std::vector<float> a, b;  // [targets, vocabulary]
  std::vector<int32_t> targets;

  LogitsPair pair() const {
    return {.a = a.data(),
            .b = b.data(),
            .rows = static_cast<int>(targets.size()),
            .vocabulary = vocabulary,
            .targets = targets.data(),
            .window = 7,
            .first = 100};
  }
  std::vector<RowComparison> compare(int threads = 2) const {
    Executor executor({.threads = threads});
    std::vector<RowComparison> rows(targets.size());
    compare_logits(pair(), executor, rows);
    return rows;
  }
  Blocks swapped() const { return {.vocabulary = vocabulary, .a = b, .b = a, .targets = targets}; }
};

inline Blocks random_blocks(int rows, int vocabulary) {
  Random random(11);
  const size_t size = static_cast<size_t>(rows) * vocabulary;
  Blocks blocks = {.vocabulary = vocabulary,
                   .a = testing::normal_values(random, size, 4),
                   .b = testing::normal_values(random, size, 0.5),
                   .targets = {}};
  for (size_t i = 0; i < size; ++i) blocks.b[i] += blocks.a[i];
  for (int row = 0; row < rows; ++row)
    blocks.targets.push_back(testing::between(random, 0, vocabulary - 1));
  return blocks;
}

// Softmax by its definition, without any care for large logits.
inline std::vector<double> softmax(const float* logits, int vocabulary) {
  std::vector<double> p(vocabulary);
  double mass = 0;
  for (int id = 0; id < vocabulary; ++id) mass += p[id] = std::exp(double{logits[id]});
  for (double& value : p) value /= mass;
  return p;
}

inline RowComparison by_definition(const Blocks& blocks, int row) {
  const size_t begin = static_cast<size_t>(row) * blocks.vocabulary;
  const std::vector<double> p = softmax(blocks.a.data() + begin, blocks.vocabulary);
  const std::vector<double> q = softmax(blocks.b.data() + begin, blocks.vocabulary);
  RowComparison result = {.log_probability_a = std::log(p[blocks.targets[row]]),
                          .log_probability_b = std::log(q[blocks.targets[row]]),
                          .same_top = std::max_element(p.begin(), p.end()) - p.begin() ==
                                      std::max_element(q.begin(), q.end()) - q.begin()};
  for (int id = 0; id < blocks.vocabulary; ++id) result.kld += p[id] * std::log(p[id] / q[id]);
  return result;
}

// Sums of some thousand terms below 100 in f64: 100 * 2^-53 * 4096 at the very most.
constexpr double kRounding = 1e-10;

}  // namespace atom::eval
