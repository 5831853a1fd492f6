// Tokens a second that a model serves within a budget of memory: how many sequences fit, and the engine at work on a trace.
//
//   SampleClock clock(backend);
//   const RandomModel random = make_random_model(clock, {...});
//   const MemoryUse use = memory_use(config, scheme);
//   const Batch batch = published_batch(use, 24ll << 30);
//   const Throughput t = measure_throughput(*random.model, clock, {.trace = Trace::published(2048), .batch = batch});
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "backend/forwarding.h"
#include "model/weights.h"
#include "timing/trace.h"

namespace atom::timing {

// Passes everything on, and adds up what sampling takes: it waits for the device before.
class SampleClock final : public backend::ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;
  void sample(const backend::SampleArgs& args) override;
  double seconds() const { return seconds_; }

 private:
  double seconds_ = 0;
};

// Bytes that count against a budget: weights with embedding and head, pages of the cache in all layers, and the open page that a
// sequence has. Rows of a step and a backend's scratch do not count, as in the published measurement.
struct MemoryUse {
  int64_t weights = 0;
  int64_t page = 0;       // 64 positions
  int64_t open_page = 0;  // of a sequence
};
// float_bytes: see weight_bytes().
MemoryUse memory_use(const model::ModelConfig& config, const model::Scheme& scheme,
                     double float_bytes = 2);

struct Batch {
  int sequences = 0;  // 0: not even one fits
  int pages = 0;
  int64_t bytes = 0;  // of the whole budget
};
// The largest power of two of sequences that each reserve pages for `reserved` positions.
Batch published_batch(const MemoryUse& use, int64_t budget, int reserved = 2048);
// As many sequences as the trace fills the pages with at work, two standard deviations spared; none reserves anything, and
// the engine preempts when pages run short. At most kMostSequences.
constexpr int kMostSequences = 2048;
Batch unrestricted_batch(const MemoryUse& use, int64_t budget, const Trace& trace);

struct ThroughputOptions {
  Trace trace;
  Batch batch;
  // 0: at work. The engine is filled with requests in progress (Trace::in_progress), whose prompts are computed before the time
  // begins; each that ends is replaced by a new one of the trace. Otherwise so many requests of the trace, from
  // the first to the last.
  int requests = 0;
  double seconds = 5;  // at work: at least so long, and 16 steps
  float temperature = 1;
  int prompt_rows = 512;  // of a step, beside one of each sequence
  uint64_t seed = 1;
  std::function<void()> between = {};  // after every step; may throw
};

struct Throughput {
  double seconds = 0;
  int64_t steps = 0, preemptions = 0;
  int64_t prompt_tokens = 0, generated_tokens = 0;
  double running = 0;           // sequences of a step, on average
  double schedule_seconds = 0;  // plan, commit and events of all steps
  double sample_seconds = 0;    // of all steps
  double decode_seconds = 0;    // median of the steps without a prompt; 0: there was none
  double decode_sequences = 0;  // of these, on average
  double decode_positions = 0;  // that each of their sequences has, on average

  double tokens_per_second() const {
    return static_cast<double>(prompt_tokens + generated_tokens) / seconds;
  }
  double generated_per_second() const { return static_cast<double>(generated_tokens) / seconds; }
  double seconds_per_token() const {  // from one id of a text to the next
    return generated_tokens > 0 ? seconds * running / static_cast<double>(generated_tokens) : 0;
  }
  double host_share() const { return (schedule_seconds + sample_seconds) / seconds; }
};
// The model is on `clock`. Error: a request failed.
Throughput measure_throughput(const model::Model& model, const SampleClock& clock,
                              const ThroughputOptions& options);

}  // namespace atom::timing
