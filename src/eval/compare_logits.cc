#include "eval/compare_logits.h"

#include <cmath>

#include "base/error.h"

namespace atom::eval {
namespace {

int32_t most_likely(const float* logits, int vocabulary) {
  int32_t top = 0;
  for (int32_t id = 1; id < vocabulary; ++id)
    if (logits[id] > logits[top]) top = id;
  return top;
}

// With finite logits every member is finite; with others `kld` is not.
RowComparison compare_row(const float* a, const float* b, int vocabulary, int32_t target) {
  const int32_t top_a = most_likely(a, vocabulary), top_b = most_likely(b, vocabulary);
  const double largest_a = double{a[top_a]}, largest_b = double{b[top_b]};
  double mass_a = 0, mass_b = 0;
  double difference = 0;  // of the logits, weighted by A's masses
  for (int32_t id = 0; id < vocabulary; ++id) {
    const double logit_a = double{a[id]}, logit_b = double{b[id]};
    const double weight = std::exp(logit_a - largest_a);
    mass_a += weight;
    mass_b += std::exp(logit_b - largest_b);
    difference += weight * (logit_a - logit_b);
  }
  const double log_sum_a = largest_a + std::log(mass_a);
  const double log_sum_b = largest_b + std::log(mass_b);
  // sum of p_a (log p_a - log p_b), with log p = logit - log_sum
  const double kld = difference / mass_a - (log_sum_a - log_sum_b);
  return {.kld = kld < 0 ? 0 : kld,  // below zero by rounding only
          .log_probability_a = double{a[target]} - log_sum_a,
          .log_probability_b = double{b[target]} - log_sum_b,
          .same_top = top_a == top_b};
}

void require_finite(const LogitsPair& pair, int row, const float* logits, const char* name) {
  for (int32_t id = 0; id < pair.vocabulary; ++id)
    if (!std::isfinite(logits[id]))
      fail("{} gives token id {} a logit of {} after position {} of window {}", name, id,
           logits[id], pair.first + row, pair.window);
}

}  // namespace

void compare_logits(const LogitsPair& pair, Executor& executor, std::span<RowComparison> out) {
  check(out.size() == static_cast<size_t>(pair.rows), "one comparison per row");
  executor.parallel_for(pair.rows, [&](int64_t row, int) {
    const int64_t begin = row * pair.vocabulary;
    out[row] = compare_row(pair.a + begin, pair.b + begin, pair.vocabulary, pair.targets[row]);
  });
  for (int row = 0; row < pair.rows; ++row) {
    if (std::isfinite(out[row].kld)) continue;
    const int64_t begin = int64_t{row} * pair.vocabulary;
    require_finite(pair, row, pair.a + begin, "model A");
    require_finite(pair, row, pair.b + begin, "model B");
    check(false, "finite logits have a finite divergence");
  }
}

}  // namespace atom::eval
