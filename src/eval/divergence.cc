#include "eval/divergence.h"

#include <chrono>

#include "base/error.h"
#include "eval/compare_logits.h"
#include "eval/divergence_statistics.h"
#include "eval/windows.h"

namespace atom::eval {
namespace {

// Half of perplexity's: each model has a block on its backend and a copy on the host.
constexpr int64_t kBlockBytes = int64_t{32} << 20;

// One of the two models, with its logits on the host.
class Side {
 public:
  Side(const model::Model& model, const WindowOptions& options)
      : model_(model),
        runner_(model, options),
        logits_(static_cast<size_t>(runner_.block_rows()) * model.config.vocabulary) {}

  void begin(std::span<const int32_t> ids) { runner_.begin(ids); }
  std::optional<LogitsBlock> next() {
    std::optional<LogitsBlock> block = runner_.next();
    if (block) {
      const size_t count = static_cast<size_t>(block->rows) * model_.config.vocabulary;
      model_.backend->download(logits_.data(), block->logits, count * sizeof(float));
      block->logits = logits_.data();
    }
    return block;
  }
  int block_rows() const { return runner_.block_rows(); }

 private:
  const model::Model& model_;
  WindowRunner runner_;
  std::vector<float> logits_;  // [block rows, vocabulary]
};

// Runs both models over windows with buffers that are allocated once.
class Comparer {
 public:
  Comparer(const model::Model& a, const model::Model& b, Executor& executor,
           const WindowOptions& options)
      : vocabulary_(a.config.vocabulary),
        executor_(executor),
        a_(a, options),
        b_(b, options),
        rows_(a_.block_rows()) {}

  void compare_window(int window, std::span<const int32_t> ids, DivergenceStatistics& statistics) {
    a_.begin(ids);
    b_.begin(ids);
    while (const std::optional<LogitsBlock> block = a_.next()) {
      const std::optional<LogitsBlock> other = b_.next();
      check(other && other->first == block->first && other->rows == block->rows,
            "both models give the same blocks");
      const std::span<RowComparison> rows = std::span(rows_).first(block->rows);
      compare_logits({.a = block->logits,
                      .b = other->logits,
                      .rows = block->rows,
                      .vocabulary = vocabulary_,
                      .targets = ids.data() + block->first + 1,
                      .window = window,
                      .first = block->first},
                     executor_, rows);
      statistics.add(rows);
    }
    statistics.end_window();
  }

 private:
  int vocabulary_;
  Executor& executor_;
  Side a_, b_;
  std::vector<RowComparison> rows_;
};

void validate(const model::Model& a, const model::Model& b, std::span<const int32_t> ids,
              const DivergenceOptions& options) {
  check(options.executor != nullptr, "the comparison has an executor");
  check(options.max_rows > 0 && options.max_windows >= 0, "rows and windows are not negative");
  if (a.config.vocabulary != b.config.vocabulary)
    fail("model A has a vocabulary of {} and model B one of {}, so that they do not compare",
         a.config.vocabulary, b.config.vocabulary);
  require_windows(a, "model A", ids, options.context);
  require_windows(b, "model B", ids, options.context);
}

}  // namespace

DivergenceResult divergence(const model::Model& a, const model::Model& b,
                            std::span<const int32_t> ids, const DivergenceOptions& options) {
  validate(a, b, ids, options);
  const int windows = count_windows(ids.size(), options.context, options.max_windows);
  Comparer comparer(
      a, b, *options.executor,
      {.context = options.context, .max_rows = options.max_rows, .block_bytes = kBlockBytes});
  DivergenceStatistics statistics;
  const auto start = std::chrono::steady_clock::now();
  for (int window = 0; window < windows; ++window) {
    const size_t begin = static_cast<size_t>(window) * options.context;
    comparer.compare_window(window, ids.subspan(begin, options.context), statistics);
    if (options.progress) options.progress(window + 1, windows, statistics.mean_kld());
  }
  DivergenceResult result = statistics.result();
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace atom::eval
