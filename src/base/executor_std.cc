// The executor on std::jthread: every synchronisation is visible to ThreadSanitizer.
#ifdef ATOM_STD_EXECUTOR

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "base/affinity.h"
#include "base/executor.h"
#include "base/executor_loop.h"

namespace atom {

struct Executor::State {
  std::vector<int> cpus;  // empty: threads are not pinned
  std::mutex one_loop;    // held by the caller of parallel_for

  // One loop. `generation` names it; workers that have seen it sleep until it changes.
  std::mutex mutex;
  std::condition_variable_any started;
  std::condition_variable finished;
  uint64_t generation = 0;
  int running = 0;  // workers that have not ended the present loop
  int64_t count = 0;
  const std::function<void(int64_t, int)>* body = nullptr;
  std::exception_ptr error;
  std::atomic<int64_t> next = 0;

  std::vector<std::jthread> workers;  // last: they end before the members above

  void run_iterations(int worker);
  void work(const std::stop_token& stop, int worker);
};

void Executor::State::run_iterations(int worker) {
  const LoopMark mark;
  try {
    for (;;) {
      const int64_t i = next.fetch_add(1, std::memory_order_relaxed);
      if (i >= count) return;
      (*body)(i, worker);
    }
  } catch (...) {
    const std::lock_guard lock(mutex);
    if (!error) error = std::current_exception();
    next.store(count, std::memory_order_relaxed);
  }
}

void Executor::State::work(const std::stop_token& stop, int worker) {
  const PinnedThread pinned(cpus, worker);
  uint64_t seen = 0;
  for (;;) {
    {
      std::unique_lock lock(mutex);
      if (!started.wait(lock, stop, [&] { return generation != seen; })) return;
      seen = generation;
    }
    run_iterations(worker);
    const std::lock_guard lock(mutex);
    if (--running == 0) finished.notify_one();
  }
}

Executor::Executor(const Options& options)
    : state_(std::make_unique<State>()),
      threads_(options.threads > 0 ? options.threads : available_cpus()) {
  if (options.pin) state_->cpus = allowed_cpus();
  for (int worker = 1; worker < threads_; ++worker)
    state_->workers.emplace_back(
        [state = state_.get(), worker](std::stop_token stop) { state->work(stop, worker); });
}

Executor::~Executor() = default;

void Executor::parallel_for(int64_t count, const std::function<void(int64_t, int)>& body) {
  check(!inside_parallel_loop, "parallel_for inside a parallel_for");
  if (threads_ == 1 || count <= 1) return run_serially(count, body);
  State& state = *state_;
  const std::lock_guard loop_lock(state.one_loop);
  const PinnedThread pinned(state.cpus, 0);
  {
    const std::lock_guard lock(state.mutex);
    state.count = count;
    state.body = &body;
    state.error = nullptr;
    state.next.store(0, std::memory_order_relaxed);
    state.running = threads_ - 1;
    ++state.generation;
  }
  state.started.notify_all();
  state.run_iterations(0);
  std::unique_lock lock(state.mutex);
  state.finished.wait(lock, [&] { return state.running == 0; });
  if (state.error) std::rethrow_exception(std::exchange(state.error, nullptr));
}

}  // namespace atom

#endif  // ATOM_STD_EXECUTOR
