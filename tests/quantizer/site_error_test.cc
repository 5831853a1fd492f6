#include "quantizer/site_error.h"

#include <gtest/gtest.h>

#include <numeric>

#include "base/random.h"

namespace atom::quantizer {
namespace {

using Readers1 = std::vector<std::vector<const model::LinearTensors*>>;

// Outliers in the last 16 of 64 channels: keeping them takes nearly all of the error away, more takes little.
TEST(SiteError, FallsWhereOutliersAreKept) {
  Executor executor({.threads = 1});
  const auto solver = make_cpu_solver(executor);
  Random random(3);
  constexpr int kRows = 64, kK = 64, kN = 24;
  std::vector<float> x, w;
  for (int i = 0; i < kRows * kK; ++i)
    x.push_back(static_cast<float>(random.normal() * (i % kK >= 48 ? 30 : 1)));
  for (int i = 0; i < kN * kK; ++i) w.push_back(static_cast<float>(random.normal()));
  const model::LinearTensors linear = model::from_f32("w", kN, kK, format::kF32, w.data());
  InputSample sample;
  sample.add({.site = SiteKind::kOut, .expert = 0, .x = x.data(), .rows = kRows, .k = kK});
  const Readers1 readers(1, std::vector<const model::LinearTensors*>(1, &linear));
  const auto error = [&](int kept, int hadamard = 0) {
    return kept_error(sample, SiteKind::kOut, readers,
                      {.normal = {format::int4(32), kK - kept}, .hadamard = hadamard}, *solver);
  };
  // A channel beside outliers of 30 loses itself in a step of about 10: its own energy, and the outliers' step^2 / 12.
  EXPECT_GT(error(0).inputs, 30 * error(16).inputs);
  EXPECT_GT(error(0).weights, 30 * error(16).weights);
  EXPECT_GT(error(16).inputs, error(32).inputs);
  EXPECT_LT(error(16).inputs, 2 * error(32).inputs);
  EXPECT_EQ(error(kK).inputs, 0);
  EXPECT_EQ(error(kK).weights, 0);
  EXPECT_GT(error(16, 16).inputs, 0);
  EXPECT_EQ(
      kept_error(sample, SiteKind::kDown, readers, {.normal = {format::int4(32), kK}}, *solver)
          .inputs,
      0);
}

// A transform deals what is loud out evenly: good for a single loud channel in a group, bad for groups that are each of one
// loudness, whose steps then all become that of the loudest.
TEST(SiteError, TellsWhereATransformHurts) {
  Executor executor({.threads = 1});
  const auto solver = make_cpu_solver(executor);
  constexpr int kRows = 64, kK = 128, kN = 24;
  const auto error = [&](bool one_loud, int hadamard) {
    Random random(3);
    std::vector<float> x, w;
    for (int i = 0; i < kRows * kK; ++i) {
      const bool loud = one_loud ? i % 32 == 7 : i % kK >= 96;
      x.push_back(static_cast<float>(random.normal()) * (loud ? 8.0f : 1.0f));
    }
    for (int i = 0; i < kN * kK; ++i) w.push_back(static_cast<float>(random.normal()));
    const model::LinearTensors linear = model::from_f32("w", kN, kK, format::kF32, w.data());
    InputSample sample;
    sample.add({.site = SiteKind::kOut, .expert = 0, .x = x.data(), .rows = kRows, .k = kK});
    const Readers1 readers(1, std::vector<const model::LinearTensors*>(1, &linear));
    return kept_error(sample, SiteKind::kOut, readers,
                      {.normal = {format::int4(32), kK}, .hadamard = hadamard}, *solver)
        .inputs;
  };
  EXPECT_LT(error(true, 128), 0.7 * error(true, 0));
  EXPECT_GT(error(false, 128), error(false, 0));
}

// One site of 64 channels. Channel 5 has loud inputs that no weight reads; 40 and 41 are less loud, but read.
class Costs : public ::testing::Test {
 protected:
  static constexpr int kRows = 64, kK = 64, kN = 24;

  Costs() : executor_({.threads = 1}), solver_(make_cpu_solver(executor_)) {
    Random random(3);
    std::vector<float> x, w;
    for (int i = 0; i < kRows * kK; ++i)
      x.push_back(static_cast<float>(random.normal()) * (i % kK == 5 ? 50.0f : loud(i) ? 20 : 1));
    for (int i = 0; i < kN * kK; ++i)
      w.push_back(i % kK == 5 ? 0.0f : static_cast<float>(random.normal()));
    linear_ = model::from_f32("w", kN, kK, format::kF32, w.data());
    readers_.emplace_back(1, &linear_);
    sample_.add({.site = SiteKind::kOut, .expert = 0, .x = x.data(), .rows = kRows, .k = kK});
  }
  static bool loud(int i) { return i % kK == 40 || i % kK == 41; }

  KeptProblem problem(int kept, int hadamard = 0) const {
    return {.normal = {format::int4(32), kK - kept}, .hadamard = hadamard};
  }

  Executor executor_;
  std::unique_ptr<Solver> solver_;
  model::LinearTensors linear_;
  Readers1 readers_;
  InputSample sample_;
};

TEST_F(Costs, WhatIsReadIsKept) {
  const auto orders = costliest_last(sample_, SiteKind::kOut, readers_, problem(2), 2);
  ASSERT_EQ(orders.size(), 1u);
  EXPECT_EQ(orders[0][62], 40);
  EXPECT_EQ(orders[0][63], 41);
  Permutation sorted = orders[0], all(kK);
  std::sort(sorted.begin(), sorted.end());
  std::iota(all.begin(), all.end(), 0);
  EXPECT_EQ(sorted, all);
  EXPECT_TRUE(std::is_sorted(orders[0].begin(), orders[0].end() - 2));

  KeptProblem moved = problem(2);
  moved.orders = orders;
  const KeptError there = kept_error(sample_, SiteKind::kOut, readers_, problem(2), *solver_),
                  better = kept_error(sample_, SiteKind::kOut, readers_, moved, *solver_);
  // 40 and 41 took the others of their group with them; channel 5 still does.
  EXPECT_NEAR(better.inputs, there.inputs / 2, there.inputs / 10);
}

// Under a Hadamard transform what is loud harms its whole block, read or not.
TEST_F(Costs, WhatIsLoudIsKeptUnderATransform) {
  const auto orders = costliest_last(sample_, SiteKind::kOut, readers_, problem(1, 64), 1);
  EXPECT_EQ(orders[0].back(), 5);
}

TEST_F(Costs, EveryExpertOfDownHasItsOwn) {
  readers_.emplace_back(1, &linear_);
  InputSample sample;
  std::vector<float> x(size_t{2} * kK, 1.0f);
  x[7] = x[7 + kK] = 30;
  sample.add({.site = SiteKind::kDown, .expert = 1, .x = x.data(), .rows = 2, .k = kK});
  const auto orders = costliest_last(sample, SiteKind::kDown, readers_, problem(1), 1);
  ASSERT_EQ(orders.size(), 2u);
  EXPECT_EQ(orders[0].back(), kK - 1);  // no token: nothing moves
  EXPECT_EQ(orders[1].back(), 7);
}

TEST_F(Costs, RoundedChangesOnlyWhatIsNotKept) {
  const std::vector<float> before = model::to_f32(linear_),
                           after = model::to_f32(rounded(linear_, problem(16)));
  for (size_t i = 0; i < before.size(); ++i) EXPECT_TRUE(i % kK < 48 || after[i] == before[i]) << i;
  EXPECT_NE(after, before);
}

}  // namespace
}  // namespace atom::quantizer
