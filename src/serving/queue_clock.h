// How long a request that comes now would wait: from the requests that ended while others waited.
//
// While some wait, each end makes room for about one of them; so those that wait, times the mean time between ends.
// Preemptions, long texts and few pages need no guess: they show in the ends.
#pragma once

#include <algorithm>
#include <cstddef>
#include <deque>

namespace atom::serving {

class QueueClock {
 public:
  // A request ended by itself, not because its client left. Seconds, as below.
  void ended(double now) {
    ends_.push_back(now);
    if (ends_.size() <= kNewest) return;
    since_ = ends_.front();
    ends_.pop_front();
  }
  // After each step.
  void waiting(int count, double now) {
    waiting_ = count;
    if (count > 0) return;
    ends_.clear();
    since_ = now;
  }
  // `assumed`: between two ends, until one has ended while others wait.
  double seconds(double now, double assumed) const {
    if (waiting_ == 0) return 0;
    const double each = ends_.empty() ? std::max(now - since_, assumed)
                                      : (now - since_) / static_cast<double>(ends_.size());
    return each * waiting_;
  }

 private:
  static constexpr size_t kNewest = 64;  // so many ends count

  std::deque<double> ends_;
  double since_ = 0;  // ends are counted from here on
  int waiting_ = 0;
};

}  // namespace atom::serving
