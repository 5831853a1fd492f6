#include "quantizer/refine.h"

#include <cblas.h>

#include <algorithm>
#include <cmath>

#include "format/quantize.h"

namespace atom::quantizer {
namespace {

constexpr int kSweeps = 3;          // over all columns
constexpr int kVisits = 2;          // of a block in one sweep
constexpr int kBlockColumns = 128;  // of a block: a multiple of every group

// One row while a block of its columns is visited: `slope` = H e of the block's columns, e = w - q.
struct Block {
  const RoundingProblem& problem;
  int begin = 0, end = 0;   // columns
  float* slope = nullptr;   // [end - begin]
  float* change = nullptr;  // [end - begin], what q gained

  const float* hessian(int column) const {
    return problem.gram + int64_t{column} * problem.k + begin;
  }
  float curvature(int column) const {
    return problem.gram[int64_t{column} * (problem.k + 1)] + problem.damping;
  }
  void move(int column, float by) {
    const float* h = hessian(column);
    for (int i = 0; i < end - begin; ++i) slope[i] -= by * h[i];
    slope[column - begin] -= by * problem.damping;
    change[column - begin] += by;
  }
};

// Stored scales of the row, one a group.
float step_of(const RoundingProblem& problem, const Rounded& rounded, int row, int group) {
  const int groups = format::groups(problem.normal.format, problem.normal.size);
  const size_t at = static_cast<size_t>(int64_t{row} * groups + group);
  if (format::is_progressive(problem.normal.format))
    return rounded.row_scales[static_cast<size_t>(row)] *
           static_cast<float>(rounded.multipliers[at]);
  return format::visit(problem.normal.format, [&](auto f) -> float {
    using F = decltype(f);
    if constexpr (F::kInteger)
      return F::step(static_cast<typename F::Scale>(rounded.scales[at])) / rounded.global();
    return 0;
  });
}

bool has_free_scales(const RoundingProblem& problem) {
  const format::Format f = problem.normal.format;
  return f.group != 0 && !format::is_progressive(f) && format::weight_scale_bytes(f) == 2;
}

template <typename Element>
void visit_codes(Block& block, float step, int8_t* codes, int begin, int end) {
  const float inverse = 1.0f / step;
  for (int j = begin; j < end; ++j) {
    const float curvature = block.curvature(j);
    if (curvature == block.problem.damping) continue;  // no token uses the column
    const float best =
        step * static_cast<float>(codes[j]) + block.slope[j - block.begin] / curvature;
    const int code = format::code_of<Element>(best, inverse);
    if (code == codes[j]) continue;
    block.move(j, step * static_cast<float>(code - codes[j]));
    codes[j] = static_cast<int8_t>(code);
  }
}

// The least-squares scale of columns [begin, end) with their codes, rounded as it is stored; the old one unless better.
uint16_t better_scale(Block& block, uint16_t bits, float step_per_scale, const int8_t* codes,
                      int begin, int end) {
  double slope = 0, curvature = 0;
  for (int i = begin; i < end; ++i) {
    slope += double{block.slope[i - block.begin]} * codes[i];
    const float* h = block.hessian(i);
    double row = double{block.problem.damping} * codes[i];
    for (int j = begin; j < end; ++j) row += double{h[j - block.begin]} * codes[j];
    curvature += row * codes[i];
  }
  if (!(curvature > 0)) return bits;
  const float step = step_per_scale * format::f16_to_f32(bits);
  const auto wanted = static_cast<float>((step + slope / curvature) / step_per_scale);
  const uint16_t better = format::weight_scale_bits(wanted);
  const float moved = step_per_scale * format::f16_to_f32(better) - step;
  if (!std::isfinite(moved) || !(moved * (moved * curvature - 2 * slope) < 0)) return bits;
  for (int i = begin; i < end; ++i)
    if (codes[i] != 0) block.move(i, moved * static_cast<float>(codes[i]));
  return better;
}

void visit_normal(Block& block, int row, Rounded& out) {
  const RoundingProblem& problem = block.problem;
  const format::Format f = problem.normal.format;
  const bool e2m1 = format::is_e2m1(f), free = has_free_scales(problem);
  const int group = format::group_size(f, problem.normal.size);
  const int groups = format::groups(f, problem.normal.size);
  int8_t* codes = out.codes.data() + int64_t{row} * problem.normal.size;
  for (int begin = block.begin; begin < block.end;) {
    const int g = begin / group, end = std::min(block.end, (g + 1) * group);
    const float step = step_of(problem, out, row, g);
    if (e2m1)
      visit_codes<format::E2M1>(block, step, codes, begin, end);
    else
      visit_codes<format::Int4>(block, step, codes, begin, end);
    if (free) {
      uint16_t& bits = out.scales[static_cast<size_t>(int64_t{row} * groups + g)];
      bits = better_scale(block, bits, e2m1 ? 0.5f : 1.0f, codes, begin, end);
    }
    begin = end;
  }
}

void visit_rest(Block& block, int row, Rounded& out) {
  const RoundingProblem& problem = block.problem;
  float* rest =
      out.rest.data() + int64_t{row} * (problem.k - problem.normal.size) - problem.normal.size;
  for (int j = block.begin; j < block.end; ++j) {
    const float curvature = block.curvature(j);
    if (curvature == problem.damping) continue;
    const float by = block.slope[j - block.begin] / curvature;
    rest[j] += by;
    block.move(j, by);
  }
}

// w - q of row `row`; columns that no token uses have none.
void errors_of(const RoundingProblem& problem, const Rounded& rounded, int row, float* errors) {
  const int normal = problem.normal.size, k = problem.k;
  const int group = normal > 0 ? format::group_size(problem.normal.format, normal) : 1;
  const float* weight = problem.weight + int64_t{row} * k;
  for (int j = 0; j < k; ++j) {
    const bool dead = problem.gram[int64_t{j} * (k + 1)] == 0;
    const float q =
        j >= normal
            ? rounded.rest[static_cast<size_t>(int64_t{row} * (k - normal) + j - normal)]
            : step_of(problem, rounded, row, j / group) *
                  static_cast<float>(rounded.codes[static_cast<size_t>(int64_t{row} * normal + j)]);
    errors[j] = dead ? 0.0f : weight[j] - q;
  }
}

}  // namespace

void refine_rows(const RoundingProblem& problem, int begin, int end, Rounded& out) {
  const int k = problem.k, normal = problem.normal.size, rows = end - begin;
  if (normal == 0) return;
  std::vector<float> slopes(static_cast<size_t>(rows) * static_cast<size_t>(k));
  {
    std::vector<float> errors(slopes.size());
    for (int r = 0; r < rows; ++r)
      errors_of(problem, out, begin + r, errors.data() + int64_t{r} * k);
    for (size_t i = 0; i < errors.size(); ++i) slopes[i] = problem.damping * errors[i];
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, k, k, 1.0f, errors.data(), k,
                problem.gram, k, 1.0f, slopes.data(), k);
  }
  std::vector<float> changes(static_cast<size_t>(rows) * kBlockColumns);
  for (int sweep = 0; sweep < kSweeps; ++sweep)
    for (int first = 0; first < k;) {
      const int last = std::min(first + kBlockColumns, first < normal ? normal : k);
      std::fill(changes.begin(), changes.end(), 0.0f);
      for (int r = 0; r < rows; ++r) {
        float local[kBlockColumns];
        std::copy_n(slopes.data() + int64_t{r} * k + first, last - first, local);
        Block block{problem, first, last, local, changes.data() + int64_t{r} * kBlockColumns};
        for (int visit = 0; visit < kVisits; ++visit)
          if (first < normal)
            visit_normal(block, begin + r, out);
          else
            visit_rest(block, begin + r, out);
      }
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, k, last - first, -1.0f,
                  changes.data(), kBlockColumns, problem.gram + int64_t{first} * k, k, 1.0f,
                  slopes.data(), k);
      for (int r = 0; r < rows; ++r)
        for (int j = first; j < last; ++j)
          slopes[static_cast<size_t>(int64_t{r} * k + j)] -=
              problem.damping *
              changes[static_cast<size_t>(int64_t{r} * kBlockColumns + j - first)];
      first = last;
    }
}

}  // namespace atom::quantizer
