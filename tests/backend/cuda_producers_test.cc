// Which rows the Hopper producers take, and in how many threads: pure functions that can be asked anywhere.
#include <gtest/gtest.h>

#include "backend/cuda/hopper_producers.h"

namespace atom::backend::cuda::hopper {
namespace {

InputSegment segment(Scaling scaling, int size, int group) {
  return {.size = size,
          .group = group,
          .groups = group == 0 ? 0 : (size + group - 1) / group,
          .scaling = scaling};
}

ProduceTask task(Source source, InputSegment normal, InputSegment kept = {}) {
  ProduceTask t;
  t.source = source;
  t.y.at[0] = normal;
  t.y.at[1] = kept;
  return t;
}

const InputSegment kKept = segment(Scaling::kInt8, 128, 128);

TEST(HopperProducers, TakeTheShapesOfModels) {
  for (const int k : {2048, 4096, 5120, 8192, 16384})
    for (const Source source : {Source::kNorm, Source::kRows}) {
      EXPECT_TRUE(can_produce(task(source, segment(Scaling::kInt8, k, k)))) << k;
      EXPECT_TRUE(can_produce(task(source, segment(Scaling::kInt8, k - 128, k - 128), kKept))) << k;
      EXPECT_TRUE(can_produce(task(source, segment(Scaling::kInt4, k - 128, 128), kKept))) << k;
    }
  for (const int k : {11008, 14336, 28672, 53248}) {
    EXPECT_TRUE(can_produce(task(Source::kGate, segment(Scaling::kInt8, k - 128, k - 128), kKept)));
    EXPECT_TRUE(can_produce(task(Source::kGate, segment(Scaling::kNvfp4, k, 16)))) << k;
  }
  EXPECT_TRUE(can_produce(task(Source::kGate, segment(Scaling::kInt4, 131072, 128))));
}

TEST(HopperProducers, WholeTilesAndIntegerStepsAreQuick) {
  for (const Source source : {Source::kNorm, Source::kRows, Source::kGate}) {
    EXPECT_TRUE(can_be_quick(task(source, segment(Scaling::kInt8, 8192, 8192))));
    EXPECT_TRUE(can_be_quick(task(source, segment(Scaling::kInt4Signed, 8064, 128), kKept)));
    EXPECT_FALSE(can_be_quick(task(source, segment(Scaling::kInt8, 8196, 8196))));
    EXPECT_FALSE(can_be_quick(task(source, segment(Scaling::kInt4, 8192, 64))));
    EXPECT_FALSE(can_be_quick(task(source, segment(Scaling::kNvfp4, 8192, 16))));
    EXPECT_FALSE(can_be_quick(task(source, segment(Scaling::kInt8, 8192, 0))));
    const InputSegment many = segment(Scaling::kInt8, 4096, 4096);
    EXPECT_FALSE(can_be_quick(task(source, many, many)));
  }
  EXPECT_FALSE(can_be_quick(task(Source::kGate, segment(Scaling::kInt8, 53248, 53248))));
}

// Rows that wait share a multiprocessor's memory; a cluster's blocks all fit a device at once.
TEST(HopperProducers, QuickGateFitsItsMultiprocessor) {
  constexpr int kMultiprocessors = 132, kShared = 227 * 1024, kMostWarps = 64;
  for (const int rows : {1, 8, 16, 64, 128, 129, 4096})
    for (const int size : {128, 640, 4096, 11008, 14336, 28672})
      for (const int group : {128, size}) {
        InputView y;
        y.rows = rows;
        y.at[0] = segment(Scaling::kInt8, size, group);
        for (const int value_bytes : {4, 2}) {
          const GatePlan plan = quick_gate_plan(y, value_bytes);
          EXPECT_GE(plan.blocks, 1);
          EXPECT_LE(plan.blocks * plan.shared_bytes, kShared);
          EXPECT_EQ(plan.blocks * plan.threads, 768);
          EXPECT_EQ(plan.threads / plan.crews % 32, 0);
          EXPECT_LE(plan.blocks * plan.crews, rows > 128 ? 2 : 1);
          EXPECT_TRUE(value_bytes == 2 ? plan.blocks == 1 : plan.crews == 1);
        }
        const int blocks = few_gate_blocks(y, row_cut(y).any_wide(), kMultiprocessors);
        EXPECT_TRUE(blocks == 0 || rows <= kMultiprocessors) << rows;
        if (blocks == 0) continue;
        const int tiles = (row_cut(y).count() + blocks - 1) / blocks;
        EXPECT_LE((tiles * 8 + 31) / 32 * blocks, kMostWarps);
        EXPECT_TRUE(!row_cut(y).any_wide() || (blocks > 1 && rows * blocks <= kMultiprocessors))
            << rows;
      }
}

// From f16 by the table of silu; without it, or where it does not lie well, the general gate.
TEST(HopperProducers, GatesFromF16AreQuickByATable) {
  alignas(16) uint16_t x[16] = {};
  alignas(16) int8_t offsets[32] = {};
  ProduceTask gate = task(Source::kGate, segment(Scaling::kInt8, 10880, 10880), kKept);
  gate.x_f16 = x;
  EXPECT_TRUE(can_produce(gate));
  EXPECT_FALSE(can_be_quick(gate));
  gate.silu_offsets = offsets;
  EXPECT_TRUE(can_be_quick(gate));
  gate.silu_offsets = offsets + 1;
  EXPECT_FALSE(can_be_quick(gate));
  gate.silu_offsets = offsets;
  gate.x_f16 = x + 4;
  EXPECT_FALSE(can_produce(gate));
}

// Beside f32, few rows for the next linear: of one segment in floating point.
TEST(HopperProducers, WriteHalvesOfFewRowsInFloatingPoint) {
  constexpr int kMultiprocessors = 132;
  const auto halves = [](Source source, int size, int rows, InputSegment kept = {}) {
    ProduceTask t = task(source, segment(Scaling::kInt8, size, 0), kept);
    t.y.rows = rows;
    return can_produce_half(t, kMultiprocessors);
  };
  for (const Source source : {Source::kNorm, Source::kRows, Source::kGate}) {
    EXPECT_TRUE(halves(source, 4096, 1));
    EXPECT_TRUE(halves(source, 4096, 64));
    EXPECT_FALSE(halves(source, 4096, 129));
    EXPECT_FALSE(halves(source, 4096, 8, kKept));
  }
  EXPECT_TRUE(halves(Source::kNorm, 4100, 8));
  EXPECT_FALSE(halves(Source::kGate, 11012, 8));
  EXPECT_TRUE(halves(Source::kGate, 11008, 64));
  EXPECT_FALSE(halves(Source::kGate, 11008, 128));  // a cluster of two would not find room for all
  ProduceTask codes = task(Source::kNorm, segment(Scaling::kInt8, 4096, 4096));
  codes.y.rows = 8;
  EXPECT_FALSE(can_produce_half(codes, kMultiprocessors));
}

TEST(HopperProducers, LeaveOddOnesToThePlainKernels) {
  EXPECT_FALSE(can_produce(task(Source::kNorm, segment(Scaling::kInt8, 4098, 4098))));
  EXPECT_FALSE(can_produce(task(Source::kRows, segment(Scaling::kInt4, 4096, 256))));
  EXPECT_FALSE(can_produce(task(Source::kNorm, segment(Scaling::kInt8, 16388, 16388))));
  EXPECT_FALSE(can_produce(task(Source::kGate, segment(Scaling::kInt8, 65536, 65536))));
  const int32_t order[4] = {};
  ProduceTask gate = task(Source::kGate, segment(Scaling::kInt8, 4096, 4096));
  gate.order = order;
  EXPECT_FALSE(can_produce(gate));
  alignas(16) float x[8] = {};
  ProduceTask rows = task(Source::kRows, segment(Scaling::kInt8, 4096, 4096));
  rows.x = x;
  EXPECT_TRUE(can_produce(rows));
  rows.x = x + 1;
  EXPECT_FALSE(can_produce(rows));
}

TEST(HopperProducers, WideSegmentsHaveOneScaleForSeveralTiles) {
  const auto wide = [](InputSegment s) {
    InputView y;
    y.at[0] = s;
    return row_cut(y).wide[0] != 0;
  };
  EXPECT_TRUE(wide(segment(Scaling::kInt8, 132, 132)));
  EXPECT_FALSE(wide(segment(Scaling::kInt8, 128, 128)));
  EXPECT_TRUE(wide(segment(Scaling::kInt4, 4096, 4096)));
  EXPECT_FALSE(wide(segment(Scaling::kInt4, 4096, 128)));
  EXPECT_TRUE(wide(segment(Scaling::kNvfp4, 64, 16)));
  EXPECT_FALSE(wide(segment(Scaling::kInt8, 4096, 0)));  // floating point
}

// Whole warps, no more than there are registers for, no more than the row has tiles for.
TEST(HopperProducers, GateHasThreadsForItsTiles) {
  for (const int rows : {1, 64, 128, 129, 4096})
    for (const int size : {4, 128, 1000, 4096, 11008, 14336, 28672, 131072})
      for (const int group : {128, size}) {
        InputView y;
        y.rows = rows;
        y.at[0] = segment(Scaling::kInt4, size, group);
        const int threads = gate_threads(y), tiles = (size + kTile - 1) / kTile;
        EXPECT_EQ(threads % 32, 0);
        EXPECT_GE(threads, 32);
        EXPECT_LE(threads, kGateThreads);
        EXPECT_LT(threads, 8 * tiles + 32) << size;
        if (rows <= 128 && 8 * tiles <= kGateThreads) {
          EXPECT_GE(threads, 8 * tiles);
        }
      }
}

}  // namespace
}  // namespace atom::backend::cuda::hopper
