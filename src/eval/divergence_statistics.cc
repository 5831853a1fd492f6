#include "eval/divergence_statistics.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace atom::eval {
namespace {

double mean(std::span<const double> values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

Estimate estimate(std::span<const double> window_means) {
  Estimate result = {.value = mean(window_means), .error = std::nullopt};
  const double windows = static_cast<double>(window_means.size());
  if (window_means.size() < 2) return result;
  double squares = 0;
  for (const double value : window_means)
    squares += (value - result.value) * (value - result.value);
  result.error = std::sqrt(squares / (windows - 1) / windows);
  return result;
}

Estimate root(const Estimate& square) {
  Estimate result = {.value = std::sqrt(square.value), .error = square.error};
  if (square.error && result.value > 0) result.error = *square.error / (2 * result.value);
  return result;
}

double percentile(std::span<const double> sorted, double percent) {
  const double rank = percent / 100 * static_cast<double>(sorted.size() - 1);
  const size_t below = static_cast<size_t>(rank);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return std::lerp(sorted[below], sorted[above], rank - static_cast<double>(below));
}

}  // namespace

void DivergenceStatistics::add(std::span<const RowComparison> rows) {
  for (const RowComparison& row : rows) {
    const double dp = std::exp(row.log_probability_b) - std::exp(row.log_probability_a);
    klds_.push_back(row.kld);
    current_.kld += row.kld;
    current_.same_top += row.same_top ? 1 : 0;
    current_.dp += dp;
    current_.squared_dp += dp * dp;
    current_.nll_a -= row.log_probability_a;
    current_.nll_b -= row.log_probability_b;
    current_.nll_difference += row.log_probability_a - row.log_probability_b;
  }
}

void DivergenceStatistics::end_window() {
  if (windows_.empty()) window_tokens_ = klds_.size();
  check(window_tokens_ > 0 && klds_.size() == window_tokens_ * (windows_.size() + 1),
        "all windows have the same number of tokens");
  const double tokens = static_cast<double>(window_tokens_);
  for (double Window::*figure : {&Window::kld, &Window::same_top, &Window::dp, &Window::squared_dp,
                                 &Window::nll_a, &Window::nll_b, &Window::nll_difference})
    current_.*figure /= tokens;
  windows_.push_back(current_);
  current_ = {};
}

std::vector<double> DivergenceStatistics::means(double Window::*figure) const {
  std::vector<double> result;
  for (const Window& window : windows_) result.push_back(window.*figure);
  return result;
}

double DivergenceStatistics::mean_kld() const { return mean(means(&Window::kld)); }

DivergenceResult DivergenceStatistics::result() const {
  check(!windows_.empty(), "a window ended");
  DivergenceResult result;
  result.window_kld = means(&Window::kld);
  result.kld = estimate(result.window_kld);
  result.same_top = estimate(means(&Window::same_top));
  result.rms_dp = root(estimate(means(&Window::squared_dp)));
  result.mean_dp = estimate(means(&Window::dp));
  result.perplexity_a = std::exp(mean(means(&Window::nll_a)));
  result.perplexity_b = std::exp(mean(means(&Window::nll_b)));
  result.ln_perplexity_ratio = estimate(means(&Window::nll_difference));
  result.tokens = static_cast<int64_t>(klds_.size());

  std::vector<double> sorted = klds_;
  std::sort(sorted.begin(), sorted.end());
  for (size_t i = 0; i < kKldPercents.size(); ++i)
    result.kld_percentiles[i] = percentile(sorted, kKldPercents[i]);
  result.min_kld = sorted.front();
  result.max_kld = sorted.back();
  return result;
}

}  // namespace atom::eval
