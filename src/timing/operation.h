// One operation that is to be timed, over as many distinct weights or caches as keep it out of the device's caches.
//
//   const std::vector<Operation> both = {ops.linear(Site::kOut), library.linear(Site::kOut)};
//   const std::vector<Timing> times = time_operations(backend, both, {.rounds = 5});
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "timing/rounds.h"

namespace atom::timing {

struct Operation {
  // On the copy-th of the distinct sets of data, modulo their number.
  std::function<void(int copy, std::span<const backend::SequenceStep>)> enqueue;
  int copies = 1;                                     // distinct sets
  double bytes = 0;                                   // that it reads and writes at least
  double products = 0;                                // multiplications and additions
  bool integers = false;                              // of 8-bit integers
  std::vector<backend::SequenceStep> sequences = {};  // of attention
};

// Seconds of each, in alternating rounds. What takes less than a millisecond is recorded (Backend::record), many in a row;
// what takes more is called.
std::vector<Timing> time_operations(backend::Backend& backend,
                                    std::span<const Operation> operations,
                                    const RoundOptions& options);

// How many sets of `bytes` exceed `rotated`: at least one, at most 256.
int copies_for(double bytes, size_t rotated);

// What the ceilings allow; 0: not known.
double roofline_seconds(const Operation& operation, const backend::Ceilings& ceilings);

}  // namespace atom::timing
