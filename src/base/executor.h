// Parallel loops. One Executor per process is created in apps/ and passed down; a library function
// that needs threads takes `Executor&`.
//
//   Executor pool({.threads = 2, .pin = true});
//   pool.parallel_for(tiles, [&](int64_t tile, int worker) { ... scratch[worker] ... });
//
// Work is split into single iterations that workers take in turn (dynamic); which worker runs which
// iteration is not defined, so results may depend on `worker` only through scratch memory. An
// exception of an iteration is rethrown in the caller after the loop ended. Loops do not nest.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace atom {

class Executor {
 public:
  struct Options {
    int threads = 0;   // 0: the CPUs this process may use (cgroup quota and affinity counted)
    bool pin = false;  // worker i on the i-th allowed CPU
  };
  explicit Executor(const Options& options);
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  int threads() const { return threads_; }

  // Calls body(i, worker) for i in [0, count), worker in [0, threads()). The caller takes part.
  void parallel_for(int64_t count, const std::function<void(int64_t i, int worker)>& body);

 private:
  struct State;
  std::unique_ptr<State> state_;
  int threads_ = 1;
};

// CPUs that this process may use: min(affinity mask, cgroup v2/v1 quota rounded up), at least 1.
int available_cpus();

}  // namespace atom
