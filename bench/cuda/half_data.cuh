// A linear with floating-point inputs and random weights on the device: as the plain kernels read it, and packed for
// hopper_half_linear.h.
#pragma once

#include "backend/cuda/hopper_half_linear.h"
#include "backend/cuda/tasks.h"
#include "bench/cuda/device.cuh"

namespace atom::bench {

namespace cuda = backend::cuda;
namespace hopper = backend::cuda::hopper;

struct HalfShape {
  int n, k;
  cuda::Element element = cuda::Element::kF16;  // or kBF16, kInt4: in groups of 128

  bool int4() const { return element == cuda::Element::kInt4; }
  int groups() const { return (k + 127) / 128; }
  const char* name() const {
    return int4() ? "w4a16" : element == cuda::Element::kF16 ? "f16" : "bf16";
  }
};

inline int64_t padded16(int64_t bytes) { return (bytes + 15) / 16 * 16; }

// Records of f32, what pads them is NaN.
inline cuda::InputView half_input(const HalfShape& shape, int rows, uint8_t* memory = nullptr) {
  cuda::InputView view;
  view.at[0].size = shape.k;
  view.row_bytes = padded16(int64_t{4} * shape.k);
  view.rows = rows;
  const size_t bytes = static_cast<size_t>(view.row_bytes) * rows;
  view.data = memory != nullptr ? memory : device_array<uint8_t>(bytes);
  if (memory == nullptr) ATOM_REQUIRE(cudaMemset(view.data, 0xff, bytes));
  return view;
}
inline hopper::HalfRows half_rows(int rows, int k) {
  hopper::HalfRows r;
  r.rows = rows;
  r.k = k;
  const size_t count = size_t{1} * rows * hopper::HalfRows::pitch(k);
  r.values = device_array<uint16_t>(count);
  r.factors = device_array<float>(rows);
  ATOM_REQUIRE(cudaMemset(r.values, 0xff, count * 2));
  ATOM_REQUIRE(cudaMemset(r.factors, 0xff, size_t{4} * rows));
  return r;
}

// Of random bits; codes, and with int4 steps, of the device.
inline cuda::WeightView half_weight(const HalfShape& shape, uint64_t seed) {
  cuda::WeightView view;
  view.n = shape.n;
  cuda::WeightSegment& s = view.at[0];
  s.size = shape.k;
  s.element = shape.element;
  s.row_bytes = padded16(shape.int4() ? (shape.k + 1) / 2 : 2 * shape.k);
  const size_t bytes = static_cast<size_t>(s.row_bytes) * shape.n;
  auto* codes = device_array<uint8_t>(bytes);
  s.codes = codes;
  if (!shape.int4()) {
    fill(codes, bytes / 2, Fill::kHalf, seed);  // as bf16 they are of all sizes, some not finite
    return view;
  }
  s.group = 128;
  s.groups = shape.groups();
  fill(codes, bytes, Fill::kInt4Pairs, seed);
  const size_t count = size_t{1} * shape.n * s.groups;
  auto* steps = device_array<float>(count);
  fill(steps, count, Fill::kSignedHalfScale, seed + 2);
  s.steps = steps;
  return view;
}

// Memory of a packed weight, empty.
inline hopper::HalfWeight half_memory(const HalfShape& shape) {
  hopper::HalfWeight w;
  w.n = shape.n;
  w.k = shape.k;
  w.kind = shape.int4() ? hopper::HalfKind::kInt4 : hopper::HalfKind::kF16;
  w.slots = device_array<uint8_t>(w.bytes());
  w.factors = device_array<float>(size_t{64} * hopper::half_blocks(shape.n));
  return w;
}
inline hopper::HalfWeight half_packed(const cuda::WeightView& view, const HalfShape& shape) {
  hopper::HalfWeight w = half_memory(shape);
  w.bias = view.bias;
  ATOM_REQUIRE(hopper::launch_half_pack(view, 0, w, nullptr));
  return w;
}

// Every kernel, without a cluster and with those that k allows.
inline std::vector<hopper::Plan> half_plans(hopper::HalfKind kind, int k) {
  std::vector<hopper::Plan> plans;
  for (const int tile : {8, 16, 32, 64, 128})
    for (const int blocks : {1, 2, 4})
      for (int groups = 1; groups <= 8; ++groups)
        for (const int cluster : {1, 2, 4}) {
          const hopper::Plan plan{tile, blocks, groups, cluster, false};
          if (hopper::has_half_kernel(kind, plan) && cluster <= std::max(1, hopper::half_slots(k)))
            plans.push_back(plan);
        }
  for (const int tile : {64, 128, 256}) plans.push_back({tile, 2, 1, 1, true});
  return plans;
}

}  // namespace atom::bench
