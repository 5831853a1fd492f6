// Ids and log-probabilities from logits.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "backend/cpu/cpu_backend.h"

namespace atom::backend::cpu {
namespace {

// Ids from the most to the least likely, ties by id, sorted no further than they are asked for.
class RankedIds {
  auto less_likely() const {
    return [this](int32_t a, int32_t b) {
      return logits_[a] < logits_[b] || (logits_[a] == logits_[b] && a > b);
    };
  }

 public:
  RankedIds(const float* logits, int count) : logits_(logits), heap_(static_cast<size_t>(count)) {
    std::iota(heap_.begin(), heap_.end(), 0);
    std::make_heap(heap_.begin(), heap_.end(), less_likely());
  }
  bool empty() const { return heap_.empty(); }
  int32_t next() {
    std::pop_heap(heap_.begin(), heap_.end(), less_likely());
    const int32_t id = heap_.back();
    heap_.pop_back();
    return id;
  }

 private:
  const float* logits_;
  std::vector<int32_t> heap_;
};

// min_p and top_k, then top_p of what they left, then the id at which the running mass exceeds uniform * mass. Ids without any
// mass are never drawn.
int32_t draw(const float* logits, int count, float largest, const SampleRule& rule) {
  const auto weight = [&](int32_t id) {
    const double w = std::exp((double{logits[id]} - double{largest}) / double{rule.temperature});
    return w < double{rule.min_p} ? 0.0 : w;
  };
  const bool all = rule.top_k <= 0 || rule.top_k >= count;
  RankedIds ranked(logits, count);
  std::vector<int32_t> ids;
  std::vector<double> weights;
  // False: no other id has any mass.
  const auto take = [&] {
    if (ranked.empty()) return false;
    const int32_t id = ranked.next();
    const double w = weight(id);
    if (w == 0) return false;
    ids.push_back(id);
    weights.push_back(w);
    return true;
  };

  double mass = 0;
  if (all)
    for (int32_t id = 0; id < count; ++id) mass += weight(id);
  else
    for (int j = 0; j < rule.top_k && take(); ++j) mass += weights.back();
  if (!std::isfinite(mass)) return -1;  // infinite logits define no distribution

  if (rule.top_p < 1.0f) {
    const double wanted = double{rule.top_p} * mass;
    mass = 0;
    size_t kept = 0;
    for (; kept == 0 || mass < wanted; ++kept) {
      if (kept == ids.size() && !(all && take())) break;
      mass += weights[kept];
    }
    ids.resize(kept);
  }
  const bool extend = all && rule.top_p >= 1.0f;
  double running = 0;
  for (size_t i = 0;; ++i) {
    if (i == ids.size() && !(extend && take())) return ids.back();
    running += weights[i];
    if (running > rule.uniform * mass) return ids[i];
  }
}

}  // namespace

void CpuBackend::sample(const SampleArgs& args) {
  for_rows(args.rows, args.vocabulary, 0, [&](int row, std::byte*) {
    const float* logits = args.logits + int64_t{row} * args.vocabulary;
    const float largest = kernels_.largest(logits, args.vocabulary);
    if (args.rules != nullptr) {
      const SampleRule& rule = args.rules[row];
      if (std::isnan(largest))
        args.ids[row] = -1;
      else if (rule.temperature == 0.0f)
        args.ids[row] =
            static_cast<int32_t>(std::find(logits, logits + args.vocabulary, largest) - logits);
      else
        args.ids[row] = draw(logits, args.vocabulary, largest, rule);
    }
    if (args.targets != nullptr) {
      const double mass = kernels_.sum_exp(logits, args.vocabulary, largest);
      args.log_probabilities[row] =
          double{logits[args.targets[row]]} - double{largest} - std::log(mass);
    }
  });
}

}  // namespace atom::backend::cpu
