// The choice of a Hopper kernel for floating-point inputs is a pure function: it can be asked anywhere.
#include <gtest/gtest.h>

#include <algorithm>

#include "backend/cuda/hopper_half_tuned.h"

namespace atom::backend::cuda::hopper {
namespace {

HalfWeight weight_of(HalfKind kind, int n, int k) {
  HalfWeight w;
  w.kind = kind;
  w.n = n;
  w.k = k;
  return w;
}

TEST(HopperHalfPlan, IsAKernelThatExists) {
  for (const int multiprocessors : {132, 114, 78})
    for (const HalfKind kind : {HalfKind::kF16, HalfKind::kInt4})
      for (const int n : {1, 64, 100, 130, 4096, 12288, 128256})
        for (const int k : {1, 128, 1000, 4096, 28672})
          for (const int rows : {1, 8, 9, 33, 64, 65, 128, 129, 300, 1000, 5000})
            for (const bool by_expert : {false, true}) {
              const HalfWeight w = weight_of(kind, n, k);
              SCOPED_TRACE(::testing::Message() << n << " x " << k << ", " << rows << " rows");
              const Plan p = half_plan(rows, w, by_expert, multiprocessors);
              EXPECT_TRUE(has_half_kernel(kind, p));
              EXPECT_LE(p.cluster * p.groups, std::max(1, half_slots(k)));
            }
}

TEST(HopperHalfPlan, ForAnyRowsNeverCutsK) {
  for (const HalfKind kind : {HalfKind::kF16, HalfKind::kInt4})
    for (const int n : {64, 4096, 32000})
      for (const int rows : {1, 8, 17, 64, 100, 4096}) {
        const HalfWeight w = weight_of(kind, n, 4096);
        const Plan p = half_plan_for_any_rows(rows, w, 132);
        EXPECT_TRUE(has_half_kernel(kind, p));
        EXPECT_EQ(p.cluster, 1);
        EXPECT_EQ(p.groups, 1);
      }
}

TEST(HopperHalfPlan, OfAMeasuredShapeIsTheMeasuredOne) {
  for (const HalfTuned& t : kHalfTuned)
    for (int i = 0; i < kHalfTunedClasses; ++i) {
      const Plan p =
          half_plan(kHalfTunedRows[i], weight_of(t.kind, t.n, t.k), false, kTunedMultiprocessors);
      EXPECT_TRUE(has_half_kernel(t.kind, t.plan[i]));
      EXPECT_EQ(p.rows, t.plan[i].rows);
      EXPECT_EQ(p.blocks, t.plan[i].blocks);
      EXPECT_EQ(p.groups, t.plan[i].groups);
      EXPECT_EQ(p.cluster, t.plan[i].cluster);
      EXPECT_EQ(p.many, t.plan[i].many);
    }
}

}  // namespace
}  // namespace atom::backend::cuda::hopper
