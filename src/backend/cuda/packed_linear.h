// A weight on the device: the checkpoint's codes with padded rows, and the value of one code of every group in f32
// (tasks.h: WeightSegment), or, where a kernel for Hopper computes the pair of formats, that kernel's slots.
#pragma once

#include <span>
#include <string>

#include "backend/backend.h"
#include "backend/cuda/hopper_half_linear.h"
#include "backend/cuda/hopper_linear.h"
#include "backend/cuda/runtime.h"
#include "backend/cuda/tasks.h"

namespace atom::backend::cuda {

class CudaLinear final : public PackedLinear {
 public:
  // Error: parts that differ, or a pair of weight and input formats that is not computed. Returns when the host
  // memory of the parts has been read. hopper: the device runs the kernels of hopper_linear.h and hopper_half_linear.h.
  CudaLinear(std::span<const LinearWeight> parts, const format::Segments& input, bool hopper,
             Stream stream);

  const format::Segments& input() const { return input_; }
  const WeightView& view() const { return view_; }
  const std::string& notice() const { return notice_; }  // of a slow path; empty: none

  // What the Hopper kernels read; then view() has no codes. The segments of the input that they meet.
  bool is_fast() const { return fast_.slots != nullptr; }
  const hopper::Weight& fast() const { return fast_; }
  int segment4() const { return segment4_; }
  int segment8() const { return segment8_; }
  // The same of the kernels with floating-point inputs.
  bool is_half() const { return half_.slots != nullptr; }
  const hopper::HalfWeight& half() const { return half_; }
  int half_segment() const { return half_segment_; }

 private:
  void pack_codes(std::span<const LinearWeight> parts, int index, Stream stream);
  void pack_scales(std::span<const LinearWeight> parts, int index, Stream stream);
  void pack_bias(std::span<const LinearWeight> parts, Stream stream);
  bool find_segments(const format::Segments& weight);
  bool find_half_segment(const format::Segments& weight);
  void pack_slots(Stream stream);
  void pack_half(Stream stream);
  void drop_codes();  // the slots have it all

  format::Segments input_;
  WeightView view_;
  DeviceMemory codes_[2], steps_[2], multipliers_[2], bias_;
  hopper::Weight fast_;
  int segment4_ = -1, segment8_ = -1;
  bool grouped_ = false;
  hopper::HalfWeight half_;
  int half_segment_ = -1;
  DeviceMemory slots_, steps4_, steps8_, factors_;
  std::string notice_;
};

}  // namespace atom::backend::cuda
