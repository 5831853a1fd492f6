// Windows of a text through a model, each on its own. The logits of the rows that predict a token of
// the window come in blocks; no more than one block exists at a time.
//
//   WindowRunner runner(model, {.context = 2048});
//   runner.begin(ids.subspan(window * 2048, 2048));
//   while (const std::optional<LogitsBlock> block = runner.next()) score(*block);
//
// For src/eval only. The model outlives the runner, the ids outlive their window.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "kv/pool.h"
#include "model/forward.h"
#include "model/weights.h"

namespace atom::eval {

struct WindowOptions {
  int context = 2048;
  int max_rows = 512;                       // rows per forward step
  int block_rows = 256;                     // rows of a block, at most
  int64_t block_bytes = int64_t{64} << 20;  // and its size; a block has one row at least
};

// How many windows of `context` tokens a text of `tokens` has, at most `max_windows` (0: all).
int count_windows(size_t tokens, int context, int max_windows);

// Error, which calls the model `name` ("the model"): context below 2 or beyond the model, text
// shorter than one window (names both lengths), an id outside the vocabulary.
void require_windows(const model::Model& model, std::string_view name, std::span<const int32_t> ids,
                     int context);

struct LogitsBlock {
  int first = 0;  // row i predicts token first + i + 1 of the window
  int rows = 0;
  const float* logits = nullptr;  // [rows, vocabulary] on the model's backend, until the next call
};

class WindowRunner {
 public:
  WindowRunner(const model::Model& model, const WindowOptions& options);

  void begin(std::span<const int32_t> ids);  // ids.size() == context
  // The next block; none after the context - 1 predicting rows. Where blocks begin depends on the
  // options and the vocabulary only.
  std::optional<LogitsBlock> next();
  int block_rows() const { return block_rows_; }

 private:
  void step();

  const model::Model& model_;
  int context_;
  int step_rows_;
  int block_rows_;
  model::Forward forward_;
  kv::Pool pool_;
  std::vector<int32_t> pages_;
  backend::Buffer h_;       // f32 [step rows, hidden]
  backend::Buffer logits_;  // f32 [block rows, vocabulary]
  std::span<const int32_t> ids_;
  int step_begin_ = 0;  // rows that h_ holds: [step_begin_, step_end_)
  int step_end_ = 0;
  int scored_ = 0;  // rows whose logits were given
};

}  // namespace atom::eval
