#include "timing/throughput.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>
#include <vector>

#include "base/error.h"
#include "engine/engine.h"
#include "timing/memory.h"

namespace atom::timing {
namespace {

using Clock = std::chrono::steady_clock;
double since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

int pages_of(int positions) { return kv::pages_for(positions, {}); }

// Requests in an engine, counted.
class Loop {
 public:
  Loop(const model::Model& model, const SampleClock& clock, const ThroughputOptions& options)
      : options_(options),
        clock_(clock),
        vocabulary_(static_cast<uint64_t>(model.config.vocabulary)),
        random_(options.seed),
        engine_(model, {.max_sequences = options.batch.sequences,
                        .max_rows = options.batch.sequences + options.prompt_rows,
                        .max_positions = options.trace.most_positions(),
                        .pages = options.batch.pages,
                        .max_waiting = 1 << 30,
                        .max_waiting_tokens = int64_t{1} << 60,
                        .prefix_cache = false}) {}

  Random& random() { return random_; }

  // `first`: of those that fill the engine.
  void submit(const Lengths& lengths, bool first = false) {
    std::vector<int32_t> prompt(static_cast<size_t>(lengths.prompt));
    for (int32_t& id : prompt) id = static_cast<int32_t>(random_.below(vocabulary_));
    engine::SamplingOptions sampling;
    sampling.temperature = options_.temperature;
    sampling.seed = random_.next();
    sampling.max_tokens = lengths.generated;
    sampling.ignore_eos = true;
    if (first) ++unstarted_;
    engine_.submit(
        {.prompt = std::move(prompt), .sampling = sampling, .cache_salt = "", .deadline = {}},
        [this, lengths, first, done = 0](const engine::Event& event) mutable {
          if (first && done == 0) --unstarted_;
          count(lengths, first, done++, event);
        });
  }

  // False: nothing is left to do.
  bool step() {
    const int64_t positions = positions_;
    const auto begin = Clock::now();
    if (!engine_.step()) return false;
    const double seconds = since(begin);
    const engine::EngineStats stats = engine_.stats();
    running_ += stats.step_sequences;
    if (stats.step_rows == stats.step_sequences) {
      decode_steps_.push_back(seconds);
      decode_sequences_ += stats.step_sequences;
      // `positions` is also of those that wait anew; a share of them is the step's.
      decode_positions_ += static_cast<double>(positions) * stats.step_sequences /
                           std::max(stats.running + stats.waiting, stats.step_sequences);
    }
    if (options_.between) options_.between();
    return true;
  }
  // Requests that ended since the last call.
  int take_ended() { return std::exchange(ended_, 0); }
  // The first prompts are computed, those that there is room for: others take no rows from a step that has only texts.
  bool is_filled() const {
    const engine::EngineStats stats = engine_.stats();
    return unstarted_ == 0 || stats.step_rows == stats.step_sequences;
  }

  // Counts from here on.
  void begin() {
    before_ = engine_.stats();
    sampled_before_ = clock_.seconds();
    counted_ = {};
    decode_steps_.clear();
    running_ = decode_sequences_ = decode_positions_ = 0;
    begin_ = Clock::now();
  }
  double seconds() const { return since(begin_); }
  int64_t steps() const { return engine_.stats().steps - before_.steps; }

  Throughput result() {
    Throughput out = counted_;
    const engine::EngineStats now = engine_.stats();
    out.seconds = seconds();
    out.steps = steps();
    out.preemptions = now.preemptions - before_.preemptions;
    out.schedule_seconds = now.schedule_seconds - before_.schedule_seconds;
    out.sample_seconds = clock_.seconds() - sampled_before_;
    out.running = running_ / static_cast<double>(std::max<int64_t>(out.steps, 1));
    if (decode_steps_.empty()) return out;
    const auto middle =
        decode_steps_.begin() + static_cast<std::ptrdiff_t>(decode_steps_.size() / 2);
    std::nth_element(decode_steps_.begin(), middle, decode_steps_.end());
    out.decode_seconds = *middle;
    out.decode_sequences = decode_sequences_ / static_cast<double>(decode_steps_.size());
    out.decode_positions = decode_positions_ / decode_sequences_;
    return out;
  }

 private:
  // The event `done` ids after the first. The prompts of the first requests stand for work before the time.
  void count(const Lengths& lengths, bool first, int done, const engine::Event& event) {
    if (event.finish == engine::Finish::kCancelled) return;  // the end of the loop
    if (event.finish == engine::Finish::kError) error_ = event.error;
    if (event.id) {
      ++counted_.generated_tokens;
      ++positions_;
    }
    if (done == 0) {
      if (!first) counted_.prompt_tokens += lengths.prompt;
      positions_ += lengths.prompt;
    }
    if (event.finish == engine::Finish::kNot) return;
    positions_ -= lengths.prompt + lengths.generated;
    ++ended_;
  }

