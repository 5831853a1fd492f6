#include "quantizer/refine.h"

#include <gtest/gtest.h>

#include "base/random.h"
#include "format/quantize.h"
#include "quantizer/solver.h"

namespace atom::quantizer {
namespace {

constexpr int kOutputs = 12, kWidth = 304, kKept = 48;

struct Layer {
  std::vector<float> weight;
  Gram gram;
  Factor factor;
};

// Correlated inputs, one of whose channels never speaks.
Layer make_layer(Solver& solver) {
  Random random(11);
  const int rows = 2000;
  std::vector<float> x(static_cast<size_t>(rows) * kWidth);
  for (float& v : x) v = static_cast<float>(random.normal());
  for (int r = 0; r < rows; ++r)
    for (int c = 1; c < kWidth; ++c) x[r * kWidth + c] += 0.7f * x[r * kWidth + c - 1];
  for (int r = 0; r < rows; ++r) x[r * kWidth + 40] = 0;
  Layer s;
  for (int i = 0; i < kOutputs * kWidth; ++i)
    s.weight.push_back(static_cast<float>(random.normal()));
  s.gram = {.k = kWidth, .rows = rows, .values = std::vector<float>(kWidth * kWidth)};
  solver.add_gram(x.data(), rows, kWidth, s.gram.values.data());
  solver.finish_gram(kWidth, s.gram.values.data());
  s.factor = damped_factor(solver, s.gram, "w");
  return s;
}

RoundingProblem problem_of(const Layer& s, format::Format format, bool refined) {
  return {.name = "w",
          .weight = s.weight.data(),
          .n = kOutputs,
          .k = kWidth,
          .normal = {format, kWidth - kKept},
          .clip = format == format::kMxfp4 ? 1.0f : 0.0f,
          .signed_scales = format::is_int4(format),
          .factor = s.factor.u.data(),
          .gram = refined ? s.gram.values.data() : nullptr,
          .damping = static_cast<float>(s.factor.added),
          .dead = s.factor.dead};
}

float step_of(const Rounded& r, format::Format format, int row, int group, int groups) {
  const size_t at = static_cast<size_t>(row * groups + group);
  if (format::is_progressive(format))
    return r.row_scales[static_cast<size_t>(row)] * static_cast<float>(r.multipliers[at]);
  if (format == format::kMxfp4) return format::Mxfp4::step(static_cast<uint8_t>(r.scales[at]));
  if (format == format::kNvfp4)
    return format::Nvfp4::step(static_cast<uint8_t>(r.scales[at])) / r.global();
  return format::f16_to_f32(r.scales[at]) * (format::is_e2m1(format) ? 0.5f : 1.0f);
}

// (w - q) H (w - q)^T in f64, H damped, without the columns that no token uses; and that no code leaves its range.
double error_of(const Layer& s, const Rounded& r, format::Format format, int row) {
  const int normal = kWidth - kKept, group = format::group_size(format, normal);
  const int groups = format::groups(format, normal);
  std::vector<double> e;
  for (int j = 0; j < kWidth; ++j) {
    double q;
    if (j < normal) {
      const int code = r.codes[static_cast<size_t>(row * normal + j)];
      EXPECT_LE(std::abs(code), format::is_e2m1(format) ? 12 : 8);
      EXPECT_LT(code, format::is_e2m1(format) ? 13 : 8);
      q = double{step_of(r, format, row, j / group, groups)} * code;
    } else {
      q = r.rest[static_cast<size_t>(row * kKept + j - normal)];
    }
    e.push_back(s.factor.dead[static_cast<size_t>(j)] != 0
                    ? 0.0
                    : double{s.weight[static_cast<size_t>(row * kWidth + j)]} - q);
  }
  double sum = 0;
  for (int i = 0; i < kWidth; ++i) {
    sum += s.factor.added * e[i] * e[i];
    for (int j = 0; j < kWidth; ++j)
      sum += e[i] * e[j] * double{s.gram.values[static_cast<size_t>(i * kWidth + j)]};
  }
  return sum;
}

TEST(Refine, LowersTheErrorOfEveryRow) {
  Executor executor({.threads = 1});
  const auto solver = make_cpu_solver(executor);
  const Layer s = make_layer(*solver);
  for (const format::Format format :
       {format::int4(128), format::int4(32), format::int4(0), format::int4_progressive(64),
        format::e2m1(128), format::kMxfp4, format::kNvfp4}) {
    const Rounded before = solver->gptq(problem_of(s, format, false));
    const Rounded after = solver->gptq(problem_of(s, format, true));
    double was = 0, is = 0;
    for (int row = 0; row < kOutputs; ++row) {
      const double a = error_of(s, before, format, row), b = error_of(s, after, format, row);
      EXPECT_LE(b, a * (1 + 1e-5)) << format::name(format) << " row " << row;
      was += a;
      is += b;
    }
    EXPECT_LT(is, 0.99 * was) << format::name(format);
  }
}

// Where no code, no scale and no kept column can improve, nothing moves.
TEST(Refine, EndsAtAMinimum) {
  Executor executor({.threads = 1});
  const auto solver = make_cpu_solver(executor);
  Layer s = make_layer(*solver);
  const format::Format format = format::int4(32);
  const int normal = kWidth - kKept, groups = format::groups(format, normal);
  Rounded exact = make_rounded(problem_of(s, format, true));
  for (int row = 0; row < kOutputs; ++row)
    for (int j = 0; j < normal; ++j) {
      const size_t at = static_cast<size_t>(row * normal + j);
      exact.codes[at] = static_cast<int8_t>(j % 16 - 8);
      exact.scales[static_cast<size_t>(row * groups + j / 32)] = format::f32_to_f16(-0.25f);
      s.weight[static_cast<size_t>(row * kWidth + j)] = -0.25f * static_cast<float>(j % 16 - 8);
    }
  for (int row = 0; row < kOutputs; ++row)
    for (int j = 0; j < kKept; ++j)
      exact.rest[static_cast<size_t>(row * kKept + j)] =
          s.weight[static_cast<size_t>(row * kWidth + normal + j)];
  Rounded refined = exact;
  refine_rows(problem_of(s, format, true), 0, kOutputs, refined);
  EXPECT_EQ(refined.codes, exact.codes);
  EXPECT_EQ(refined.scales, exact.scales);
  EXPECT_EQ(refined.rest, exact.rest);
}

TEST(Refine, RowsDoNotDependOnThePanels) {
  Executor executor({.threads = 1});
  const auto solver = make_cpu_solver(executor);
  const Layer s = make_layer(*solver);
  const RoundingProblem problem = problem_of(s, format::int4(128), true);
  Rounded whole = make_rounded(problem), parts = make_rounded(problem);
  gptq_rows(problem, 0, kOutputs, whole);
  refine_rows(problem, 0, kOutputs, whole);
  for (int begin = 0; begin < kOutputs; begin += 4) {
    gptq_rows(problem, begin, begin + 4, parts);
    refine_rows(problem, begin, begin + 4, parts);
  }
  int different = 0;  // sums of sgemm may differ in the last bit with the number of rows
  for (size_t i = 0; i < whole.codes.size(); ++i) different += whole.codes[i] != parts.codes[i];
  EXPECT_LE(different, 2);
}

}  // namespace
}  // namespace atom::quantizer
