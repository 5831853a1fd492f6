// Results in f16 of a linear under test, compared with those in f32.
#pragma once

#include <cstring>

#include "bench/cuda/device.cuh"

namespace atom::bench {

// Whether `bits` is `result` rounded to f16 as linears do: a finite one beyond the range, or an infinity, becomes the largest of
// its sign.
inline bool is_rounded(uint16_t bits, float result) {
  if (result != result) return (bits & 0x7fff) > 0x7c00;
  const float limited = std::min(std::max(result, -65504.0f), 65504.0f);
  return bits == __half_as_ushort(__float2half_rn(limited));
}

class HalfResults {
 public:
  // Of `count` places on the device, [begin, end) are to be written, others not.
  HalfResults(size_t count, size_t begin, size_t end)
      : begin_(begin), end_(end), y_(device_array<uint16_t>(count)) {
    for (size_t i = 0; i < count; ++i) start_.push_back(static_cast<uint16_t>(random_at(98, i)));
  }
  HalfResults(const HalfResults&) = delete;
  ~HalfResults() { cudaFree(y_); }

  uint16_t* y() const { return y_; }
  size_t count() const { return start_.size(); }
  void reset() const {
    ATOM_REQUIRE(cudaMemcpy(y_, start_.data(), count() * 2, cudaMemcpyHostToDevice));
  }
  // result: of all places, in f32. Returns how many are wrong, and the first.
  struct Wrong {
    size_t count, first;
  };
  Wrong compare(const std::vector<float>& result) {
    const std::vector<uint16_t> halves = host_copy(y_, count());
    if (!known_.empty() && halves == known_ &&
        std::memcmp(result.data(), of_.data(), result.size() * 4) == 0)
      return {0, 0};
    Wrong wrong = {0, 0};
    for (size_t i = 0; i < count(); ++i) {
      const bool right =
          i >= begin_ && i < end_ ? is_rounded(halves[i], result[i]) : halves[i] == start_[i];
      if (!right && wrong.count++ == 0) wrong.first = i;
    }
    if (wrong.count == 0) known_ = halves, of_ = result;
    return wrong;
  }

 private:
  size_t begin_, end_;
  uint16_t* y_;
  std::vector<uint16_t> start_, known_;  // known_: right for of_
  std::vector<float> of_;
};

}  // namespace atom::bench
