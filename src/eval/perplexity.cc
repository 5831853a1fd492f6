#include "eval/perplexity.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "base/error.h"
#include "kv/pool.h"
#include "model/forward.h"

namespace atom::eval {
namespace {

constexpr int kScoredRows = 256;                     // rows whose logits exist at a time, at most
constexpr int64_t kLogitsBytes = int64_t{64} << 20;  // and the memory they may take

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Scores windows one after the other with buffers that are allocated once.
class Scorer {
 public:
  Scorer(const model::Model& model, int context, int max_rows)
      : model_(model),
        context_(context),
        rows_(std::min(max_rows, context)),
        scored_rows_(scored_rows(model.config.vocabulary, rows_)),
        forward_(model.config, *model.backend, {.max_rows = rows_, .max_positions = context}),
        pool_(make_pool(model, context)),
        pages_(model::consecutive_pages(0, pool_.pages())),
        h_(model.backend->allocate(sizeof(float) * rows_ * model.config.hidden)),
        logits_(model.backend->allocate(sizeof(float) * scored_rows_ * model.config.vocabulary)),
        log_probabilities_(scored_rows_) {}

  // Mean NLL of ids[1 ..] in nats; ids.size() == context.
  double window_nll(std::span<const int32_t> ids) {
    double sum = 0;  // row by row, so that the step size does not change a bit
    for (int begin = 0; begin < context_; begin += rows_) {
      const int rows = std::min(rows_, context_ - begin);
      run(ids, begin, rows);
      sum = score(ids, begin, std::min(rows, context_ - 1 - begin), sum);
    }
    return sum / (context_ - 1);
  }

 private:
  static int scored_rows(int vocabulary, int rows) {
    const int64_t fit = kLogitsBytes / (int64_t{4} * vocabulary);
    return static_cast<int>(std::clamp<int64_t>(fit, 1, std::min(kScoredRows, rows)));
  }

  static kv::Pool make_pool(const model::Model& model, int context) {
    std::vector<format::KvLayout> layouts;
    for (const format::KvKind kind : model.scheme.kv)
      layouts.push_back(
          {.kind = kind, .kv_heads = model.config.kv_heads, .head_dim = model.config.head_dim});
    check(!layouts.empty(), "a model has layers");
    const int pages = kv::pages_for(context, layouts[0]);
    return kv::Pool(*model.backend, std::move(layouts), pages);
  }

  void run(std::span<const int32_t> ids, int begin, int rows) {
    const backend::SequenceStep step = {
        .row_begin = 0, .row_end = rows, .position = begin, .page_table = pages_.data()};
    float* h = h_.as<float>();
    forward_.embed(*model_.ends, ids.subspan(begin, rows), h);
    for (int layer = 0; layer < pool_.layers(); ++layer)
      forward_.layer(*model_.layers[layer], pool_, layer, {&step, 1}, rows, h);
  }

  // `sum` plus the NLL of ids[begin + 1 ...] that the first `rows` rows predict.
  double score(std::span<const int32_t> ids, int begin, int rows, double sum) {
    for (int first = 0; first < rows; first += scored_rows_) {
      const int count = std::min(scored_rows_, rows - first);
      forward_.head(*model_.ends, h_.as<float>() + int64_t{first} * model_.config.hidden, count,
                    logits_.as<float>());
      model_.backend->sample({.logits = logits_.as<float>(),
                              .rows = count,
                              .vocabulary = model_.config.vocabulary,
                              .targets = ids.data() + begin + first + 1,
                              .log_probabilities = log_probabilities_.data()});
      for (int row = 0; row < count; ++row) sum -= log_probabilities_[row];
    }
    return sum;
  }

  const model::Model& model_;
  int context_;
  int rows_;
  int scored_rows_;
  model::Forward forward_;
  kv::Pool pool_;
  std::vector<int32_t> pages_;
  backend::Buffer h_;       // f32 [rows, hidden]
  backend::Buffer logits_;  // f32 [scored rows, vocabulary]
  std::vector<double> log_probabilities_;
};

void validate(const model::Model& model, std::span<const int32_t> ids,
              const PerplexityOptions& options) {
  check(options.max_rows > 0 && options.max_windows >= 0, "rows and windows are not negative");
  if (options.context < 2) fail("a context of {} tokens predicts nothing", options.context);
  if (options.context > model.config.max_positions)
    fail("a context of {} tokens exceeds the model's max_position_embeddings of {}",
         options.context, model.config.max_positions);
  if (ids.size() < static_cast<size_t>(options.context))
    fail("the text has {} tokens, fewer than one window of {}", ids.size(), options.context);
  for (const int32_t id : ids)
    if (id < 0 || id >= model.config.vocabulary)
      fail("token id {} of the text is outside the model's vocabulary of {}", id,
           model.config.vocabulary);
}

}  // namespace

PerplexityResult perplexity(const model::Model& model, std::span<const int32_t> ids,
                            const PerplexityOptions& options) {
  validate(model, ids, options);
  size_t windows = ids.size() / options.context;
  if (options.max_windows > 0) windows = std::min<size_t>(windows, options.max_windows);

  PerplexityResult result;
  Scorer scorer(model, options.context, options.max_rows);
  const auto start = std::chrono::steady_clock::now();
  double sum = 0;
  for (size_t window = 0; window < windows; ++window) {
    const double nll = scorer.window_nll(ids.subspan(window * options.context, options.context));
    if (!std::isfinite(nll))
      fail("window {} of the text: the model gives logits that are not finite", window);
    sum += nll;
    result.window_nll.push_back(nll);
    if (options.progress)
      options.progress(static_cast<int>(window + 1), static_cast<int>(windows),
                       std::exp(sum / static_cast<double>(window + 1)));
  }
  result.seconds = seconds_since(start);
  result.nll = sum / static_cast<double>(windows);
  result.perplexity = std::exp(result.nll);
  result.tokens = static_cast<int64_t>(windows) * (options.context - 1);
  return result;
}

}  // namespace atom::eval
