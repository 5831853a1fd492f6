#include "backend/cuda/tuner.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/packed_linear.h"
#include "base/error.h"

namespace atom::backend::cuda {
namespace {

const CudaLinear& cuda_linear(const PackedLinear& weight) {
  return dynamic_cast<const CudaLinear&>(weight);
}

bool same(const hopper::Plan& a, const hopper::Plan& b) {
  return a.rows == b.rows && a.blocks == b.blocks && a.groups == b.groups &&
         a.cluster == b.cluster && a.many == b.many;
}

}  // namespace

CudaTuner::CudaTuner(CudaBackend& backend)
    : backend_(backend),
      file_{.device = backend.device_.name,
            .multiprocessors = backend.device_.multiprocessors,
            .toolkit = toolkit_version(),
            .driver = driver_version(),
            .atom = ATOM_VERSION,
            .plans = backend.measured_} {}

// The present one first.
std::vector<hopper::Plan> CudaTuner::plans(const CudaLinear& weight, int rows) const {
  if (!weight.is_fast() && !weight.is_half()) return {};
  const hopper::PlanSource source = backend_.plan_source();
  std::vector<hopper::Plan> plans = {weight.is_fast()
                                         ? hopper::plan(rows, weight.fast(), false, source)
                                         : hopper::half_plan(rows, weight.half(), false, source)};
  const std::vector<hopper::Plan> all = weight.is_fast()
                                            ? hopper::plans_to_measure(rows, weight.fast())
                                            : hopper::plans_to_measure(rows, weight.half());
  std::copy_if(all.begin(), all.end(), std::back_inserter(plans),
               [&](const hopper::Plan& p) { return !same(p, plans.front()); });
  return plans;
}

std::vector<std::string> CudaTuner::choices(const PackedLinear& weight, int rows) {
  std::vector<std::string> names;
  for (const hopper::Plan& p : plans(cuda_linear(weight), rows))
    names.push_back(hopper::plan_name(p));
  return names;
}

void CudaTuner::linear(const LinearArgs& args, int choice) {
  check(args.weights.size() == 1 && args.row_ends == nullptr, "a dense linear has one weight");
  const CudaLinear& weight = cuda_linear(*args.weights[0]);
  const hopper::Plan plan = plans(weight, args.x.rows).at(static_cast<size_t>(choice));
  if (weight.is_fast()) {
    backend_.fast_linear(args, &plan);
  } else {
    backend_.forget_halves();  // a kernel for the rows before each, where a model has a producer
    backend_.half_linear(args, &plan);
  }
}

hopper::MeasuredPlan CudaTuner::entry(const CudaLinear& weight, int rows,
                                      const hopper::Plan& plan) {
  return {
      .size = weight.is_fast() ? hopper::size_of(weight.fast()) : hopper::size_of(weight.half()),
      .rows = rows,
      .plan = plan};
}

void CudaTuner::prefer(const PackedLinear& weight, int rows, const std::string& choice) {
  const CudaLinear& linear = cuda_linear(weight);
  const std::vector<hopper::Plan> all = plans(linear, rows);
  const auto found = std::find_if(all.begin(), all.end(), [&](const hopper::Plan& p) {
    return hopper::plan_name(p) == choice;
  });
  check(found != all.end(), "a choice is one of choices()");
  put_plan(backend_.measured_, entry(linear, rows, *found));
}

void CudaTuner::keep(const PackedLinear& weight, int rows, int choice, double seconds) {
  const CudaLinear& linear = cuda_linear(weight);
  hopper::MeasuredPlan kept =
      entry(linear, rows, plans(linear, rows).at(static_cast<size_t>(choice)));
  kept.microseconds = std::round(1e8 * seconds) / 100;
  put_plan(file_.plans, kept);
}

}  // namespace atom::backend::cuda
