// How long things take on a backend, when several are to be compared: bursts of each in turn, again and again, so that
// what disturbs one disturbs all; the best burst counts.
//
//   const std::vector<Candidate> both = {{[&] { a->run({}); }}, {[&] { b->run({}); }}};
//   const std::vector<Timing> times = time_alternating(backend, both, {.rounds = 5});
//   times[0].best;   // seconds of one run
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "backend/backend.h"

namespace atom::timing {

struct Candidate {
  std::function<void()> enqueue;       // one run; need not wait for the device
  std::function<void()> restart = {};  // before each burst, not timed; may be empty
  int most_runs = 1 << 20;             // of a burst
};

struct Timing {
  double best = 0;    // seconds of one run
  double median = 0;  // over the rounds
  double spread = 0;  // (worst - best) / best
};

struct RoundOptions {
  int rounds = 5;
  double burst = 0.02;  // seconds that a burst takes at least, unless most_runs is less
  double load = 0;      // seconds of runs before each burst: what a clock under load makes of it
  std::function<void()> between = {};  // after every burst, to look for an interrupt; may throw
};

// One for each candidate. Each first runs a few times: what is recorded (Backend::record) is then replayed.
std::vector<Timing> time_alternating(backend::Backend& backend,
                                     std::span<const Candidate> candidates,
                                     const RoundOptions& options);

}  // namespace atom::timing
