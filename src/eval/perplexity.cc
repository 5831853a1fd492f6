#include "eval/perplexity.h"

#include <chrono>
#include <cmath>

#include "base/error.h"
#include "eval/windows.h"

namespace atom::eval {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Scores windows one after the other with buffers that are allocated once.
class Scorer {
 public:
  Scorer(const model::Model& model, const WindowOptions& options)
      : model_(model),
        context_(options.context),
        runner_(model, options),
        log_probabilities_(runner_.block_rows()) {}

  // Mean NLL of ids[1 ..] in nats; ids.size() == context.
  double window_nll(std::span<const int32_t> ids) {
    double sum = 0;  // row by row, so that the step size does not change a bit
    runner_.begin(ids);
    while (const std::optional<LogitsBlock> block = runner_.next()) {
      model_.backend->sample({.logits = block->logits,
                              .rows = block->rows,
                              .vocabulary = model_.config.vocabulary,
                              .targets = ids.data() + block->first + 1,
                              .log_probabilities = log_probabilities_.data()});
      for (int row = 0; row < block->rows; ++row) sum -= log_probabilities_[row];
    }
    return sum / (context_ - 1);
  }

 private:
  const model::Model& model_;
  int context_;
  WindowRunner runner_;
  std::vector<double> log_probabilities_;
};

}  // namespace

PerplexityResult perplexity(const model::Model& model, std::span<const int32_t> ids,
                            const PerplexityOptions& options) {
  check(options.max_rows > 0 && options.max_windows >= 0, "rows and windows are not negative");
  require_windows(model, "the model", ids, options.context);
  const int windows = count_windows(ids.size(), options.context, options.max_windows);

  PerplexityResult result;
  Scorer scorer(model, {.context = options.context, .max_rows = options.max_rows});
  const auto start = std::chrono::steady_clock::now();
  double sum = 0;
  for (int window = 0; window < windows; ++window) {
    const size_t begin = static_cast<size_t>(window) * options.context;
    const double nll = scorer.window_nll(ids.subspan(begin, options.context));
    if (!std::isfinite(nll))
      fail("window {} of the text: the model gives logits that are not finite", window);
    sum += nll;
    result.window_nll.push_back(nll);
    if (options.progress) options.progress(window + 1, windows, std::exp(sum / (window + 1)));
  }
  result.seconds = seconds_since(start);
  result.nll = sum / windows;
  result.perplexity = std::exp(result.nll);
  result.tokens = int64_t{windows} * (options.context - 1);
  return result;
}

}  // namespace atom::eval
