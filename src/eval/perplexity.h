// Perplexity of a model on a text, as docs/accuracy.md defines it: the ids of the whole text in
// consecutive windows of `context` tokens (the last partial one dropped), each on its own; per
// window the mean NLL of the context - 1 predicted tokens; perplexity = exp(mean over windows).
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "model/weights.h"

namespace atom::eval {

struct PerplexityOptions {
  int context = 2048;
  int max_windows = 0;  // 0: all
  int max_rows = 512;   // rows per forward step; does not change the result on cpu
  std::function<void(int window, int windows, double perplexity_so_far)> progress;  // may be empty
};

struct PerplexityResult {
  double perplexity = 0;
  double nll = 0;                  // mean over windows, nats per token
  std::vector<double> window_nll;  // nats per token
  int64_t tokens = 0;              // predicted
  double seconds = 0;              // forward and scoring
};

// Error: text shorter than one window (names both lengths), context beyond what the model can take,
// an id outside the vocabulary.
PerplexityResult perplexity(const model::Model& model, std::span<const int32_t> ids,
                            const PerplexityOptions& options);

}  // namespace atom::eval
