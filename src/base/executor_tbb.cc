// The executor on oneTBB; builds with ATOM_STD_EXECUTOR take executor_std.cc instead.
#ifndef ATOM_STD_EXECUTOR

#include <tbb/blocked_range.h>
#include <tbb/global_control.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>
#include <tbb/task_scheduler_observer.h>

#include <algorithm>
#include <mutex>
#include <vector>

#include "base/affinity.h"
#include "base/executor.h"
#include "base/executor_loop.h"

namespace atom {
namespace {

// Pins a thread when it takes a slot of the arena and lets it go when it leaves.
class PinObserver final : public tbb::task_scheduler_observer {
 public:
  PinObserver(tbb::task_arena& arena, std::vector<int> cpus)
      : tbb::task_scheduler_observer(arena), cpus_(std::move(cpus)) {
    observe(true);
  }
  ~PinObserver() override { observe(false); }
  void on_scheduler_entry(bool) override {
    pin_this_thread(cpus_, tbb::this_task_arena::current_thread_index());
  }
  void on_scheduler_exit(bool) override { pin_this_thread(cpus_, -1); }

 private:
  std::vector<int> cpus_;
};

}  // namespace

struct Executor::State {
  explicit State(int threads)
      : limit(tbb::global_control::max_allowed_parallelism, static_cast<size_t>(threads)),
        arena(threads, 1) {}
  tbb::global_control limit;  // without it TBB starts no more threads than there are CPUs
  tbb::task_arena arena;
  std::unique_ptr<PinObserver> pins;
  std::mutex one_loop;
};

Executor::Executor(const Options& options)
    : threads_(options.threads > 0 ? options.threads : available_cpus()) {
  state_ = std::make_unique<State>(threads_);
  state_->arena.initialize();
  if (std::vector<int> cpus = allowed_cpus(); options.pin && !cpus.empty())
    state_->pins = std::make_unique<PinObserver>(state_->arena, std::move(cpus));
}

Executor::~Executor() = default;

void Executor::parallel_for(int64_t count, const std::function<void(int64_t, int)>& body) {
  check(!inside_parallel_loop, "parallel_for inside a parallel_for");
  if (threads_ == 1 || count <= 1) return run_serially(count, body);
  const std::lock_guard lock(state_->one_loop);
  state_->arena.execute([&] {
    tbb::parallel_for(
        tbb::blocked_range<int64_t>(0, count, 1),
        [&](const tbb::blocked_range<int64_t>& range) {
          const LoopMark mark;
          const int worker = tbb::this_task_arena::current_thread_index();
          for (int64_t i = range.begin(); i < range.end(); ++i) body(i, worker);
        },
        tbb::simple_partitioner());
  });
}

}  // namespace atom

#endif  // ATOM_STD_EXECUTOR
