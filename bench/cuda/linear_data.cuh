// A linear with random weights and inputs on the device: as the plain kernels read it, and packed for Hopper.
#pragma once

#include "backend/cuda/hopper_linear.h"
#include "backend/cuda/tasks.h"
#include "bench/cuda/device.cuh"

namespace atom::bench {

namespace cuda = backend::cuda;
namespace hopper = backend::cuda::hopper;

// k inputs, of which the last `kept` are int8; kept == k: all. grouped: w4a4 with groups of 128 instead of w4a8.
struct LinearShape {
  int n, k, kept;
  bool grouped = false;
  int normal() const { return k - kept; }
  int slots4() const { return (normal() + 127) / 128; }
  int slots8() const { return (kept + 63) / 64; }
  int64_t packed_bytes() const {
    return int64_t{hopper::packed_blocks(n)} * (slots4() + slots8()) *
           (grouped ? hopper::kGroupedSlotBytes : hopper::kSlotBytes);
  }
};

inline int aligned16(int bytes) { return (bytes + 15) / 16 * 16; }

// Row records as activation.cc lays them out.
inline cuda::InputView input_layout(const LinearShape& shape, int rows) {
  cuda::InputView view;
  int at = 0, index = 0;
  for (const bool kept : {false, true}) {
    const int size = kept ? shape.kept : shape.normal();
    if (size == 0) continue;
    const bool int4 = shape.grouped && !kept;
    cuda::InputSegment& s = view.at[index++];
    s.size = size;
    s.group = int4 ? 128 : size;
    s.groups = int4 ? shape.slots4() : 1;
    s.scaling = int4 ? cuda::Scaling::kInt4Signed : cuda::Scaling::kInt8;
    s.codes_at = at;
    s.scales_at = at + aligned16(size);
    at = s.scales_at + aligned16(s.groups * 4);
    if (int4) continue;
    s.sum_at = at;
    at += 16;
  }
  view.row_bytes = (at + cuda::kRowPitch - 1) / cuda::kRowPitch * cuda::kRowPitch;
  view.rows = rows;
  return view;
}

inline cuda::InputView random_input(const LinearShape& shape, int rows, uint64_t seed,
                                    uint8_t* memory = nullptr) {
  cuda::InputView view = input_layout(shape, rows);
  if (memory == nullptr) memory = device_array<uint8_t>(view.row_bytes * rows);
  view.data = memory;
  const int k = shape.k;
  auto* x = device_array<float>(size_t{1} * rows * k);
  fill(x, size_t{1} * rows * k, Fill::kFloat, seed);
  cuda::QuantizeTask task;
  task.x = x;
  task.y = view;
  ATOM_REQUIRE(cuda::launch_quantize(task, nullptr));
  ATOM_REQUIRE(cudaDeviceSynchronize());
  ATOM_REQUIRE(cudaFree(x));
  return view;
}

// Canonical weights; the device arrays live as long as the program.
inline cuda::WeightView random_weight(const LinearShape& shape, uint64_t seed) {
  cuda::WeightView view;
  view.n = shape.n;
  const auto n = static_cast<size_t>(shape.n);
  int index = 0;
  if (shape.normal() > 0) {
    cuda::WeightSegment& s = view.at[index++];
    s.size = shape.normal();
    s.group = 128;
    s.groups = (s.size + 127) / 128;
    s.element = cuda::Element::kInt4;
    s.progressive = shape.grouped ? 0 : 1;
    s.row_bytes = aligned16((s.size + 1) / 2);
    auto* codes = device_array<uint8_t>(n * s.row_bytes);
    fill(codes, n * s.row_bytes, Fill::kInt4Pairs, seed);
    s.codes = codes;
    const size_t scales = shape.grouped ? n * s.groups : n;
    auto* steps = device_array<float>(scales);
    fill(steps, scales, shape.grouped ? Fill::kSignedHalfScale : Fill::kScale, seed + 2);
    s.steps = steps;
    if (!shape.grouped) {
      auto* multipliers = device_array<int8_t>(n * s.groups);
      fill(multipliers, n * s.groups, Fill::kMultiplier, seed + 1);
      s.multipliers = multipliers;
    }
  }
  if (shape.kept > 0) {
    cuda::WeightSegment& s = view.at[index++];
    s.size = s.group = shape.kept;
    s.groups = 1;
    s.element = cuda::Element::kInt8;
    s.row_bytes = aligned16(s.size);
    auto* codes = device_array<uint8_t>(n * s.row_bytes);
    fill(codes, n * s.row_bytes, Fill::kInt8, seed + 3);
    auto* steps = device_array<float>(n);
    fill(steps, n, Fill::kScale, seed + 4);
    s.codes = codes;
    s.steps = steps;
  }
  return view;
}

inline hopper::Weight packed(const cuda::WeightView& view, const LinearShape& shape,
                             uint8_t* slots = nullptr) {
  const size_t outputs = static_cast<size_t>(hopper::packed_blocks(shape.n)) * 64;
  hopper::Packing to;
  to.slots4 = shape.slots4();
  to.slots8 = shape.slots8();
  to.grouped = shape.grouped ? 1 : 0;
  to.slots = slots != nullptr ? slots : device_array<uint8_t>(shape.packed_bytes());
  to.steps4 = device_array<float>(outputs);
  to.steps8 = device_array<float>(outputs);
  const bool both = shape.normal() > 0 && shape.kept > 0;
  ATOM_REQUIRE(hopper::launch_pack(view, shape.normal() > 0 ? 0 : -1,
                                   shape.kept > 0 ? (both ? 1 : 0) : -1, to, nullptr));
  hopper::Weight w;
  w.n = shape.n;
  w.slots4 = to.slots4;
  w.slots8 = to.slots8;
  w.grouped = to.grouped;
  w.slots = to.slots;
  w.steps4 = to.steps4;
  w.steps8 = to.steps8;
  w.bias = view.bias;
  return w;
}

inline hopper::Task task_of(const cuda::InputView& x, const hopper::Weight& w, float* y) {
  hopper::Task t;
  t.x = x;
  t.w = w;
  t.segment4 = w.slots4 > 0 ? 0 : -1;
  t.segment8 = w.slots8 > 0 ? (w.slots4 > 0 ? 1 : 0) : -1;
  t.y = y;
  return t;
}

// Every kernel for few rows that exists, without a cluster and with it. only_int8: of weights without an int4 segment.
inline std::vector<hopper::Plan> few_rows_plans(bool grouped, bool only_int8) {
  hopper::Weight weight;
  weight.grouped = grouped ? 1 : 0;
  weight.slots4 = only_int8 ? 0 : 1;
  std::vector<hopper::Plan> plans;
  for (const int tile : {8, 16, 32, 64, 128})
    for (const int blocks : {1, 2})
      for (int groups = 1; groups <= 8; ++groups)
        for (const int cluster : {1, 2})
          if (hopper::has_few_rows_kernel(weight, tile, blocks, groups))
            plans.push_back({tile, blocks, groups, cluster, false});
  return plans;
}

// Every kernel for many rows. Not all compute every weight: hopper::suits().
inline std::vector<hopper::Plan> many_rows_plans(bool grouped) {
  std::vector<hopper::Plan> plans;
  for (const int tile : {32, 64, 128, 256})
    for (const int blocks : {2, 3, 4})
      for (const int cluster : {1, 2, 4})
        for (const int groups : {1, 2, 4})
          if (hopper::has_many_rows_kernel(grouped, tile, blocks, cluster, groups))
            plans.push_back({tile, blocks, groups, cluster, true});
  return plans;
}

}  // namespace atom::bench
