// What a model B (usually quantized) does to the distributions of a model A (usually its 16-bit
// source), as docs/accuracy.md defines it: over the windows and the predicted tokens of perplexity.h,
// the Kullback-Leibler divergence KL(A || B) = sum over ids of p_a (ln p_a - ln p_b) of the next
// token's distributions (Kullback and Leibler, 1951), and figures that go with it.
//
//   const DivergenceResult result =
//       divergence(*source, *quantized, ids, {.executor = &executor, .context = 2048});
//
// Both models run side by side, a block of rows at a time: the logits of a text never exist at once.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "base/executor.h"
#include "model/weights.h"

namespace atom::eval {

struct DivergenceOptions {
  Executor* executor = nullptr;  // required; compares rows in parallel, does not change the result
  int context = 2048;
  int max_windows = 0;  // 0: all
  int max_rows = 512;   // rows per forward step; does not change the result on cpu
  std::function<void(int window, int windows, double mean_kld_so_far)> progress;  // may be empty
};

// A mean over all predicted tokens, and how far it is likely off. Tokens of a window are correlated,
// so the windows are the sample: the error is the standard deviation of the means of the windows
// (with n - 1) over the square root of their number, and none when there is one window.
struct Estimate {
  double value = 0;
  std::optional<double> error;
};

constexpr std::array<double, 5> kKldPercents = {50, 90, 95, 99, 99.9};

struct DivergenceResult {
  Estimate kld;  // mean of KL(A || B), nats per token
  // Percentiles of the tokens' divergences at kKldPercents; between two tokens linear.
  std::array<double, kKldPercents.size()> kld_percentiles = {};
  double max_kld = 0;
  double min_kld = 0;

  Estimate same_top;  // share of tokens for which A and B agree in the most likely one
  // p(B) - p(A) of the true next token. The error of the root of a mean square is that of the mean
  // square over twice the root (first order).
  Estimate rms_dp;
  Estimate mean_dp;

  double perplexity_a = 0;  // on the same tokens
  double perplexity_b = 0;
  Estimate ln_perplexity_ratio;  // ln(perplexity_b / perplexity_a); its error is of the differences

  std::vector<double> window_kld;  // means
  int64_t tokens = 0;              // predicted
  double seconds = 0;              // forward and comparison
};

// Error: vocabularies of different sizes, a context beyond what one of the models can take, a text
// shorter than one window (names both lengths), an id outside the vocabulary, a logit that is not
// finite (names model and position).
DivergenceResult divergence(const model::Model& a, const model::Model& b,
                            std::span<const int32_t> ids, const DivergenceOptions& options);

}  // namespace atom::eval
