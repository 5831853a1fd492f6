// Two blocks of logits for the same tokens, row by row: what model B does to the distribution of
// model A.
//
//   std::vector<RowComparison> rows(pair.rows);
//   compare_logits(pair, executor, rows);
//
// For src/eval only. Softmax and sums in f64, one row on one thread and in the order of the ids: the
// result does not depend on the number of threads.
#pragma once

#include <cstdint>
#include <span>

#include "base/executor.h"

namespace atom::eval {

// Host memory. `window` and `first` only say in errors where the block lies.
struct LogitsPair {
  const float* a = nullptr;  // [rows, vocabulary]
  const float* b = nullptr;  // [rows, vocabulary]
  int rows = 0;
  int vocabulary = 0;
  const int32_t* targets = nullptr;  // [rows] ids of the true next tokens
  int window = 0;
  int first = 0;  // position in the window of the token that row 0 follows
};

struct RowComparison {
  double kld = 0;                // KL(A || B) in nats, not negative
  double log_probability_a = 0;  // of the true next token, nats
  double log_probability_b = 0;
  bool same_top = false;  // the most likely tokens agree; of equal logits the lowest id counts
};

// out.size() == rows. Error naming model, position and id of the first logit that is not finite.
void compare_logits(const LogitsPair& pair, Executor& executor, std::span<RowComparison> out);

}  // namespace atom::eval
