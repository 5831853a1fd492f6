// Inputs of linears for the stand-alone test and benchmark of the producers: layouts as the backend makes them
// (activation.cc), rows that quantizers tend to get wrong.
#pragma once

#include <string>

#include "backend/cuda/hopper_producers.h"
#include "bench/cuda/device.cuh"

namespace atom::bench {

namespace hopper = backend::cuda::hopper;
namespace cuda = backend::cuda;
using cuda::InputSegment;
using cuda::InputView;
using cuda::Scaling;

// Of an activation; group 0: floating point, -1: one scale a row.
struct Number {
  const char* name;
  Scaling scaling;
  int group;
};
inline constexpr Number kF32 = {"f32", Scaling::kInt8, 0};
inline constexpr Number kInt8 = {"int8", Scaling::kInt8, -1};
inline constexpr Number kInt4Row = {"int4.row", Scaling::kInt4, -1};
inline constexpr Number kInt4RowSigned = {"int4.row signed", Scaling::kInt4Signed, -1};
inline constexpr Number kInt4 = {"int4.g128", Scaling::kInt4, 128};
inline constexpr Number kInt4Signed = {"int4.g128 signed", Scaling::kInt4Signed, 128};
inline constexpr Number kInt4Signed64 = {"int4.g64 signed", Scaling::kInt4Signed, 64};
inline constexpr Number kInt4Of32 = {"int4.g32", Scaling::kInt4, 32};
inline constexpr Number kE2M1 = {"e2m1.g32", Scaling::kE2M1, 32};
inline constexpr Number kMxfp4 = {"mxfp4", Scaling::kMxfp4, 32};
inline constexpr Number kNvfp4 = {"nvfp4", Scaling::kNvfp4, 16};

struct RowShape {
  int k;
  int kept;       // of the second segment
  Number normal;  // the first segment's
  Number of_kept = kInt8;
};

inline InputView row_layout(const RowShape& shape, int rows) {
  const auto aligned = [](int bytes) { return (bytes + 15) / 16 * 16; };
  InputView view;
  int at = 0;
  for (int i = 0; i < 2; ++i) {
    InputSegment& s = view.at[i];
    const Number& number = i == 0 ? shape.normal : shape.of_kept;
    s.size = i == 0 ? shape.k - shape.kept : shape.kept;
    if (s.size == 0) continue;
    s.scaling = number.scaling;
    s.group = number.group < 0 ? s.size : number.group;
    if (s.group == 0) {
      s.values_at = at;
      at += aligned(4 * s.size);
      continue;
    }
    s.groups = (s.size + s.group - 1) / s.group;
    s.codes_at = at;
    at += aligned(s.size);
    s.scales_at = at;
    at += aligned(4 * s.groups);
    if (s.scaling == Scaling::kInt8) {
      s.sum_at = at;
      at += 16;
    }
  }
  view.row_bytes = (at + cuda::kRowPitch - 1) / cuda::kRowPitch * cuda::kRowPitch;
  view.rows = rows;
  return view;
}

inline std::string name_of(const RowShape& s) {
  std::string name = s.normal.name;
  if (s.kept > 0) name += std::string(" + ") + s.of_kept.name + " " + std::to_string(s.kept);
  return name;
}

// A permutation of [0, k), k < 2^31.
inline std::vector<int32_t> permutation(int k, uint64_t seed) {
  std::vector<int32_t> order(k);
  for (int i = 0; i < k; ++i) order[i] = i;
  for (int i = k - 1; i > 0; --i)
    std::swap(order[i], order[random_at(seed, i) % static_cast<uint64_t>(i + 1)]);
  return order;
}

}  // namespace atom::bench