 public:
  void require_no_error() const {
    if (!error_.empty()) fail("a request of the trace failed: {}", error_);
  }

 private:
  const ThroughputOptions& options_;
  const SampleClock& clock_;
  uint64_t vocabulary_;
  Random random_;
  int unstarted_ = 0;  // of the first
  int ended_ = 0;
  int64_t positions_ = 0;  // of sequences that have begun their texts
  Throughput counted_;
  double running_ = 0, decode_sequences_ = 0, decode_positions_ = 0;
  std::vector<double> decode_steps_;
  std::string error_;
  engine::EngineStats before_;
  double sampled_before_ = 0;
  Clock::time_point begin_;
  engine::Engine engine_;  // ends first: its end is told to the others
};

Throughput whole_trace(Loop& loop, const ThroughputOptions& options) {
  for (int i = 0; i < options.requests; ++i) loop.submit(options.trace.draw(loop.random()));
  loop.begin();
  while (loop.step()) loop.require_no_error();
  return loop.result();
}

Throughput at_work(Loop& loop, const ThroughputOptions& options) {
  constexpr int kMoreSteps =
      4;  // the second of equal steps is recorded, those after it are replayed
  constexpr int kLeastSteps = 16;
  const auto step = [&] {
    loop.step();
    loop.require_no_error();
    for (int ended = loop.take_ended(); ended > 0; --ended)
      loop.submit(options.trace.draw(loop.random()));
  };
  for (int i = 0; i < options.batch.sequences; ++i)
    loop.submit(options.trace.in_progress(loop.random()), true);
  do step();
  while (!loop.is_filled());
  for (int i = 0; i < kMoreSteps; ++i) step();
  loop.begin();
  while (loop.seconds() < options.seconds || loop.steps() < kLeastSteps) step();
  return loop.result();
}

}  // namespace

void SampleClock::sample(const backend::SampleArgs& args) {
  inner().synchronize();
  const auto begin = Clock::now();
  inner().sample(args);
  seconds_ += since(begin);
}

MemoryUse memory_use(const model::ModelConfig& config, const model::Scheme& scheme,
                     double float_bytes) {
  const double ends = 2 * float_bytes * config.vocabulary * config.hidden;  // embedding and head
  MemoryUse use;
  use.weights =
      static_cast<int64_t>(config.layers * layer_bytes(config, scheme, float_bytes) + ends);
  for (const format::KvKind kind : scheme.kv) {
    const format::KvLayout layout = {
        .kind = kind, .kv_heads = config.kv_heads, .head_dim = config.head_dim};
    use.page += layout.page_bytes();
    if (scheme.open_page && format::has_int4_side(kind))
      use.open_page += layout.of_open_page().page_bytes();
  }
  return use;
}

Batch published_batch(const MemoryUse& use, int64_t budget, int reserved) {
  const int each = pages_of(reserved);
  const int64_t of_one = each * use.page + use.open_page;
  Batch batch;
  for (int64_t n = 1; n <= kMostSequences && use.weights + n * of_one <= budget; n *= 2)
    batch = {static_cast<int>(n), static_cast<int>(n) * each, use.weights + n * of_one};
  return batch;
}

Batch unrestricted_batch(const MemoryUse& use, int64_t budget, const Trace& trace) {
  const Occupancy of_one = occupancy(trace, format::KvLayout{}.tokens);
  const int64_t most_pages = pages_of(trace.most_positions());
  Batch batch;
  for (int n = 1; n <= kMostSequences; ++n) {
    const int64_t left = budget - use.weights - n * use.open_page;
    const int64_t pages = std::min(left / use.page, n * most_pages);
    const double wanted = n * of_one.pages + 2 * std::sqrt(n) * of_one.pages_deviation;
    if (left < 0 || pages < most_pages ||
        static_cast<double>(pages) < std::ceil(std::min(wanted, double(n * most_pages))))
      break;
    batch = {n, static_cast<int>(pages), use.weights + n * use.open_page + pages * use.page};
  }
  return batch;
}

Throughput measure_throughput(const model::Model& model, const SampleClock& clock,
                              const ThroughputOptions& options) {
  check(model.backend == &clock, "the model is on the clock's backend");
  check(options.batch.sequences > 0, "a batch has sequences");
  Loop loop(model, clock, options);
  return options.requests > 0 ? whole_trace(loop, options) : at_work(loop, options);
}

}  // namespace atom::timing
