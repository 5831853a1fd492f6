#include "timing/rounds.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "base/error.h"

namespace atom::timing {
namespace {

constexpr int kWarmRuns = 3;
constexpr double kShort = 0.02;  // seconds

class Bursts {
 public:
  Bursts(backend::Backend& backend, const Candidate& candidate, const RoundOptions& options)
      : backend_(backend), candidate_(candidate), options_(options) {
    burst(std::min(kWarmRuns, candidate.most_runs));
    once_ = burst(1);
    runs_ = runs_for(once_, options.burst);
    // A single run holds the wait for the device, which a burst pays once: look again.
    if (runs_ > 1) runs_ = runs_for(burst(runs_), options.burst);
  }

  void measure() {
    if (options_.load > 0) {
      const auto begin = Clock::now();
      do {
        burst(runs_);
      } while (std::chrono::duration<double>(Clock::now() - begin).count() < options_.load);
    } else if (once_ < kShort) {
      // Memory that others gave back may have made a recording void: it is made anew here.
      burst(std::min(kWarmRuns, candidate_.most_runs));
    }
    seconds_.push_back(burst(runs_));
  }

  Timing result() {
    std::sort(seconds_.begin(), seconds_.end());
    return {.best = seconds_.front(),
            .median = seconds_[seconds_.size() / 2],
            .spread = seconds_.back() / seconds_.front() - 1};
  }

 private:
  using Clock = std::chrono::steady_clock;

  int runs_for(double once, double seconds) const {
    const double runs = std::ceil(seconds / std::max(once, 1e-9));
    return static_cast<int>(std::clamp<double>(runs, 1, candidate_.most_runs));
  }

  // Seconds of one run.
  double burst(int runs) {
    if (candidate_.restart) candidate_.restart();
    backend_.synchronize();
    const auto begin = Clock::now();
    for (int i = 0; i < runs; ++i) candidate_.enqueue();
    backend_.synchronize();
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    if (options_.between) options_.between();
    return std::max(seconds, 1e-9) / runs;
  }

  backend::Backend& backend_;
  const Candidate& candidate_;
  const RoundOptions& options_;
  int runs_ = 1;
  double once_ = 0;  // seconds
  std::vector<double> seconds_;
};

}  // namespace

std::vector<Timing> time_alternating(backend::Backend& backend,
                                     std::span<const Candidate> candidates,
                                     const RoundOptions& options) {
  check(options.rounds > 0, "a timing has rounds");
  std::vector<Bursts> bursts;
  bursts.reserve(candidates.size());
  for (const Candidate& candidate : candidates) bursts.emplace_back(backend, candidate, options);
  for (int round = 0; round < options.rounds; ++round)
    for (Bursts& burst : bursts) burst.measure();
  std::vector<Timing> out;
  for (Bursts& burst : bursts) out.push_back(burst.result());
  return out;
}

}  // namespace atom::timing
