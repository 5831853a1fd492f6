// A weight in the panels of one kernel table (WeightSegment describes the layout).
#pragma once

#include <span>
#include <string>

#include "backend/backend.h"
#include "backend/cpu/kernel_table.h"
#include "backend/cpu/memory.h"
#include "base/executor.h"

namespace atom::backend::cpu {

class CpuLinear final : public PackedLinear {
 public:
  // Error: parts that differ, or a pair of weight and input formats without a kernel.
  CpuLinear(std::span<const LinearWeight> parts, const format::Segments& input,
            const KernelTable& kernels, Executor& executor);

  const format::Segments& input() const { return input_; }
  const WeightSegment& segment(int i) const { return segments_[i]; }
  const float* bias() const { return bias_.as<float>(); }  // [panels * columns], null: none
  int panels() const { return panels_; }
  const std::string& notice() const { return notice_; }  // of a slow path; empty: none

 private:
  struct Rows;
  void pack_segment(const Rows& rows, int index, const KernelTable& kernels, Executor& executor);
  void pack_bias(std::span<const LinearWeight> parts, int columns);

  format::Segments input_;
  WeightSegment segments_[2];
  Memory codes_[2];
  Memory scales_[2];
  Memory bias_;
  int panels_ = 0;
  std::string notice_;
};

}  // namespace atom::backend::cpu
