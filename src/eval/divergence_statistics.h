// Collects the comparisons of tokens, window by window, into the figures of divergence.h.
//
//   DivergenceStatistics statistics;
//   for (each window) { statistics.add(rows); ... statistics.end_window(); }
//   DivergenceResult result = statistics.result();
//
// For src/eval only. Keeps one number per token (percentiles are exact) and seven per window.
#pragma once

#include <span>
#include <vector>

#include "eval/compare_logits.h"
#include "eval/divergence.h"

namespace atom::eval {

class DivergenceStatistics {
 public:
  void add(std::span<const RowComparison> rows);  // of the current window
  void end_window();                              // all windows have the same number of rows
  double mean_kld() const;                        // over the windows that ended

  // At least one window ended. `seconds` is left 0.
  DivergenceResult result() const;

 private:
  // Of one window: sums while it lasts, means once it ended.
  struct Window {
    double kld = 0;
    double same_top = 0;
    double dp = 0;
    double squared_dp = 0;
    double nll_a = 0;
    double nll_b = 0;
    double nll_difference = 0;  // B - A
  };
  std::vector<double> means(double Window::*figure) const;

  Window current_;
  std::vector<Window> windows_;
  std::vector<double> klds_;  // of all tokens
  size_t window_tokens_ = 0;  // of a window
};

}  // namespace atom::eval
