#include "quantizer/solver.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/random.h"
#include "testing/expect_error.h"

namespace atom::quantizer {
namespace {

std::vector<float> normal_rows(size_t count, uint64_t seed) {
  Random random(seed);
  std::vector<float> out(count);
  for (float& v : out) v = static_cast<float>(random.normal());
  return out;
}

TEST(Solver, GramEqualsTheNaiveSum) {
  Executor executor({.threads = 2});
  const auto solver = make_cpu_solver(executor);
  const int k = 150, rows = 90;  // two tiles, the second one short
  const std::vector<float> x = normal_rows(size_t{rows} * k, 1);
  std::vector<float> gram(size_t{k} * k, 0.0f);
  solver->add_gram(x.data(), 60, k, gram.data());
  solver->add_gram(x.data() + 60 * k, rows - 60, k, gram.data());
  solver->finish_gram(k, gram.data());
  for (int i = 0; i < k; ++i)
    for (int j = 0; j < k; ++j) {
      double want = 0, magnitude = 0;
      for (int r = 0; r < rows; ++r) {
        want += double{x[r * k + i]} * x[r * k + j];
        magnitude += std::abs(double{x[r * k + i]} * x[r * k + j]);
      }
      // A sum of `rows` f32 products: at most rows * 2^-24 of the magnitudes.
      ASSERT_NEAR(gram[i * k + j], want, rows * 0x1p-24 * magnitude) << i << " " << j;
    }
}

TEST(Solver, FactorIsThatOfTheInverse) {
  Executor executor({.threads = 2});
  const auto solver = make_cpu_solver(executor);
  const int k = 300;  // three tiles
  const std::vector<float> x = normal_rows(size_t{900} * k, 2);
  std::vector<float> gram(size_t{k} * k, 0.0f);
  solver->add_gram(x.data(), 900, k, gram.data());
  solver->finish_gram(k, gram.data());
  std::vector<float> u(gram.size());
  const std::vector<double> diagonal(k, 5.0);
  ASSERT_TRUE(solver->inverse_factor(gram.data(), k, diagonal.data(), u.data()));
  // U A U^T = I when U^T U = A^-1.
  double worst = 0;
  std::vector<double> product(size_t{k} * k, 0.0);
  for (int i = 0; i < k; ++i)
    for (int p = i; p < k; ++p)
      for (int j = 0; j < k; ++j)
        product[i * k + j] += double{u[i * k + p]} * (gram[p * k + j] + (p == j ? 5.0 : 0.0));
  for (int i = 0; i < k; ++i)
    for (int j = 0; j < k; ++j) {
      if (j < i) {
        ASSERT_EQ(u[i * k + j], 0.0f);
      }
      double sum = 0;
      for (int p = 0; p < k; ++p) sum += product[i * k + p] * u[j * k + p];
      worst = std::max(worst, std::abs(sum - (i == j ? 1.0 : 0.0)));
    }
  // u is rounded to f32 (2^-24) and multiplied twice by a matrix of condition number below 100.
  EXPECT_LT(worst, 1e-4);
}

TEST(Solver, IndefiniteMatrixIsReported) {
  Executor executor({.threads = 1});
  const auto solver = make_cpu_solver(executor);
  const std::vector<float> gram = {1, 2, 2, 1};
  const double none[2] = {0, 0};
  std::vector<float> u(4);
  EXPECT_FALSE(solver->inverse_factor(gram.data(), 2, none, u.data()));
  const double much[2] = {2, 2};
  EXPECT_TRUE(solver->inverse_factor(gram.data(), 2, much, u.data()));
}

TEST(Solver, DampingGrowsUntilTheMatrixCanBeFactored) {
  Executor executor({.threads = 1});
  const auto solver = make_cpu_solver(executor);
  // Eigenvalues 4 and -2: 0.01, 0.1 and 1 of the mean diagonal leave the second one negative.
  const Factor factor = damped_factor(*solver, {.k = 2, .rows = 100, .values = {1, 3, 3, 1}}, "w");
  EXPECT_NEAR(factor.damping, 10.0, 1e-9);
  const Factor plain = damped_factor(*solver, {.k = 2, .rows = 100, .values = {2, 1, 1, 2}}, "w");
  EXPECT_EQ(plain.damping, 0.01);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  atom::testing::expect_error(
      [&] {
        damped_factor(*solver, {.k = 2, .rows = 100, .values = {1, 0, 0, nan}}, "the.module");
      },
      {"the.module", "finite"});
}

TEST(Solver, OutputEnergyIsTheSquaredNormOfTheOutputs) {
  Executor executor({.threads = 2});
  const auto solver = make_cpu_solver(executor);
  const int n = 70, k = 40, rows = 100;
  const std::vector<float> w = normal_rows(size_t{n} * k, 3), x = normal_rows(size_t{rows} * k, 4);
  std::vector<float> gram(size_t{k} * k, 0.0f);
  solver->add_gram(x.data(), rows, k, gram.data());
  solver->finish_gram(k, gram.data());
  double want = 0;
  for (int r = 0; r < rows; ++r)
    for (int i = 0; i < n; ++i) {
      double y = 0;
      for (int j = 0; j < k; ++j) y += double{w[i * k + j]} * x[r * k + j];
      want += y * y;
    }
  EXPECT_NEAR(solver->output_energy(w.data(), n, k, gram.data()) / want, 1.0, 1e-4);
}

}  // namespace
}  // namespace atom::quantizer
