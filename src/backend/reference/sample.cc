// Sampling and scoring from logits, in f64.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "backend/reference/reference_backend.h"

namespace atom::backend {
namespace {

int32_t most_likely(std::span<const float> logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// Ids from the most to the least likely, ties by id; of these min_p and top_k, then top_p of what they left; then the id at
// which the running mass exceeds uniform * mass. Ids without any mass are never drawn.
int32_t draw(std::span<const float> logits, const SampleRule& rule) {
  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::stable_sort(ids.begin(), ids.end(),
                   [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  if (rule.top_k > 0) ids.resize(std::min(ids.size(), static_cast<size_t>(rule.top_k)));

  std::vector<double> p;
  for (const int32_t id : ids)
    p.push_back(std::exp((double{logits[id]} - double{logits[ids[0]]}) / double{rule.temperature}));
  double mass = std::accumulate(p.begin(), p.end(), 0.0);
  if (!std::isfinite(mass)) return -1;  // infinite logits define no distribution
  while (p.back() == 0 || p.back() < double{rule.min_p}) p.pop_back();  // the first has 1
  ids.resize(p.size());
  mass = std::accumulate(p.begin(), p.end(), 0.0);

  if (rule.top_p < 1.0f) {
    const double wanted = double{rule.top_p} * mass;
    size_t kept = 0;
    for (mass = 0; kept < p.size() && (kept == 0 || mass < wanted); ++kept) mass += p[kept];
    ids.resize(kept);
  }
  double running = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    running += p[i];
    if (running > rule.uniform * mass) return ids[i];
  }
  return ids.back();
}

double log_probability(std::span<const float> logits, int32_t id) {
  const double largest = double{*std::max_element(logits.begin(), logits.end())};
  double mass = 0;
  for (const float x : logits) mass += std::exp(double{x} - largest);
  return double{logits[static_cast<size_t>(id)]} - largest - std::log(mass);
}

}  // namespace

void ReferenceBackend::sample(const SampleArgs& args) {
  const size_t size = static_cast<size_t>(args.vocabulary);
  for (int row = 0; row < args.rows; ++row) {
    const std::span<const float> logits(args.logits + row * size, size);
    if (args.rules != nullptr) {
      const SampleRule& rule = args.rules[row];
      const bool has_nan =
          std::any_of(logits.begin(), logits.end(), [](float x) { return std::isnan(x); });
      args.ids[row] = has_nan                    ? -1
                      : rule.temperature == 0.0f ? most_likely(logits)
                                                 : draw(logits, rule);
    }
    if (args.targets != nullptr)
      args.log_probabilities[row] = log_probability(logits, args.targets[row]);
  }
}

}  // namespace atom::backend
