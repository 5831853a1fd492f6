#include "engine/logits.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

namespace atom::engine {

void append_edits(const Sequence& sequence, std::span<const int> eos_ids, int row,
                  std::vector<backend::LogitEdit>& edits) {
  const SamplingOptions& s = sequence.request.sampling;
  std::map<int32_t, float> added;  // to ids besides penalties
  for (const auto& [id, bias] : s.logit_bias) added[id] += bias;
  if (!s.ignore_eos && sequence.generated() < s.min_tokens) {
    for (const int id : eos_ids) added[id] = -std::numeric_limits<float>::infinity();
    for (const int32_t id : s.stop_ids) added[id] = -std::numeric_limits<float>::infinity();
  }
  // One edit of each id, so that factors come before sums.
  for (const auto& [id, count] : sequence.seen) {
    float add = -s.frequency_penalty * static_cast<float>(count);
    if (count > 0) add -= s.presence_penalty;
    if (const auto more = added.find(id); more != added.end()) {
      add += more->second;
      added.erase(more);
    }
    if (s.repetition_penalty != 1 || add != 0)
      edits.push_back({.row = row, .id = id, .factor = s.repetition_penalty, .add = add});
  }
  for (const auto& [id, add] : added) edits.push_back({.row = row, .id = id, .add = add});
}

Logprobs logprobs_of(std::span<const float> logits, int32_t id, int count) {
  const float own = logits[static_cast<size_t>(id)];
  const float largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  int above = 0;
  for (const float logit : logits) {
    sum += std::exp(double{logit} - double{largest});
    above += logit > own;
  }
  const double log_sum = double{largest} + std::log(sum);
  const auto logprob = [&](int32_t of) {
    return Logprob{of, static_cast<float>(double{logits[static_cast<size_t>(of)]} - log_sum)};
  };
  Logprobs out{.of = logprob(id), .rank = above + 1, .most = {}};
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto wanted = std::min(order.size(), static_cast<size_t>(count));
  const auto likelier = [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  };
  if (std::isfinite(log_sum)) {  // NaN has no order
    std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(wanted),
                      order.end(), likelier);
    for (size_t i = 0; i < wanted; ++i) out.most.push_back(logprob(order[i]));
  }
  return out;
}

}  // namespace atom::engine
