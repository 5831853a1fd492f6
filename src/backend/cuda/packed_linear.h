// A weight on the device: the checkpoint's codes with padded rows, and the value of one code of every group in f32
// (tasks.h: WeightSegment).
#pragma once

#include <span>
#include <string>

#include "backend/backend.h"
#include "backend/cuda/runtime.h"
#include "backend/cuda/tasks.h"

namespace atom::backend::cuda {

class CudaLinear final : public PackedLinear {
 public:
  // Error: parts that differ, or a pair of weight and input formats that is not computed. Returns when the host
  // memory of the parts has been read.
  CudaLinear(std::span<const LinearWeight> parts, const format::Segments& input, Stream stream);

  const format::Segments& input() const { return input_; }
  const WeightView& view() const { return view_; }
  const std::string& notice() const { return notice_; }  // of a slow path; empty: none

 private:
  void pack_codes(std::span<const LinearWeight> parts, int index, Stream stream);
  void pack_scales(std::span<const LinearWeight> parts, int index, Stream stream);
  void pack_bias(std::span<const LinearWeight> parts, Stream stream);

  format::Segments input_;
  WeightView view_;
  DeviceMemory codes_[2], steps_[2], multipliers_[2], bias_;
  std::string notice_;
};

}  // namespace atom::backend::cuda
