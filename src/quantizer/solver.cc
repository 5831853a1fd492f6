#include "quantizer/solver.h"

#include <cblas.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "quantizer/refine.h"

namespace atom::quantizer {
namespace {

constexpr int kTile = 128;    // rows and columns of a matrix that one iteration computes
constexpr int kPanel = 64;    // weight rows that one iteration rounds
constexpr int kAttempts = 8;  // at damping

// An OpenBLAS that is older than the processor falls back to kernels of a very old one, many times slower.
void warn_of_generic_blas() {
#if defined(__x86_64__)
  const std::string_view core = openblas_get_corename();
  const bool generic =
      core == "Prescott" || core == "Core2" || core == "Penryn" || core == "Nehalem";
  if (generic && __builtin_cpu_supports("avx2"))
    log_warning(
        "OpenBLAS does not know this processor and uses its {} kernels: calibration is slow; the "
        "environment variable OPENBLAS_CORETYPE=Haswell mends it",
        core);
#endif
}

int tiles(int k) { return (k + kTile - 1) / kTile; }

struct Range {
  int begin, size;
};
Range tile(int index, int k) { return {index * kTile, std::min(kTile, k - index * kTile)}; }

// Tiles (i, j) with j >= i, row by row.
std::vector<std::pair<int, int>> upper_tiles(int count) {
  std::vector<std::pair<int, int>> list;
  for (int i = 0; i < count; ++i)
    for (int j = i; j < count; ++j) list.emplace_back(i, j);
  return list;
}

// Cholesky factor of one tile, in place, lower triangle. False: a pivot is not positive.
bool factor_tile(double* a, int size, int64_t stride) {
  for (int j = 0; j < size; ++j) {
    double* row_j = a + j * stride;
    double pivot = row_j[j];
    for (int p = 0; p < j; ++p) pivot -= row_j[p] * row_j[p];
    if (!(pivot > 0)) return false;
    row_j[j] = std::sqrt(pivot);
    for (int i = j + 1; i < size; ++i) {
      double* row_i = a + i * stride;
      double sum = row_i[j];
      for (int p = 0; p < j; ++p) sum -= row_i[p] * row_j[p];
      row_i[j] = sum / row_j[j];
    }
  }
  return true;
}

class CpuSolver final : public Solver {
 public:
  explicit CpuSolver(Executor& executor) : executor_(executor) { openblas_set_num_threads(1); }

  void add_gram(const float* x, int rows, int k, float* gram) override {
    if (rows == 0) return;
    const auto list = upper_tiles(tiles(k));
    executor_.parallel_for(static_cast<int64_t>(list.size()), [&](int64_t t, int) {
      const Range i = tile(list[static_cast<size_t>(t)].first, k);
      const Range j = tile(list[static_cast<size_t>(t)].second, k);
      cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, i.size, j.size, rows, 1.0f, x + i.begin,
                  k, x + j.begin, k, 1.0f, gram + int64_t{i.begin} * k + j.begin, k);
    });
  }

  void finish_gram(int k, float* gram) override {
    executor_.parallel_for(tiles(k), [&](int64_t t, int) {
      const Range rows = tile(static_cast<int>(t), k);
      for (int64_t i = rows.begin; i < rows.begin + rows.size; ++i)
        for (int64_t j = 0; j < i; ++j) gram[i * k + j] = gram[j * k + i];
    });
  }

  bool inverse_factor(const float* gram, int k, const double* diagonal, float* u) override {
    // With J the reversal of rows, J A J = L L^T gives A^-1 = U^T U for U = J L^-1 J, which is
    // upper.
    std::vector<double> a(static_cast<size_t>(k) * k);
    executor_.parallel_for(k, [&](int64_t i, int) {
      const int64_t from = k - 1 - i;
      for (int64_t j = 0; j <= i; ++j)
        a[static_cast<size_t>(i * k + j)] = gram[from * k + (k - 1 - j)];
      a[static_cast<size_t>(i * k + i)] += diagonal[from];
    });
    if (!factor_lower(a.data(), k)) return false;
    executor_.parallel_for(tiles(k), [&](int64_t t, int) {
      invert_columns(a.data(), tile(static_cast<int>(t), k), k, u);
    });
    return true;
  }

  Rounded gptq(const RoundingProblem& problem) override {
    Rounded out = make_rounded(problem);
    const int panels = (problem.n + kPanel - 1) / kPanel;
    executor_.parallel_for(panels, [&](int64_t p, int) {
      const int begin = static_cast<int>(p) * kPanel;
      const int end = std::min(begin + kPanel, problem.n);
      gptq_rows(problem, begin, end, out);
      if (problem.gram != nullptr) refine_rows(problem, begin, end, out);
    });
    return out;
  }

  std::vector<float> product(const float* a, int rows, int inner, const float* b,
                             int columns) override {
    std::vector<float> out(static_cast<size_t>(rows) * static_cast<size_t>(columns));
    executor_.parallel_for((rows + kPanel - 1) / kPanel, [&](int64_t p, int) {
      const int64_t begin = p * kPanel;
      const int panel = static_cast<int>(std::min<int64_t>(kPanel, rows - begin));
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, panel, columns, inner, 1.0f,
                  a + begin * inner, inner, b, columns, 0.0f, out.data() + begin * columns,
                  columns);
    });
    return out;
  }

