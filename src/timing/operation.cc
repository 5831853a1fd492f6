#include "timing/operation.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>

namespace atom::timing {
namespace {

constexpr double kLong = 1e-3;      // seconds: longer ones are called, not recorded
constexpr double kRecorded = 2e-3;  // seconds of operations in a recording
constexpr int kMostRecorded = 512, kMostCopies = 256;

// A run of it is `each()` operations.
class Repeated {
 public:
  Repeated(backend::Backend& backend, const Operation& operation) : operation_(operation) {
    next();
    backend.synchronize();
    const auto begin = std::chrono::steady_clock::now();
    next();
    backend.synchronize();
    const double once =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    if (once >= kLong) return;
    const int least = std::min(operation.copies, kMostRecorded);
    each_ = std::clamp(static_cast<int>(kRecorded / std::max(once, 1e-6)), least, kMostRecorded);
    // Every run begins with the first copy: after whole turns the cache has lost it.
    if (each_ > operation.copies) each_ -= each_ % operation.copies;
    recording_ = backend.record([this](std::span<const backend::SequenceStep> sequences) {
      for (int i = 0; i < each_; ++i) operation_.enqueue(i % operation_.copies, sequences);
    });
  }

  void run() {
    if (recording_)
      recording_->run(operation_.sequences);
    else
      next();
  }
  int each() const { return each_; }

 private:
  void next() { operation_.enqueue(count_++ % operation_.copies, operation_.sequences); }

  const Operation& operation_;
  int each_ = 1, count_ = 0;
  std::unique_ptr<backend::Recording> recording_;
};

}  // namespace

std::vector<Timing> time_operations(backend::Backend& backend,
                                    std::span<const Operation> operations,
                                    const RoundOptions& options) {
  std::vector<std::unique_ptr<Repeated>> repeated;
  std::vector<Candidate> candidates;
  for (const Operation& operation : operations) {
    repeated.push_back(std::make_unique<Repeated>(backend, operation));
    candidates.push_back({.enqueue = [one = repeated.back().get()] { one->run(); }});
  }
  std::vector<Timing> times = time_alternating(backend, candidates, options);
  for (size_t i = 0; i < times.size(); ++i) {
    times[i].best /= repeated[i]->each();
    times[i].median /= repeated[i]->each();
  }
  return times;
}

int copies_for(double bytes, size_t rotated) {
  return static_cast<int>(std::clamp(std::ceil(static_cast<double>(rotated) / std::max(bytes, 1.0)),
                                     1.0, static_cast<double>(kMostCopies)));
}

double roofline_seconds(const Operation& operation, const backend::Ceilings& ceilings) {
  const double rate = operation.integers ? ceilings.operations8 : ceilings.operations16;
  const double memory = ceilings.read_bytes > 0 ? operation.bytes / ceilings.read_bytes : 0;
  return std::max(memory, rate > 0 ? operation.products / rate : 0);
}

}  // namespace atom::timing
