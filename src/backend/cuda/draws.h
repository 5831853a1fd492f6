// What a sampling takes from the host and gives back, in pinned memory that the kernel reads and writes: nothing is copied
// before or after it. Slots are reused once nobody holds them and the device is done.
//
//   const std::shared_ptr<DrawSlot> slot = slots.free_slot(rows);
//   slot->rules[0] = rule;  launch_sample({.rules = slot->rules, .ids = slot->ids, ...});  slot->done.record(stream);
//   slot->done.wait();      // slot->ids holds them
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "backend/cuda/runtime.h"
#include "backend/cuda/tasks.h"

namespace atom::backend::cuda {

struct DrawSlot {
  explicit DrawSlot(size_t most_rows);

  PinnedMemory memory;
  size_t most_rows;
  double* log_probabilities;
  DrawRule* rules;
  int32_t* ids;
  int32_t* targets;
  StreamMark done;
};

class DrawSlots {
 public:
  // For at least `rows` rows; free again when the caller lets go of it and `done` is reached.
  std::shared_ptr<DrawSlot> free_slot(size_t rows);

 private:
  std::vector<std::shared_ptr<DrawSlot>> slots_;
};

}  // namespace atom::backend::cuda
