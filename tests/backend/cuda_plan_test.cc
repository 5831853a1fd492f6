// The choice of a Hopper kernel is a pure function: it can be asked anywhere.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <span>

#include "backend/cuda/hopper_tuned.h"

namespace atom::backend::cuda::hopper {
namespace {

Weight weight_of(int n, int slots4, int slots8, bool grouped = false) {
  Weight w;
  w.grouped = grouped ? 1 : 0;
  w.n = n;
  w.slots4 = slots4;
  w.slots8 = slots8;
  return w;
}

void expect_launchable(const Plan& p, const Weight& w, bool by_expert) {
  if (!p.many) {
    EXPECT_FALSE(by_expert);
    EXPECT_TRUE(has_few_rows_kernel(w, p.rows, p.blocks, p.groups));
    EXPECT_TRUE(p.cluster == 1 || p.cluster == 2);
    EXPECT_LE(p.cluster, w.slots4 + w.slots8);
    return;
  }
  EXPECT_TRUE(has_many_rows_kernel(w.grouped != 0, p.rows, p.blocks, p.cluster, p.groups));
  if (p.blocks == 4) {  // whole tiles
    EXPECT_EQ(packed_blocks(w.n) % 4, 0);
  }
  if (p.blocks > 2) {  // few int8 slots beside int4 ones
    EXPECT_TRUE(w.slots4 == 0 || w.slots8 <= 2);
  }
  if (p.rows ==
      256) {  // needs int4 sums, few int8 slots, aligned results and rows known to the host
    EXPECT_GT(w.slots4, 0);
    EXPECT_LE(w.slots8, w.grouped != 0 ? 4 : 2);
    EXPECT_EQ(w.n % 8, 0);
    EXPECT_FALSE(by_expert);
  }
}

TEST(HopperPlan, IsAKernelThatExists) {
  for (const int multiprocessors : {132, 114, 78})
    for (const int n : {1, 64, 100, 130, 512, 4096, 12288, 57344})
      for (const auto& [slots4, slots8] :
           {std::pair{1, 0}, {0, 1}, {3, 1}, {31, 2}, {0, 64}, {31, 8}, {223, 2}})
        for (const int rows : {1, 8, 9, 16, 17, 33, 64, 65, 127, 256, 300, 1000, 5000})
          for (const bool by_expert : {false, true})
            for (const bool grouped : {false, true}) {
              if (grouped && slots4 == 0) continue;
              const Weight w = weight_of(n, slots4, slots8, grouped);
              SCOPED_TRACE(::testing::Message() << n << " " << slots4 << "+" << slots8 << " "
                                                << rows << (grouped ? " grouped" : ""));
              expect_launchable(plan(rows, w, by_expert, multiprocessors), w, by_expert);
              const Plan in_order = plan_in_order(rows, w, by_expert, multiprocessors);
              expect_launchable(in_order, w, by_expert);
              EXPECT_TRUE(!grouped || in_order.many || in_order.groups * in_order.cluster == 1);
            }
}

void expect_same(const Plan& p, const Plan& measured) {
  EXPECT_EQ(p.rows, measured.rows);
  EXPECT_EQ(p.blocks, measured.blocks);
  EXPECT_EQ(p.groups, measured.groups);
  EXPECT_EQ(p.cluster, measured.cluster);
  EXPECT_EQ(p.many, measured.many);
}
void expect_measured(std::span<const Tuned> table, bool grouped) {
  for (const Tuned& t : table)
    for (int i = 0; i < kTunedClasses; ++i) {
      const Weight w = weight_of(t.blocks * kBlockOutputs, t.slots - 2, 2, grouped);
      expect_same(plan(kTunedRows[i], w, false, kTunedMultiprocessors), t.plan[i]);
    }
}

TEST(HopperPlan, OfAMeasuredShapeIsTheMeasuredOne) {
  expect_measured(kTuned, false);
  expect_measured(kTunedGrouped, true);
}

// w8a8 has plans of its own for some classes of rows, those of w4a8 for the others.
TEST(HopperPlan, OfInt8IsItsOwnWhereItWasMeasured) {
  for (const TunedInt8& t : kTunedInt8) {
    const Weight w = weight_of(t.blocks * kBlockOutputs, 0, 2 * t.slots);
    expect_same(plan(t.rows, w, false, kTunedMultiprocessors), t.plan);
    for (const Tuned& of_int4 : kTuned)
      if (of_int4.blocks == t.blocks && of_int4.slots == t.slots + 1)
        expect_same(plan(128, w, false, kTunedMultiprocessors), of_int4.plan[4]);
  }
}

TEST(HopperPlan, SaysWhereItComesFrom) {
  EXPECT_STREQ(origin_of_plans(kTunedMultiprocessors), "plans measured on an H200 and an H100");
  EXPECT_STREQ(origin_of_plans(78), "estimated plans");
}

TEST(HopperPlan, TakesWiderTilesForMoreRows) {
  const Weight w = weight_of(12288, 31, 2);
  int before = 0;
  for (const int rows : {1, 16, 32, 64, 128, 4096}) {
    const Plan p = plan(rows, w, false, kTunedMultiprocessors);
    EXPECT_GE(p.rows, before);
    EXPECT_GE(p.rows, std::min(rows, 64));
    before = p.rows;
  }
}

}  // namespace
}  // namespace atom::backend::cuda::hopper
