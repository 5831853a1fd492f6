#include "eval/windows.h"

#include <algorithm>

#include "base/error.h"

namespace atom::eval {
namespace {

int rows_of_block(const WindowOptions& options, int vocabulary, int step_rows) {
  const int64_t fit = options.block_bytes / (int64_t{sizeof(float)} * vocabulary);
  return static_cast<int>(std::clamp<int64_t>(fit, 1, std::min(options.block_rows, step_rows)));
}

}  // namespace

int count_windows(size_t tokens, int context, int max_windows) {
  size_t windows = tokens / context;
  if (max_windows > 0) windows = std::min<size_t>(windows, max_windows);
  return static_cast<int>(windows);
}

void require_windows(const model::Model& model, std::string_view name, std::span<const int32_t> ids,
                     int context) {
  if (context < 2) fail("a context of {} tokens predicts nothing", context);
  if (context > model.config.max_positions)
    fail("a context of {} tokens exceeds the max_position_embeddings of {}, {}", context, name,
         model.config.max_positions);
  if (ids.size() < static_cast<size_t>(context))
    fail("the text has {} tokens, fewer than one window of {}", ids.size(), context);
  for (const int32_t id : ids)
    if (id < 0 || id >= model.config.vocabulary)
      fail("token id {} of the text is outside the vocabulary of {}, {}", id, name,
           model.config.vocabulary);
}

WindowRunner::WindowRunner(const model::Model& model, const WindowOptions& options)
    : model_(model),
      context_(options.context),
      step_rows_(std::min(options.max_rows, options.context)),
      block_rows_(rows_of_block(options, model.config.vocabulary, step_rows_)),
      forward_(model.config, *model.backend,
               {.max_rows = step_rows_, .max_positions = options.context}),
      pool_(model::make_pool(model, options.context)),
      pages_(model::consecutive_pages(0, pool_.pages())),
      h_(model.backend->allocate(sizeof(float) * step_rows_ * model.config.hidden)),
      logits_(model.backend->allocate(sizeof(float) * block_rows_ * model.config.vocabulary)) {}

void WindowRunner::begin(std::span<const int32_t> ids) {
  check(ids.size() == static_cast<size_t>(context_), "a window has `context` tokens");
  ids_ = ids;
  step_begin_ = step_end_ = scored_ = 0;
}

std::optional<LogitsBlock> WindowRunner::next() {
  const int predicting = static_cast<int>(ids_.size()) - 1;
  if (scored_ >= predicting) return std::nullopt;
  if (scored_ == step_end_) step();
  const int rows = std::min({block_rows_, step_end_ - scored_, predicting - scored_});
  const float* h = h_.as<float>() + int64_t{scored_ - step_begin_} * model_.config.hidden;
  forward_.head(*model_.ends, h, rows, logits_.as<float>());
  const LogitsBlock block = {.first = scored_, .rows = rows, .logits = logits_.as<float>()};
  scored_ += rows;
  return block;
}

// The next rows of the window through all layers.
void WindowRunner::step() {
  step_begin_ = step_end_;
  step_end_ = std::min(step_begin_ + step_rows_, context_);
  const int rows = step_end_ - step_begin_;
  const backend::SequenceStep sequence = {
      .row_begin = 0, .row_end = rows, .position = step_begin_, .page_table = pages_.data()};
  float* h = h_.as<float>();
  forward_.embed(*model_.ends, ids_.subspan(step_begin_, rows), h);
  for (int layer = 0; layer < pool_.layers(); ++layer)
    forward_.layer(*model_.layers[layer], pool_, layer, {&sequence, 1}, rows, h);
}

}  // namespace atom::eval
