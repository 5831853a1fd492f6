// Sampling and scoring: the rules go up, ids and log-probabilities come back.
#include "backend/cuda/cuda_backend.h"

namespace atom::backend::cuda {
namespace {

// Arrays of one call in one piece of device memory.
struct Draws {
  double* log_probabilities;
  DrawRule* rules;
  int32_t* ids;
  int32_t* targets;

  static size_t bytes(size_t rows) {
    return rows * (sizeof(double) + sizeof(DrawRule) + 2 * sizeof(int32_t));
  }
  Draws(void* memory, size_t rows)
      : log_probabilities(static_cast<double*>(memory)),
        rules(reinterpret_cast<DrawRule*>(log_probabilities + rows)),
        ids(reinterpret_cast<int32_t*>(rules + rows)),
        targets(ids + rows) {}
};

}  // namespace

void CudaBackend::sample(const SampleArgs& args) {
  const auto rows = static_cast<size_t>(args.rows);
  if (rows == 0) return;
  draws_.reserve(Draws::bytes(rows));
  const Draws draws(draws_.as<void>(), rows);
  SampleTask task{.logits = args.logits,
                  .rows = args.rows,
                  .vocabulary = args.vocabulary,
                  .ids = draws.ids,
                  .log_probabilities = draws.log_probabilities};
  if (args.rules != nullptr) {
    std::vector<DrawRule> rules;
    for (const SampleRule& rule : std::span(args.rules, rows))
      rules.push_back({.temperature = rule.temperature,
                       .top_k = rule.top_k,
                       .top_p = rule.top_p,
                       .uniform = rule.uniform});
    staging_.copy(draws.rules, rules.data(), rows * sizeof(DrawRule), stream_);
    masses_.reserve(rows * static_cast<size_t>(args.vocabulary) * sizeof(uint64_t));
    task.rules = draws.rules;
    task.masses = masses_.as<uint64_t>();
  }
  if (args.targets != nullptr) {
    staging_.copy(draws.targets, args.targets, rows * sizeof(int32_t), stream_);
    task.targets = draws.targets;
  }
  require(launch_sample(task, stream_), "sample");
  if (args.rules != nullptr) download(args.ids, draws.ids, rows * sizeof(int32_t));
  if (args.targets != nullptr)
    download(args.log_probabilities, draws.log_probabilities, rows * sizeof(double));
}

}  // namespace atom::backend::cuda
