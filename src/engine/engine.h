// Continuous batching: the requests of many clients go through the model together, a step at a time.
//
//   Engine engine(model, {.max_sequences = 64});
//   engine.submit({.prompt = ids, .sampling = {.max_tokens = 100}}, [](const Event& event) { ... });
//   while (engine.step(now)) {}
//
// One thread owns an engine. On cpu and reference, what a request gets does not depend on the others: its ids are those
// of generate(), bit by bit, also after a preemption. On cuda, where a sequence's one row and its several rows have attention
// kernels that round differently, cached pages, chunks of one row and preemptions can show in the last bits.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/model_runner.h"
#include "engine/request.h"
#include "engine/scheduler.h"
#include "model/weights.h"

namespace atom::engine {

struct EngineOptions {
  int max_sequences = 64;  // in one step
  int max_rows = 512;      // of one step: newest ids and chunks of prompts
  int max_positions = 0;   // of one sequence; 0: the model's max_position_embeddings
  int pages =
      0;  // of 64 positions, for all together; 0: as many as max_sequences of max_positions fill
  int max_waiting = 1024;  // requests that wait for a place
  int64_t max_waiting_tokens = 1 << 20;
  bool prefix_cache = true;
  uint64_t hash_key = 0;         // secret, of the prefix cache; 0: drawn from the system
  int saturation_steps = 256;    // one of so many counts saturated codes; 0: none does
  bool check_each_step = false;  // the pages' integrity, else only when idle
};

struct EngineStats {
  int running = 0, waiting = 0;
  int pages = 0, pages_held = 0, pages_cached = 0;
  int64_t steps = 0, preemptions = 0;
  int64_t prompt_tokens = 0, cached_tokens = 0, generated_tokens = 0;
  std::shared_ptr<const Saturation> saturation;  // null: nothing was counted
  int step_rows = 0, step_sequences = 0;         // of the last step
  double schedule_seconds = 0;  // of all steps: to plan and commit them, and to tell the clients
};

class Engine {
 public:
  Engine(const model::Model& model, const EngineOptions& options);
  ~Engine();  // so sinks are called once more
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Error: an empty prompt, an id outside the vocabulary, more tokens than a sequence or the pages hold, options out of
  // range; each names the value and the rule. Overloaded: too many wait.
  RequestId submit(Request request, EventSink sink);
  // Its last event is sent now, its pages are free. False: no such request (any more).
  bool cancel(RequestId id);
  // Cancels all requests.
  void shutdown();
  // Schedules, runs and commits one step. `now` in seconds, for deadlines. When the device fails, so do the requests of the
  // step, and the others go on. False: there was nothing to do.
  bool step(double now = 0);

  EngineStats stats() const;
  // Requests that the last step let run for the first time.
  std::span<const RequestId> begun() const { return scheduler_.begun(); }
  const EngineOptions& options() const { return options_; }
  std::string problem() const { return scheduler_.problem(); }  // empty: pages and places add up

 private:
  void finish(RequestId id, Finish reason, const std::string& error = "");
  // False: the sink threw.
  static bool deliver(const Sequence& sequence, const Event& event);
  void expire(double now);
  void take_ids(std::span<const Chunk> sampled, std::span<NextId> ids);

  const model::Model& model_;
  EngineOptions options_;
  kv::PageAllocator pages_;
  Scheduler scheduler_;
  ModelRunner runner_;
  RequestId next_id_ = 1;
  EngineStats stats_;
};

}  // namespace atom::engine
