#include "quantizer/site_error.h"

#include <algorithm>
#include <numeric>

#include "format/hadamard.h"

namespace atom::quantizer {
namespace {

// Both sides in the basis that the input has after its transform.
void transform_normal(std::vector<float>& rows, int k, const KeptProblem& problem) {
  if (problem.hadamard == 0) return;
  for (size_t at = 0; at < rows.size(); at += static_cast<size_t>(k))
    format::block_hadamard({rows.data() + at, static_cast<size_t>(problem.normal.size)},
                           problem.hadamard);
}

std::vector<float> columns_of(const std::vector<float>& rows, int k, int columns) {
  std::vector<float> out;
  for (auto row = rows.begin(); row != rows.end(); row += k)
    out.insert(out.end(), row, row + columns);
  return out;
}

void permute(std::vector<float>& rows, const Permutation& order) {
  std::vector<float> old(order.size());
  for (size_t at = 0; !order.empty() && at < rows.size(); at += order.size()) {
    std::copy_n(rows.begin() + static_cast<int64_t>(at), order.size(), old.begin());
    for (size_t i = 0; i < order.size(); ++i) rows[at + i] = old[static_cast<size_t>(order[i])];
  }
}

void permute_for(std::vector<float>& rows, int expert, const KeptProblem& problem) {
  if (problem.orders.empty()) return;
  const size_t own = problem.orders.size() == 1 ? 0 : static_cast<size_t>(expert);
  permute(rows, problem.orders[own]);
}

// |a x^T|^2.
double energy(const std::vector<float>& a, const std::vector<float>& x, int k, Solver& solver) {
  const size_t width = static_cast<size_t>(k), rows = x.size() / width;
  std::vector<float> turned(x.size());  // [k, rows]
  for (size_t i = 0; i < x.size(); ++i) turned[i % width * rows + i / width] = x[i];
  const std::vector<float> y = solver.product(a.data(), static_cast<int>(a.size() / width), k,
                                              turned.data(), static_cast<int>(rows));
  double sum = 0;
  for (const float v : y) sum += double{v} * v;
  return sum;
}

std::vector<float> errors_of(const std::vector<float>& values, int k, const KeptProblem& problem) {
  const int rows = static_cast<int>(values.size() / static_cast<size_t>(k));
  return rounding_errors(values.data(), rows, k, problem.normal, 1.0f, problem.signed_scales);
}

// Per column of [rows, k].
std::vector<double> energies_of(const std::vector<float>& values, int k) {
  std::vector<double> out(static_cast<size_t>(k));
  for (size_t i = 0; i < values.size(); ++i)
    out[i % static_cast<size_t>(k)] += double{values[i]} * values[i];
  return out;
}

// What every channel of one input costs while nothing is kept.
std::vector<double> costs_of(const InputSample::Rows& input, const std::vector<float>& w,
                             KeptProblem problem) {
  const int k = input.k;
  problem.normal.size = k;
  const std::vector<double> x2 = energies_of(input.x, k), w2 = energies_of(w, k);
  std::vector<double> out(static_cast<size_t>(k));
  if (problem.hadamard != 0) {
    const double x_all = std::accumulate(x2.begin(), x2.end(), 0.0),
                 w_all = std::accumulate(w2.begin(), w2.end(), 0.0);
    if (!(x_all > 0) || !(w_all > 0)) return out;
    const double inputs = problem.rounded_inputs ? 1 : 0;
    for (size_t i = 0; i < out.size(); ++i) out[i] = inputs * x2[i] / x_all + w2[i] / w_all;
    return out;
  }
  const std::vector<double> dw2 = energies_of(errors_of(w, k, problem), k);
  for (size_t i = 0; i < out.size(); ++i) out[i] = x2[i] * dw2[i];
  if (!problem.rounded_inputs) return out;
  const std::vector<double> dx2 = energies_of(errors_of(input.x, k, problem), k);
  for (size_t i = 0; i < out.size(); ++i) out[i] += dx2[i] * w2[i];
  return out;
}

Permutation moved_last(const std::vector<double>& costs, int kept) {
  Permutation by_cost(costs.size()), out;
  std::iota(by_cost.begin(), by_cost.end(), 0);
  std::stable_sort(by_cost.begin(), by_cost.end(), [&](int32_t a, int32_t b) {
    return costs[static_cast<size_t>(a)] < costs[static_cast<size_t>(b)];
  });
  const auto first_kept = by_cost.end() - kept;
  std::sort(by_cost.begin(), first_kept);
  std::sort(first_kept, by_cost.end());
  return by_cost;
}

}  // namespace

KeptError kept_error(const InputSample& sample, SiteKind site, Readers readers,
                     const KeptProblem& problem, Solver& solver) {
  const int normal = problem.normal.size;
  KeptError error;
  double all = 0;
  for (const InputSample::Rows& input : sample.inputs()) {
    if (input.site != site || input.rows == 0) continue;
    const int k = input.k;
    std::vector<float> w = first_columns(readers[static_cast<size_t>(input.expert)], k);
    all += energy(w, input.x, k, solver);
    if (normal == 0) continue;
    std::vector<float> x = input.x;
    for (std::vector<float>* rows : {&w, &x}) {
      permute_for(*rows, input.expert, problem);
      transform_normal(*rows, k, problem);
      *rows = columns_of(*rows, k, normal);
    }
    error.weights += energy(errors_of(w, normal, problem), x, normal, solver);
    if (problem.rounded_inputs)
      error.inputs += energy(w, errors_of(x, normal, problem), normal, solver);
  }
  if (all == 0) return {};
  return {.inputs = error.inputs / all, .weights = error.weights / all};
}

std::vector<Permutation> costliest_last(const InputSample& sample, SiteKind site, Readers readers,
                                        const KeptProblem& problem, int kept) {
  const size_t k = static_cast<size_t>(readers[0][0]->k());
  std::vector<std::vector<double>> costs(site == SiteKind::kDown ? readers.size() : 1,
                                         std::vector<double>(k));
  for (const InputSample::Rows& input : sample.inputs()) {
    if (input.site != site || input.rows == 0) continue;
    std::vector<double>& own = costs[costs.size() == 1 ? 0 : static_cast<size_t>(input.expert)];
    const std::vector<double> some = costs_of(
        input, first_columns(readers[static_cast<size_t>(input.expert)], input.k), problem);
    for (size_t i = 0; i < k; ++i) own[i] += some[i];
  }
  std::vector<Permutation> out;
  for (const std::vector<double>& own : costs) out.push_back(moved_last(own, kept));
  return out;
}

model::LinearTensors rounded(const model::LinearTensors& linear, const KeptProblem& problem) {
  const int k = linear.k(), normal = problem.normal.size;
  std::vector<float> w = first_columns(std::vector<const model::LinearTensors*>(1, &linear), k);
  transform_normal(w, k, problem);
  const std::vector<float> errors = errors_of(w, k, problem);
  for (size_t i = 0; i < errors.size(); ++i) {
    const size_t width = static_cast<size_t>(normal);
    w[i / width * static_cast<size_t>(k) + i % width] -= errors[i];
  }
  transform_normal(w, k, problem);  // its own inverse
  model::LinearTensors out = model::from_f32(linear.name, linear.n, k, format::kF32, w.data());
  out.bias = linear.bias;
  return out;
}

}  // namespace atom::quantizer
