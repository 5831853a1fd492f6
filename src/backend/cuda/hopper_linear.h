// Linear layers on Hopper (sm_90a; docs/formats.md, section 5), by warpgroup products in s32: int8 inputs with one scale
// a row and segment, times progressive int4 or int8 weights; or int4 inputs times int4 weights, both in groups of 128,
// beside a kept int8 segment: "grouped".
//
// Bits. Sums of products are exact integers. Not grouped, a result does not depend on the plan, nor on the other rows.
// Grouped, a group's sum times the weight's step, in f32 exact, is added by one fused multiply-add with the input's scale;
// the int8 segment is one more such term (its product with the step rounds), the last. A plan for few rows with `groups` G
// and `cluster` C cuts k into s stages of two slots of one segment (the last of a segment may have one): CTA r of C takes
// the stages [r s / C, (r + 1) s / C), its warpgroups g = 0 .. G - 1 the g-th, (g + G)-th .. of them. Each adds up what it
// takes in order (of the int8 segment its integers first), then the parts are added: g ascending in a CTA, then r. So a
// result depends on (G, C) alone, not on the other rows, tiles or blocks. Plans for many rows are as (1, 1). Where nothing
// rounds (scales are powers of two, sums are representable) all have the plain kernel's bits.
//
// The weight is the register operand: 64 outputs x k, the tokens are the product's n. Its layout is therefore that of
// the operand's fragments: blocks of 64 outputs, of each the slots along k, contiguous:
//   int4 slot   128 inputs: 4096 bytes of nibbles (code + 8), 64 multipliers (s8)
//   int8 slot    64 inputs: 4096 bytes of codes, 64 bytes unused
// and of a grouped weight
//   int4 slot   128 inputs, a group: 4096 bytes of nibbles (two's complement), 64 steps (f16)
//   int8 slot    64 inputs: 4096 bytes of codes, 128 bytes unused
// Nibbles of an output at inputs i and i + 16, i % 32 < 16, share a byte, low first; the order of bytes is in
// hopper_pack.cu. Slots of the int4 segment come first. Inputs behind the end meet zeros; outputs behind it have
// multipliers and steps of zero.
#pragma once

#include <cstdint>

#include "backend/cuda/tasks.h"

namespace atom::backend::cuda::hopper {

inline constexpr int kBlockOutputs = 64;
inline constexpr int kCodeBytes = 4096;  // of a slot
inline constexpr int kSlotBytes = kCodeBytes + kBlockOutputs;
inline constexpr int kGroupedSlotBytes = kCodeBytes + 2 * kBlockOutputs;
inline constexpr int kSlotInputs4 = 128, kSlotInputs8 = 64;

struct Weight {
  int n = 0;
  int slots4 = 0, slots8 = 0;
  int grouped = 0;                 // then slots4 > 0
  const uint8_t* slots = nullptr;  // [packed_blocks(n), slots4 + slots8, slot_bytes()]
  const float* steps4 =
      nullptr;  // [packed_blocks(n) * kBlockOutputs], of the int4 segment's rows; not if grouped
  const float* steps8 = nullptr;  // the same of the int8 segment
  const float* bias = nullptr;    // [n], may be null

  int blocks() const { return (n + kBlockOutputs - 1) / kBlockOutputs; }
  int slot_bytes() const { return grouped != 0 ? kGroupedSlotBytes : kSlotBytes; }
};

// Blocks in memory: an even number, for kernels that take two at once.
constexpr int packed_blocks(int n) { return (n + 2 * kBlockOutputs - 1) / (2 * kBlockOutputs) * 2; }
// Where a packed weight goes; the arrays of Weight, packed_blocks(n) of them.
struct Packing {
  int slots4 = 0, slots8 = 0;
  int grouped = 0;
  uint8_t* slots = nullptr;
  float *steps4 = nullptr, *steps8 = nullptr;
};
// Segment `segment4` of w is int4 in groups of 128, progressive or (grouped) with an f16 step each, `segment8` int8; -1:
// absent.
Status launch_pack(const WeightView& w, int segment4, int segment8, const Packing& to,
                   Stream stream);

// y[i, :] = x[i, :] * w^T, rows [row_ends[expert - 1], row_ends[expert]) of x, or all.
struct Task {
  InputView x;
  int segment4 = -1, segment8 = -1;  // of x.at; -1: absent
  Weight w;
  const int32_t* row_ends = nullptr;  // device memory; null: all rows
  int expert = 0;
  int add = 0;
  float* y = nullptr;         // [rows, n]
  uint16_t* y_f16 = nullptr;  // instead of y, f16, saturated; not with add
  int dependent = 0;  // programmatic dependent launch: may begin while the kernel before it ends
};

// How a task is cut. Few rows: a CTA has 64 * blocks outputs, `groups` warpgroups a block that take turns along k, and
// `cluster` CTAs share the slots. Many rows: persistent CTAs of 64 * blocks outputs, 128, up to 128 rows also 192, of 64
// rows also 256; `cluster` CTAs of neighbouring outputs share the inputs, times `groups` CTAs that share the slots; with
// grouped weights a multiprocessor has `groups` CTAs instead.
struct Plan {
  int rows = 8;  // tokens of a tile
  int blocks = 1;
  int groups = 4;
  int cluster = 1;
  bool many = false;
};
// Where plans come from, for people: "plans measured on an H200 and an H100" or "estimated plans".
const char* origin_of_plans(int multiprocessors);
bool has_few_rows_kernel(const Weight& weight, int rows, int blocks, int groups);
bool has_many_rows_kernel(bool grouped, int rows, int blocks, int cluster, int groups);
// A pure function of the problem and the device: that of the nearest measured shape (hopper_tuned.h), or, on a device
// with another number of multiprocessors, of the least estimated time. by_expert: the task has row_ends.
Plan plan(int rows, const Weight& weight, bool by_expert, int multiprocessors);
// A plan whose results have the same bits for every number of rows: for grouped weights, k is not cut. Slower with few
// rows.
Plan plan_in_order(int rows, const Weight& weight, bool by_expert, int multiprocessors);

Status launch_linear(const Task& task, const Plan& plan, int multiprocessors, Stream stream);

}  // namespace atom::backend::cuda::hopper
