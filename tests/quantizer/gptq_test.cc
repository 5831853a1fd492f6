#include "quantizer/gptq.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/random.h"
#include "format/quantize.h"
#include "quantizer/solver.h"
#include "testing/expect_error.h"

namespace atom::quantizer {
namespace {

std::vector<float> normals(size_t count, uint64_t seed) {
  Random random(seed);
  std::vector<float> out(count);
  for (float& v : out) v = static_cast<float>(random.normal());
  return out;
}

// Inputs whose channels are correlated and of different size, as a model's are.
std::vector<float> inputs(int rows, int k, uint64_t seed) {
  std::vector<float> x = normals(static_cast<size_t>(rows) * k, seed);
  for (int r = 0; r < rows; ++r)
    for (int c = 1; c < k; ++c)
      x[r * k + c] += 0.6f * x[r * k + c - 1] * (c % 7 == 0 ? 4.0f : 1.0f);
  return x;
}

Gram gram_of(Solver& solver, const std::vector<float>& x, int k) {
  Gram gram{.k = k, .rows = static_cast<int64_t>(x.size()) / k, .values = {}};
  gram.values.resize(static_cast<size_t>(k) * k);
  solver.add_gram(x.data(), static_cast<int>(gram.rows), k, gram.values.data());
  solver.finish_gram(k, gram.values.data());
  return gram;
}

// In-place Gauss-Jordan inverse in f64.
std::vector<double> inverse(std::vector<double> a, int k) {
  for (int p = 0; p < k; ++p) {
    const double pivot = a[p * k + p];
    a[p * k + p] = 1;
    for (int j = 0; j < k; ++j) a[p * k + j] /= pivot;
    for (int i = 0; i < k; ++i) {
      if (i == p) continue;
      const double factor = a[i * k + p];
      a[i * k + p] = 0;
      for (int j = 0; j < k; ++j) a[i * k + j] -= factor * a[p * k + j];
    }
  }
  return a;
}

struct Naive {
  std::vector<int> codes;      // [normal]
  std::vector<double> scales;  // [groups]
  std::vector<double> rest;    // [k - normal]
  double margin =
      1;  // smallest distance of x / s to a rounding tie, and of s to an f16 tie (relative)
};

// The optimal-brain-surgeon form of GPTQ for one row, O(k^3): after each column the inverse Hessian
// of the remaining columns is computed anew by elimination, without any Cholesky factor or lazy
// update. `fixed_scales` of the groups are not empty when they do not depend on the compensation.
// The nearest code of E2M1 (twice the value), and how far `x` is from a tie.
std::pair<int, double> nearest_e2m1(double x) {
  std::vector<std::pair<double, int>> distances;
  for (const int code : {-12, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 12})
    distances.emplace_back(std::abs(x - code), code);
  std::sort(distances.begin(), distances.end());
  return {distances[0].second, (distances[1].first - distances[0].first) / 2};
}

Naive naive_row(std::vector<double> w, const std::vector<double>& damped, int k,
                format::Segment normal, double clip, const std::vector<double>& fixed_scales) {
  Naive out;
  const int group = format::group_size(normal.format, normal.size);
  std::vector<double> h_inverse = inverse(damped, k);
  const bool e2m1 = format::is_e2m1(normal.format);
  double scale = 1;
  for (int i = 0; i < normal.size; ++i) {
    if (i % group == 0 && !fixed_scales.empty()) {
      scale = fixed_scales[static_cast<size_t>(i / group)];
    } else if (i % group == 0) {
      double absmax = 0;
      for (int j = i; j < std::min(i + group, normal.size); ++j)
        absmax = std::max(absmax, std::abs(w[j]));
      const double wanted = e2m1 ? absmax * clip / 12 : 2 * absmax * clip / 15;
      scale = format::f16_to_f32(format::f32_to_f16(static_cast<float>(wanted)));
      const double ulp = std::exp2(std::floor(std::log2(wanted)) - 10);
      out.margin = std::min(out.margin, std::abs(0.5 - std::abs(wanted - scale) / ulp));
      out.scales.push_back(scale);
    }
    const double steps = w[i] / scale;
    out.margin = std::min(out.margin, std::abs(std::abs(steps - std::nearbyint(steps)) - 0.5));
    int code = static_cast<int>(std::clamp(std::nearbyint(steps), -8.0, 7.0));
    if (e2m1) {
      const auto [nearest, margin] = nearest_e2m1(steps);
      code = nearest;
      out.margin = std::min(out.margin, margin);
    }
    out.codes.push_back(code);
    const double error = (w[i] - scale * code) / h_inverse[i * k + i];
    for (int j = i + 1; j < k; ++j) w[j] -= error * h_inverse[i * k + j];
    const double pivot = h_inverse[i * k + i];
    for (int a = i + 1; a < k; ++a)
      for (int b = i + 1; b < k; ++b)
        h_inverse[a * k + b] -= h_inverse[a * k + i] * h_inverse[i * k + b] / pivot;
  }
  out.rest.assign(w.begin() + normal.size, w.end());
  return out;
}

class Gptq : public ::testing::Test {
 protected:
  Executor executor_{{.threads = 2}};
  std::unique_ptr<Solver> solver_ = make_cpu_solver(executor_);

