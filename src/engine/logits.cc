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
  const std::span<const int32_t> ids = sequence.ids;
  const std::span<const int32_t> text = ids.subspan(sequence.request.prompt.size());
  std::map<int32_t, backend::LogitEdit> of;  // one of each id, so that factors come before sums
  const auto edit = [&](int32_t id) -> backend::LogitEdit& {
    return of.try_emplace(id, backend::LogitEdit{.row = row, .id = id}).first->second;
  };
  if (s.repetition_penalty != 1)
    for (const int32_t id : ids) edit(id).factor = s.repetition_penalty;
  if (s.frequency_penalty != 0)
    for (const int32_t id : text) edit(id).add -= s.frequency_penalty;
  if (s.presence_penalty != 0) {
    std::vector<int32_t> present(text.begin(), text.end());
    std::sort(present.begin(), present.end());
    present.erase(std::unique(present.begin(), present.end()), present.end());
    for (const int32_t id : present) edit(id).add -= s.presence_penalty;
  }
  for (const auto& [id, bias] : s.logit_bias) edit(id).add += bias;
  if (!s.ignore_eos && sequence.generated() < s.min_tokens) {
    for (const int id : eos_ids) edit(id).add = -std::numeric_limits<float>::infinity();
    for (const int32_t id : s.stop_ids) edit(id).add = -std::numeric_limits<float>::infinity();
  }
  for (const auto& one : of) edits.push_back(one.second);
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
