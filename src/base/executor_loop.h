// Shared by the two executors: a loop on the calling thread, and the guard against nested loops.
#pragma once

#include <cstdint>
#include <functional>

#include "base/error.h"

namespace atom {

// True while the thread runs an iteration of some parallel_for.
inline thread_local bool inside_parallel_loop = false;

// Marks the thread for the time of one or more iterations.
class LoopMark {
 public:
  LoopMark() : outer_(inside_parallel_loop) { inside_parallel_loop = true; }
  ~LoopMark() { inside_parallel_loop = outer_; }
  LoopMark(const LoopMark&) = delete;
  LoopMark& operator=(const LoopMark&) = delete;

 private:
  bool outer_;
};

inline void run_serially(int64_t count, const std::function<void(int64_t, int)>& body) {
  const LoopMark mark;
  for (int64_t i = 0; i < count; ++i) body(i, 0);
}

}  // namespace atom
