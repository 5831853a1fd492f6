// How long a decoding step of a model takes, where the time goes, and what the memory alone would take.
//
//   StepBench bench(*random.model, {.batch = 16, .context = 1024});
//   const StepTimes times = bench.measure({.rounds = 5});
//   const StepFloors floors = step_floors(*random.model, random.bytes, {16, 1024}, ceilings);
//
// A step is embed, layers, head and greedy sampling of a batch of sequences, whose ids go into the next step. It is
// recorded once (Backend::record) and replayed at growing positions. As in generate(), a step is enqueued before the host
// has the ids of the one before.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "kv/pool.h"
#include "model/forward.h"
#include "model/random_model.h"
#include "timing/rounds.h"
#include "timing/selected.h"

namespace atom::timing {

struct StepShape {
  int batch = 1;       // sequences, one row each
  int context = 1024;  // positions that each has before a burst's first step
};

struct StepTimes {
  Timing step;
  std::array<double, kKinds> kinds{};  // seconds of each Kind alone; 0: the step has none of it
  double sample = 0;                   // the host one sampling behind
  double replay = 0;                   // seconds of recorded steps alone, enqueued without a wait
  // What is left of the step between sampling and the next replay: what the device waits for the host.
  double idle() const { return step.best - sample - replay; }
  double gap() const;  // what is left of the step
};

class StepBench {
 public:
  // Steps of a burst, at positions context, context + 1, ...; the next burst starts over.
  static constexpr int kMostSteps = 32;

  // The model and its backend outlive this. Caches are filled with random values; page tables are shuffled.
  // between: called now and then while they are; may throw.
  StepBench(const model::Model& model, const StepShape& shape,
            const std::function<void()>& between = {});
  StepBench(const StepBench&) = delete;
  StepBench& operator=(const StepBench&) = delete;

  StepTimes measure(const RoundOptions& options);
  // Steps that are recorded behind `before`, which may change what the backend does (and is called again where a step is
  // recorded anew), in the same rounds; one Timing for each.
  std::vector<Timing> compare(std::span<const std::function<void()>> before,
                              const RoundOptions& options);
  int64_t cache_bytes() const { return pool_.bytes(); }
  // Of the last step, in host memory: [batch, vocabulary].
  std::vector<float> logits();

 private:
  std::span<const backend::SequenceStep> sequences(int position);
  void enqueue(std::span<const backend::SequenceStep> sequences);
  std::unique_ptr<backend::Recording> record(std::function<void()> before);
  void step(backend::Recording& recording);
  void sample();

  const model::Model& model_;
  StepShape shape_;
  SelectedBackend selected_;
  model::Forward forward_;
  kv::Pool pool_;
  std::vector<std::vector<int32_t>> pages_;  // of each sequence
  std::vector<backend::SequenceStep> sequences_;
  std::vector<backend::SampleRule> rules_;
  std::unique_ptr<backend::PendingIds> ids_;  // of the last step
  int position_ = 0;
  backend::Buffer h_, logits_;
  std::unique_ptr<backend::Recording> whole_;
  std::vector<std::unique_ptr<backend::Recording>> parts_;  // of each Kind, or null
};

// What a step takes when every byte is read once at the ceiling's speed and every product runs at its rate: linears of a
// layer max(bytes / read, operations / rate), the cache's bytes / read, the head's bytes / read. 0: the ceiling is unknown.
struct StepFloors {
  double linears = 0, attention = 0, head = 0;  // seconds, of all layers
  double sum() const { return linears + attention + head; }
};
StepFloors step_floors(const model::Model& model, const model::WeightBytes& bytes,
                       const StepShape& shape, const backend::Ceilings& ceilings);

}  // namespace atom::timing
