// Sampling and scoring. Rules, ids and log-probabilities are read and written by the kernel where the host has them; ids for
// the next step go to device memory, too.
#include <algorithm>
#include <span>
#include <utility>

#include "backend/cuda/cuda_backend.h"
#include "base/error.h"

namespace atom::backend::cuda {
namespace {

class IdsOnTheirWay final : public PendingIds {
 public:
  IdsOnTheirWay(std::shared_ptr<DrawSlot> slot, size_t rows)
      : slot_(std::move(slot)), rows_(rows) {}
  std::span<const int32_t> wait() override {
    slot_->done.wait();
    return {slot_->ids, rows_};
  }

 private:
  std::shared_ptr<DrawSlot> slot_;
  size_t rows_;
};

}  // namespace

std::shared_ptr<DrawSlot> CudaBackend::enqueue_sample(const SampleArgs& args, int32_t* sampled) {
  const auto rows = static_cast<size_t>(args.rows);
  std::shared_ptr<DrawSlot> slot = draws_.free_slot(rows);
  SampleTask task{.logits = args.logits,
                  .rows = args.rows,
                  .vocabulary = args.vocabulary,
                  .ids = slot->ids,
                  .log_probabilities = slot->log_probabilities,
                  .sampled = sampled};
  if (args.rules != nullptr) {
    std::transform(args.rules, args.rules + rows, slot->rules, [](const SampleRule& rule) {
      return DrawRule{.temperature = rule.temperature,
                      .top_k = rule.top_k,
                      .min_p = rule.min_p,
                      .top_p = rule.top_p,
                      .uniform = rule.uniform};
    });
    task.rules = slot->rules;
  }
  if (args.targets != nullptr) {
    std::copy_n(args.targets, rows, slot->targets);
    task.targets = slot->targets;
  }
  require(launch_sample(task, stream_), "sample");
  slot->done.record(stream_);
  return slot;
}

void CudaBackend::sample(const SampleArgs& args) {
  const auto rows = static_cast<size_t>(args.rows);
  if (rows == 0) return;
  const std::shared_ptr<DrawSlot> slot = enqueue_sample(args, nullptr);
  slot->done.wait();
  if (args.rules != nullptr) std::copy_n(slot->ids, rows, args.ids);
  if (args.targets != nullptr) std::copy_n(slot->log_probabilities, rows, args.log_probabilities);
}

std::unique_ptr<PendingIds> CudaBackend::sample_ahead(const SampleArgs& args, int32_t* sampled) {
  check(args.rules != nullptr && args.targets == nullptr,
        "sampling ahead draws and does not score");
  return std::make_unique<IdsOnTheirWay>(enqueue_sample(args, sampled),
                                         static_cast<size_t>(args.rows));
}

}  // namespace atom::backend::cuda