  double output_energy(const float* a, int n, int k, const float* gram) override {
    const int panels = (n + kPanel - 1) / kPanel;
    std::vector<double> sums(static_cast<size_t>(panels));
    executor_.parallel_for(panels, [&](int64_t p, int) {
      const int begin = static_cast<int>(p) * kPanel, rows = std::min(kPanel, n - begin);
      const float* panel = a + int64_t{begin} * k;
      std::vector<float> product(static_cast<size_t>(rows) * k);
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, k, k, 1.0f, panel, k, gram, k,
                  0.0f, product.data(), k);
      double sum = 0;
      for (size_t i = 0; i < product.size(); ++i) sum += double{product[i]} * double{panel[i]};
      sums[static_cast<size_t>(p)] = sum;
    });
    double sum = 0;
    for (const double s : sums) sum += s;
    return sum;
  }

 private:
  // Right-looking Cholesky on tiles; only the lower triangle of a [k, k] is read and written.
  bool factor_lower(double* a, int k) {
    const int count = tiles(k);
    for (int p = 0; p < count; ++p) {
      const Range pivot = tile(p, k);
      double* diagonal = a + int64_t{pivot.begin} * k + pivot.begin;
      if (!factor_tile(diagonal, pivot.size, k)) return false;
      executor_.parallel_for(count - p - 1, [&](int64_t t, int) {
        const Range i = tile(p + 1 + static_cast<int>(t), k);
        cblas_dtrsm(CblasRowMajor, CblasRight, CblasLower, CblasTrans, CblasNonUnit, i.size,
                    pivot.size, 1.0, diagonal, k, a + int64_t{i.begin} * k + pivot.begin, k);
      });
      const auto list = upper_tiles(count - p - 1);
      executor_.parallel_for(static_cast<int64_t>(list.size()), [&](int64_t t, int) {
        const Range j = tile(p + 1 + list[static_cast<size_t>(t)].first, k);
        const Range i = tile(p + 1 + list[static_cast<size_t>(t)].second, k);
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, i.size, j.size, pivot.size, -1.0,
                    a + int64_t{i.begin} * k + pivot.begin, k,
                    a + int64_t{j.begin} * k + pivot.begin, k, 1.0,
                    a + int64_t{i.begin} * k + j.begin, k);
      });
    }
    return true;
  }

  // Columns of L^-1, written reversed in both directions into u.
  static void invert_columns(const double* l, Range columns, int k, float* u) {
    const int rows = k - columns.begin;
    std::vector<double> x(static_cast<size_t>(rows) * columns.size, 0.0);
    for (int i = 0; i < columns.size; ++i) x[static_cast<size_t>(i) * columns.size + i] = 1.0;
    cblas_dtrsm(CblasRowMajor, CblasLeft, CblasLower, CblasNoTrans, CblasNonUnit, rows,
                columns.size, 1.0, l + int64_t{columns.begin} * k + columns.begin, k, x.data(),
                columns.size);
    for (int i = 0; i < k; ++i) {
      float* to = u + int64_t{k - 1 - i} * k + (k - columns.begin - columns.size);
      for (int j = 0; j < columns.size; ++j)
        to[columns.size - 1 - j] =
            i < columns.begin
                ? 0.0f
                : static_cast<float>(x[static_cast<size_t>(i - columns.begin) * columns.size + j]);
    }
  }

  Executor& executor_;
};

}  // namespace

std::unique_ptr<Solver> make_cpu_solver(Executor& executor) {
  warn_of_generic_blas();
  return std::make_unique<CpuSolver>(executor);
}

Factor damped_factor(Solver& solver, const Gram& gram, std::string_view module) {
  const size_t k = static_cast<size_t>(gram.k);
  Factor factor;
  factor.u.resize(k * k);
  factor.dead.resize(k);
  double sum = 0;
  for (size_t i = 0; i < k; ++i) {
    const double value = gram.values[i * k + i];
    if (!std::isfinite(value))
      fail("{}: channel {} of the calibration activations is not finite (sum of squares {})",
           module, i, value);
    factor.dead[i] = value == 0 ? 1 : 0;
    sum += value == 0 ? 1.0 : value;
  }
  std::vector<double> diagonal(k);
  for (int attempt = 0; attempt < kAttempts; ++attempt, factor.damping *= 10) {
    factor.added = factor.damping * sum / static_cast<double>(k);
    for (size_t i = 0; i < k; ++i) diagonal[i] = factor.added + (factor.dead[i] != 0 ? 1.0 : 0.0);
    if (solver.inverse_factor(gram.values.data(), gram.k, diagonal.data(), factor.u.data()))
      return factor;
  }
  fail("{}: the second moments of the calibration activations cannot be factored", module);
}

}  // namespace atom::quantizer
