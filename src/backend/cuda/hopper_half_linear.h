// Linear layers on Hopper (sm_90a; docs/kernels/half.md) with floating-point inputs: weights in f16 or bf16, or in int4 with
// an f16 scale per output and group of 128; by warpgroup products of f16 with sums in f32.
//
//   launch_half_rows({.x = x, .to = rows}, stream);           // inputs, once for all weights that read them
//   launch_half_linear(task, half_plan(...), 132, stream);
//
// Inputs are rounded once to f16, after a power of two has brought the row's largest magnitude to [2^14, 2^15). f16
// weights are taken as they are; an output of bf16 has a power of two of its own, so that its values are exact down to
// 2^-32 of the largest, and those below have an error of at most 2^-39 of it. An int4 weight is the f16 nearest to code x
// step; of steps below 2^-4 of the output's largest it may be off by 2^-14 of that one. A result does not depend on the
// other rows. Plans with one group and no cluster add in the same order, k ascending, so they all give the same bits;
// others cut k by their groups and cluster.
//
// A weight is packed in blocks of 64 outputs, of each the slots of 128 inputs along k, contiguous:
//   f16 slot    two panels of 64 inputs: 64 rows of 128 bytes, 128-byte swizzle: 8192 bytes each
//   int4 slot   4096 bytes of nibbles (code + 8) in the order of operand registers, 64 steps (f16)
// Steps have a power of two per output, by which the largest is in [2^14, 2^15). Inputs behind the end meet zeros.
#pragma once

#include <cstdint>

#include "backend/cuda/hopper_linear.h"
#include "backend/cuda/tasks.h"

namespace atom::backend::cuda::hopper {

enum class HalfKind : uint8_t { kF16, kInt4 };

inline constexpr int kHalfSlotInputs = 128;
inline constexpr int kPanelInputs = 64, kPanelBytes = kBlockOutputs * kPanelInputs * 2;
inline constexpr int kF16SlotBytes = 2 * kPanelBytes;
inline constexpr int kHalfInt4SlotBytes = kCodeBytes + 2 * kBlockOutputs;
constexpr int half_slots(int k) { return (k + kHalfSlotInputs - 1) / kHalfSlotInputs; }
// Blocks in memory: a multiple of four, for kernels that take as many at once.
constexpr int half_blocks(int n) { return (n + 4 * kBlockOutputs - 1) / (4 * kBlockOutputs) * 4; }

struct HalfWeight {
  int n = 0, k = 0;
  HalfKind kind = HalfKind::kF16;
  const uint8_t* slots = nullptr;  // [half_blocks(n), half_slots(k), slot_bytes()]
  const float* factors = nullptr;  // [half_blocks(n) * kBlockOutputs], powers of two
  const float* bias = nullptr;     // [n], may be null

  int slot_bytes() const { return kind == HalfKind::kF16 ? kF16SlotBytes : kHalfInt4SlotBytes; }
  int64_t bytes() const { return int64_t{half_blocks(n)} * half_slots(k) * slot_bytes(); }
};

// Segment `segment` of w: kF16, kBF16, or kInt4 in groups of 128 with a step each. `to` has n, k, kind and the memory of
// slots and factors, which are written.
Status launch_half_pack(const WeightView& w, int segment, const HalfWeight& to, Stream stream);

// Inputs in f16: x = value * factor of the row.
struct HalfRows {
  uint16_t* values = nullptr;  // [rows, pitch(k)]; zeros behind k
  float* factors = nullptr;    // [rows], powers of two
  int rows = 0, k = 0;
  static constexpr int pitch(int k) { return half_slots(k) * kHalfSlotInputs; }
};
struct HalfRowsTask {
  InputView x;  // of one segment, in floating point
  int segment = 0;
  const int32_t* row_index =
      nullptr;  // row i is record row_index[i], for i < *count; null: record i of all rows
  const int32_t* count = nullptr;
  HalfRows to;
  int dependent = 0;  // programmatic dependent launch
};
Status launch_half_rows(const HalfRowsTask& task, Stream stream);

// y[i, :] = x[i, :] * w^T, rows [row_ends[expert - 1], row_ends[expert]) of x, or all.
struct HalfTask {
  HalfRows x;
  HalfWeight w;
  const int32_t* row_ends = nullptr;  // device memory; null: all rows
  int expert = 0;
  int add = 0;
  float* y = nullptr;         // [rows, n]
  uint16_t* y_f16 = nullptr;  // instead of y, f16, saturated; not with add
  int dependent = 0;
};

// A plan's numbers mean what they mean in hopper_linear.h: few rows: a CTA has 64 * blocks outputs, `groups` warpgroups a
// block that take turns along k, and `cluster` CTAs share k. Many rows: persistent CTAs of 128 outputs.
bool has_half_kernel(HalfKind kind, const Plan& plan);
// Pure functions of the problem and the device. The second gives plans that all add in the same order: a row's bits are
// the same in a batch of any size.
Plan half_plan(int rows, const HalfWeight& weight, bool by_expert, int multiprocessors);
Plan half_plan_for_any_rows(int rows, const HalfWeight& weight, int multiprocessors);

Status launch_half_linear(const HalfTask& task, const Plan& plan, int multiprocessors,
                          Stream stream);

}  // namespace atom::backend::cuda::hopper
