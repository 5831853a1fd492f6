// Producers on Hopper (sm_90a): norm, gate and rows that exist in f32, each with order, block Hadamard transform,
// scales, codes and the sums of codes in one kernel: a row is read once and its record written once.
// Codes and scales are those of the plain kernels (quantize.cu, rows.cu).
//
//   ProduceTask t{.source = Source::kNorm, .x = x, .gain = gain, .epsilon = 1e-5f, .y = view};
//   if (can_produce(t)) status = launch_produce(t, stream);
#pragma once

#include <cstdint>

#include "backend/cuda/hopper_half_linear.h"
#include "backend/cuda/tasks.h"

namespace atom::backend::cuda::hopper {

enum class Source : uint8_t { kNorm, kRows, kGate };

struct ProduceTask {
  Source source = Source::kRows;
  const float* x = nullptr;              // [rows, k]; kGate: [rows, 2 k], gate first
  const uint16_t* x_f16 = nullptr;       // kGate: instead of x
  const int8_t* silu_offsets = nullptr;  // [kSiluOffsets], with x_f16; may be null
  const float* gain = nullptr;           // [k], kNorm
  float epsilon = 0;                     // kNorm
  float* plain = nullptr;                // [rows, k], kNorm: before the order; may be null
  const int32_t* order = nullptr;        // [k], may be null
  int hadamard = 0;                      // of the first segment; 0: none
  float clip = 1;
  InputView y;
  HalfRows
      half;  // with values: the row as launch_half_rows() makes it, too; see can_produce_half()
  int dependent = 0;  // programmatic dependent launch: may begin while the kernel before it ends
};

// What the kernels ask about the segments of a row, known to the host.
struct RowCut {
  int tiles[2] = {0, 0};  // kTile values, of one segment each
  int wide[2] = {0, 0};   // the segment's steps follow from more than a tile
  int count() const { return tiles[0] + tiles[1]; }
  bool any_wide() const { return wide[0] != 0 || wide[1] != 0; }
};
inline constexpr int kTile = 128;
RowCut row_cut(const InputView& y);

// Not: sizes or addresses that are no multiples of four values, groups of another length than 16, 32, 64, 128 or the
// segment, norm and rows of more than 128 tiles, a gate with an order, or of a row that shared memory cannot hold where
// a segment is wide.
bool can_produce(const ProduceTask& task);
Status launch_produce(const ProduceTask& task, Stream stream);

// Whether the kernels also write `half`, of a task of can_produce(): the row is one segment in floating point, rows are few,
// and a gate's are whole tiles.
bool can_produce_half(const ProduceTask& task, int multiprocessors);

// Whether the quick kernels take it: segments of whole tiles, the second of two at most, integer steps that follow from
// 128 values or from the segment, no `plain`, a table of silu with rows in f16. The others serve every task of can_produce().
bool can_be_quick(const ProduceTask& task);
// silu of f16 has few arguments: what an estimate in f32 needs added to its bits, by the bits of x. Those left out are -60
// and less, and NaN with a sign: there silu is computed.
inline constexpr int kSiluOffsets = 0xd400, kSiluComputed = 0xd380;
Status launch_silu_offsets(int8_t* offsets, Stream stream);

// Of the quick gate, many rows.
struct GatePlan {
  int blocks = 0;  // of a multiprocessor; 0: no room
  int crews = 1;   // of a block, each with a row
  int threads = 0;
  int shared_bytes = 0;
};
GatePlan quick_gate_plan(const InputView& y, int value_bytes = 4);  // of x: 4 or 2
// Blocks of a cluster that shares a row of the quick gate; 0: rows are many, or too wide. meets: they tell each other
// something about the row.
int few_gate_blocks(const InputView& y, bool meets, int multiprocessors);

// Threads of a block of the gate. A multiprocessor has registers for the most.
inline constexpr int kGateThreads = 896;
int gate_threads(const InputView& y);

}  // namespace atom::backend::cuda::hopper