  // Scales of one row's groups, where rounding to nearest and GPTQ share them.
  static std::vector<double> fixed_scales(const Rounded& r, int row, int groups) {
    std::vector<double> out;
    for (int g = 0; g < groups && !r.row_scales.empty(); ++g)
      out.push_back(r.row_scales[row] * static_cast<float>(r.multipliers[row * groups + g]));
    return out;
  }

  void compare_with_naive(int n, int k, format::Segment normal, float clip) {
    const std::vector<float> w = normals(static_cast<size_t>(n) * k, 1);
    const Gram gram = gram_of(*solver_, inputs(3 * k, k, 2), k);
    const Factor factor = damped_factor(*solver_, gram, "w");
    const RoundingProblem problem{.name = "w",
                                  .weight = w.data(),
                                  .n = n,
                                  .k = k,
                                  .normal = normal,
                                  .clip = clip,
                                  .factor = factor.u.data(),
                                  .dead = factor.dead};
    const Rounded got = solver_->gptq(problem), nearest = round_nearest(problem);
    EXPECT_EQ(got.row_scales, nearest.row_scales);
    EXPECT_EQ(got.multipliers, nearest.multipliers);
    std::vector<double> damped(gram.values.begin(), gram.values.end());
    double mean = 0;
    for (int i = 0; i < k; ++i) mean += damped[i * k + i] / k;
    for (int i = 0; i < k; ++i) damped[i * k + i] += 0.01 * mean;

    const int groups = format::groups(normal.format, normal.size);
    const double effective = normal.format.group == 0 ? 1.0 : double{clip};
    int clear = 0;
    for (int r = 0; r < n; ++r) {
      const Naive want = naive_row({w.begin() + r * k, w.begin() + (r + 1) * k}, damped, k, normal,
                                   effective, fixed_scales(nearest, r, groups));
      // f32 arithmetic over k columns moves a value by about k * 2^-24 of a few steps: rows with a
      // decision closer to a tie than 1e-4 of a step may differ from then on.
      if (want.margin < 1e-4) continue;
      ++clear;
      for (int i = 0; i < normal.size; ++i)
        ASSERT_EQ(got.codes[r * normal.size + i], want.codes[i]) << "row " << r << " column " << i;
      for (int g = 0; g < groups && !got.scales.empty(); ++g)
        ASSERT_EQ(format::f16_to_f32(got.scales[r * groups + g]),
                  want.scales[g] * (format::is_e2m1(normal.format) ? 2 : 1))
            << "row " << r;
      for (int i = 0; i < k - normal.size; ++i)
        ASSERT_NEAR(got.rest[r * (k - normal.size) + i], want.rest[i], 1e-3) << "row " << r;
    }
    EXPECT_GT(clear, n * 2 / 3);
  }
};

TEST_F(Gptq, EqualsTheNaiveAlgorithm) {
  compare_with_naive(40, 48, {format::int4(32), 48}, 1.0f);
  compare_with_naive(40, 80, {format::int4(32), 64}, 0.85f);
  compare_with_naive(40, 72, {format::int4(0), 56}, 0.85f);
}

TEST_F(Gptq, EqualsTheNaiveAlgorithmAcrossColumnPanels) {
  compare_with_naive(70, 160, {format::int4(64), 144},
                     0.85f);  // short last group, 128 + 16 columns
}

TEST_F(Gptq, EqualsTheNaiveAlgorithmOnTheValuesOfE2M1) {
  compare_with_naive(40, 80, {format::e2m1(32), 64}, 1.0f);
  compare_with_naive(70, 160, {format::e2m1(64), 144}, 0.85f);
}

TEST_F(Gptq, EqualsTheNaiveAlgorithmWithProgressiveScales) {
  compare_with_naive(40, 80, {format::int4_progressive(32), 64}, 0.85f);
  compare_with_naive(70, 160, {format::int4_progressive(64), 144}, 1.0f);
}

TEST_F(Gptq, BeatsRoundingToNearestOnTheObservedInputs) {
  const int n = 64, k = 192;
  const std::vector<float> w = normals(size_t{n} * k, 3);
  const Gram gram = gram_of(*solver_, inputs(600, k, 4), k);
  const Factor factor = damped_factor(*solver_, gram, "w");
  const RoundingProblem problem{.name = "w",
                                .weight = w.data(),
                                .n = n,
                                .k = k,
                                .normal = {format::int4(64), k},
                                .clip = 1.0f,
                                .factor = factor.u.data(),
                                .dead = factor.dead};
  const auto error = [&](const Rounded& r) {
    std::vector<float> d(w);
    for (int i = 0; i < n; ++i)
      for (int j = 0; j < k; ++j)
        d[i * k + j] -=
            format::f16_to_f32(r.scales[i * 3 + j / 64]) * static_cast<float>(r.codes[i * k + j]);
    return solver_->output_energy(d.data(), n, k, gram.values.data());
  };
  EXPECT_LT(error(solver_->gptq(problem)), 0.7 * error(round_nearest(problem)));
}

TEST_F(Gptq, KeptColumnsTakeTheErrorOfTheOthers) {
  const int n = 32, k = 96;
  const std::vector<float> w = normals(size_t{n} * k, 5);
  const Gram gram = gram_of(*solver_, inputs(400, k, 6), k);
  const Factor factor = damped_factor(*solver_, gram, "w");
  const Rounded r = solver_->gptq({.name = "w",
                                   .weight = w.data(),
                                   .n = n,
                                   .k = k,
                                   .normal = {format::int4(32), 64},
                                   .clip = 0.85f,
                                   .factor = factor.u.data(),
                                   .dead = factor.dead});
  // With the rest stored exactly, compensating it must help against leaving it.
  const auto error = [&](bool compensated) {
    std::vector<float> d(w);
    for (int i = 0; i < n; ++i)
      for (int j = 0; j < k; ++j)
        d[i * k + j] -= j < 64 ? format::f16_to_f32(r.scales[i * 2 + j / 32]) *
                                     static_cast<float>(r.codes[i * 64 + j])
                               : (compensated ? r.rest[i * 32 + j - 64] : w[i * k + j]);
    return solver_->output_energy(d.data(), n, k, gram.values.data());
  };
  EXPECT_LT(error(true), 0.9 * error(false));
}

TEST_F(Gptq, ColumnsThatNoTokenUsesBecomeZero) {
  const int n = 8, k = 64;
  const std::vector<float> w = normals(size_t{n} * k, 7);
  std::vector<float> x = inputs(300, k, 8);
  for (int r = 0; r < 300; ++r) x[r * k + 10] = x[r * k + 60] = 0;
  const Gram gram = gram_of(*solver_, x, k);
  const Factor factor = damped_factor(*solver_, gram, "w");
  EXPECT_EQ(std::count(factor.dead.begin(), factor.dead.end(), 1), 2);
  const Rounded r = solver_->gptq({.name = "w",
                                   .weight = w.data(),
                                   .n = n,
                                   .k = k,
                                   .normal = {format::int4(32), 48},
                                   .clip = 1.0f,
                                   .factor = factor.u.data(),
                                   .dead = factor.dead});
  for (int i = 0; i < n; ++i) {
    EXPECT_EQ(r.codes[i * 48 + 10], 0);
    EXPECT_EQ(r.rest[i * 16 + 12], 0.0f);
  }
}

TEST_F(Gptq, SplitsIntoRowsDoNotMatter) {
  const int n = 130, k = 200;
  const std::vector<float> w = normals(size_t{n} * k, 9);
  const Gram gram = gram_of(*solver_, inputs(500, k, 10), k);
  const Factor factor = damped_factor(*solver_, gram, "w");
  const RoundingProblem problem{.name = "w",
                                .weight = w.data(),
                                .n = n,
                                .k = k,
                                .normal = {format::int4(128), 184},
                                .clip = 0.85f,
                                .factor = factor.u.data(),
                                .dead = factor.dead};
  const Rounded a = solver_->gptq(problem);
  Executor one({.threads = 1});
  const Rounded b = make_cpu_solver(one)->gptq(problem);
  EXPECT_EQ(a.codes, b.codes);
  EXPECT_EQ(a.scales, b.scales);
  EXPECT_EQ(a.rest, b.rest);
}

TEST(RoundNearest, ScalesCodesAndShortGroups) {
  // Two groups of 32 and 16, then two columns that are left alone.
  std::vector<float> w(50, 0.0f);
  w[0] = 7.0f;
  w[1] = -7.0f;
  w[2] = 0.5f;  // tie to even: 0
  w[3] = 1.5f;  // tie to even: 2
  w[32] = 14.0f;
  w[48] = 3.0f;
  w[49] = -4.0f;
  const Rounded r = round_nearest({.name = "w",
                                   .weight = w.data(),
                                   .n = 1,
                                   .k = 50,
                                   .normal = {format::int4(32), 48},
                                   .clip = 1.0f,
                                   .factor = nullptr,
                                   .dead = {}});
  EXPECT_EQ(r.scales, (std::vector<uint16_t>{format::f32_to_f16(1.0f), format::f32_to_f16(2.0f)}));
  EXPECT_EQ(r.codes[0], 7);
  EXPECT_EQ(r.codes[1], -7);
  EXPECT_EQ(r.codes[2], 0);
  EXPECT_EQ(r.codes[3], 2);
  EXPECT_EQ(r.codes[32], 7);
  EXPECT_EQ(r.rest, (std::vector<float>{3.0f, -4.0f}));
}

TEST(RoundNearest, ClipCountsOnlyWithGroups) {
  const std::vector<float> w = normals(64, 12);
  const RoundingProblem row{.name = "w",
                            .weight = w.data(),
                            .n = 1,
                            .k = 64,
                            .normal = {format::int4(0), 64},
                            .clip = 0.5f,
                            .factor = nullptr,
                            .dead = {}};
  RoundingProblem unclipped = row;
  unclipped.clip = 1.0f;
  EXPECT_EQ(round_nearest(row).scales, round_nearest(unclipped).scales);
}

TEST(RoundNearest, ScaleBeyondF16IsAnErrorAndZerosAreNot) {
  const std::vector<float> w(32, 1e6f), zeros(32, 0.0f);
  atom::testing::expect_error(
      [&] {
        round_nearest({.name = "the.module",
                       .weight = w.data(),
                       .n = 1,
                       .k = 32,
                       .normal = {format::int4(32), 32},
                       .clip = 1.0f,
                       .factor = nullptr,
                       .dead = {}});
      },
      {"the.module", "f16"});
  const Rounded r = round_nearest({.name = "w",
                                   .weight = zeros.data(),
                                   .n = 1,
                                   .k = 32,
                                   .normal = {format::int4(32), 32},
                                   .clip = 1.0f,
                                   .factor = nullptr,
                                   .dead = {}});
  EXPECT_EQ(r.scales[0], 0x3c00);
  EXPECT_EQ(r.codes, std::vector<int8_t>(32, 0));
}

}  // namespace
}  // namespace atom::quantizer
