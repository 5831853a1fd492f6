// Which of a backend's kernels is the fastest for a linear, alone or in a decoding step, by measurement.
//
//   const auto tuner = backend.linear_tuner();
//   LinearTuning tuning(backend, *tuner, options);
//   if (const auto tuned = tuning.tune(linear, 16)) ... tuned->after ...
//   write_file_atomically(path, tuner->file());
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "model/config.h"
#include "timing/linear_op.h"
#include "timing/random_data.h"
#include "timing/rounds.h"
#include "timing/step.h"

namespace atom::timing {

inline constexpr const char* kHeadName = "head";

struct TunedLinear {
  std::string name;  // kSiteNames, kHeadName; "": only the caller knows
  int n = 0, k = 0, rows = 0;
  int choices = 0;
  std::string before, after;       // in the backend's words
  Timing before_time, after_time;  // of the linear, or of the step
};

// The one to keep: of choices timed in the same rounds the fastest; the first, which is in use, if it takes at most (1 +
// same) times as long.
inline constexpr double kSameLinear = 0.01, kSameStep = 0.002;
int choose(std::span<const Timing> times, double same = kSameLinear);

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

// One linear after the other of a model's layers, and its head, by what the whole step takes: alone, launches of one kernel
// fill each other's gaps, and in a step each meets another's.
class StepTuning {
 public:
  // All outlive it. announce: called with the name of the linear that comes next; may be empty.
  StepTuning(const model::Model& model, backend::LinearTuner& tuner, const RoundOptions& options,
             std::function<void(const std::string&)> announce = {})
      : model_(model), tuner_(tuner), options_(options), announce_(std::move(announce)) {}

  // As LinearTuning::tune() for each linear that has a choice; what is kept serves the next ones. Those of a mixture's
  // experts have none.
  std::vector<TunedLinear> tune(const StepShape& shape);

 private:
  TunedLinear tune(StepBench& bench, const std::string& name, const backend::PackedLinear& weight,
                   int rows);
  std::vector<Timing> time(StepBench& bench, const backend::PackedLinear& weight, int rows,
                           std::span<const std::string> choices, const RoundOptions& options);

  const model::Model& model_;
  backend::LinearTuner& tuner_;
  RoundOptions options_;
  std::function<void(const std::string&)> announce_;
};

// The head of a model, in f16, as a linear of its own.
std::unique_ptr<LinearOp> make_head(backend::Backend& backend, const model::ModelConfig& config,
                                    RandomData& data, size_t rotated);

}  // namespace atom::timing
