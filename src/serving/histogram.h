// Counts of values by size, as Prometheus' histograms have them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace atom::serving {

class Histogram {
 public:
  Histogram() = default;
  explicit Histogram(std::vector<double> bounds)  // in rising order
      : bounds_(std::move(bounds)), counts_(bounds_.size() + 1) {}

  void add(double value) {
    const auto at = std::lower_bound(bounds_.begin(), bounds_.end(), value);
    ++counts_[static_cast<size_t>(at - bounds_.begin())];
    sum_ += value;
    ++count_;
  }

  const std::vector<double>& bounds() const { return bounds_; }
  const std::vector<int64_t>& counts() const {
    return counts_;
  }  // of (bound before, bound]; last: above all
  double sum() const { return sum_; }
  int64_t count() const { return count_; }

 private:
  std::vector<double> bounds_;
  std::vector<int64_t> counts_ = {0};
  double sum_ = 0;
  int64_t count_ = 0;
};

}  // namespace atom::serving
