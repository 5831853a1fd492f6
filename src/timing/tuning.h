// Which of a backend's kernels is the fastest for a linear, by measurement.
//
//   const auto tuner = backend.linear_tuner();
//   LinearTuning tuning(backend, *tuner, options);
//   if (const auto tuned = tuning.tune(linear, 16)) ... tuned->after ...
//   write_file_atomically(path, tuner->file());
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>

#include "backend/backend.h"
#include "model/config.h"
#include "timing/linear_op.h"
#include "timing/random_data.h"
#include "timing/rounds.h"

namespace atom::timing {

struct TunedLinear {
  int n = 0, k = 0, rows = 0;
  int choices = 0;
  std::string before, after;  // in the backend's words
  Timing before_time, after_time;
};

// The one to keep: of choices timed in the same rounds the fastest; the first, which is in use, if it is within 1 % of it.
int choose(std::span<const Timing> times);

class LinearTuning {
 public:
  // Both outlive it.
  LinearTuning(backend::Backend& backend, backend::LinearTuner& tuner, const RoundOptions& options)
      : backend_(backend), tuner_(tuner), options_(options) {}

  // Times all choices briefly, then the best of them and the one in use in `options`' rounds, and has the tuner keep the
  // fastest. Nothing: there is no choice. The linear's rows are changed.
  std::optional<TunedLinear> tune(LinearOp& linear, int rows);

 private:
  std::vector<Timing> time(const LinearOp& linear, std::span<const int> choices, float* y,
                           const RoundOptions& options);

  backend::Backend& backend_;
  backend::LinearTuner& tuner_;
  RoundOptions options_;
};

// The head of a model, in f16, as a linear of its own.
std::unique_ptr<LinearOp> make_head(backend::Backend& backend, const model::ModelConfig& config,
                                    RandomData& data, size_t rotated);

}  // namespace atom::timing
