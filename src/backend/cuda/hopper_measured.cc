// Measured plans: which serves a problem, and which are worth measuring. No device, no CUDA.
#include "backend/cuda/hopper_measured.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "backend/cuda/hopper_half_tuned.h"
#include "backend/cuda/hopper_tuned.h"

namespace atom::backend::cuda::hopper {
namespace {

static_assert(std::equal(std::begin(kTunedRows), std::end(kTunedRows), std::begin(kHalfTunedRows),
                         std::end(kHalfTunedRows)),
              "one set of classes");

// Of two entries of one size and class of rows.
bool serves_better(int rows, const MeasuredPlan& a, const MeasuredPlan& b) {
  const bool a_has_room = a.rows >= rows, b_has_room = b.rows >= rows;
  if (a_has_room != b_has_room) return a_has_room;
  return a_has_room ? a.rows < b.rows : a.rows > b.rows;
}

// Tiles far smaller than the rows repeat the weight, far larger ones multiply zeros.
bool tile_suits(int rows, const Plan& p) {
  constexpr int kMostFewRows = 256, kLeastManyRows = 17;
  if (p.many)
    return rows >= kLeastManyRows && p.rows <= 2 * rows && p.rows >= std::min(128, rows / 8);
  return p.rows < 2 * std::max(rows, 5) && rows <= 4 * p.rows && rows <= kMostFewRows;
}

template <typename AnyWeight>
std::vector<Plan> all_plans(int rows, const AnyWeight& weight) {
  const Kernels kernels = size_of(weight).kernels;
  std::vector<Plan> plans;
  const auto add = [&](const Plan& p) {
    if (has_kernel(kernels, p) && tile_suits(rows, p) && suits(p, weight)) plans.push_back(p);
  };
  for (const bool many : {false, true})
    for (const int tile : {8, 16, 32, 64, 128, 256})
      for (const int blocks : {1, 2, 3, 4})
        for (int groups = 1; groups <= 8; ++groups)
          for (const int cluster : {1, 2, 4}) {
            Plan p;
            p.rows = tile, p.blocks = blocks, p.groups = groups, p.cluster = cluster, p.many = many;
            add(p);
          }
  return plans;
}

}  // namespace

LinearSize size_of(const Weight& weight) {
  const int k = weight.slots4 * kSlotInputs4 + weight.slots8 * kSlotInputs8;
  if (weight.grouped != 0) return {Kernels::kW4A4, weight.n, k};
  return {weight.slots4 > 0 ? Kernels::kW4A8 : Kernels::kW8A8, weight.n, k};
}

LinearSize size_of(const HalfWeight& weight) {
  return {weight.kind == HalfKind::kF16 ? Kernels::kF16 : Kernels::kW4A16, weight.n, weight.k};
}

bool has_kernel(Kernels kernels, const Plan& p) {
  if (kernels == Kernels::kF16 || kernels == Kernels::kW4A16) {
    if (p.many && (p.blocks != 2 || p.groups != 1 || p.cluster != 1)) return false;
    return has_half_kernel(kernels == Kernels::kF16 ? HalfKind::kF16 : HalfKind::kInt4, p);
  }
  const bool grouped = kernels == Kernels::kW4A4;
  if (!p.many) {
    Weight weight;
    weight.grouped = grouped ? 1 : 0;
    weight.slots4 = kernels == Kernels::kW8A8 ? 0 : 1;
    return (p.cluster == 1 || p.cluster == 2) &&
           has_few_rows_kernel(weight, p.rows, p.blocks, p.groups);
  }
  if (kernels == Kernels::kW8A8 && p.rows > 128) return false;
  return has_many_rows_kernel(grouped, p.rows, p.blocks, p.cluster, p.groups);
}

double distance(int a, int b) {
  return std::abs(std::log(static_cast<double>(std::max(a, 1)) / std::max(b, 1)));
}

int rows_class(int rows) {
  int index = 0;
  while (index + 1 < kTunedClasses && rows > kTunedRows[index]) ++index;
  return index;
}

Nearest find_nearest(std::span<const MeasuredPlan> entries, const LinearSize& size, int rows) {
  const MeasuredPlan* best = nullptr;
  double least = 1e30;
  for (const MeasuredPlan& entry : entries) {
    if (entry.size.kernels != size.kernels || rows_class(entry.rows) != rows_class(rows)) continue;
    const double away = distance(entry.size.n, size.n) + distance(entry.size.k, size.k);
    if (away > least || (away == least && !serves_better(rows, entry, *best))) continue;
    best = &entry;
    least = away;
  }
  if (best == nullptr) return {};
  return {&best->plan, least};
}

const Plan* nearer(const Nearest& of_file, const Nearest& built_in) {
  constexpr double kAsNear = 0.1;  // built-in sizes are counted in slots, which differ a little
  return of_file.distance <= built_in.distance + kAsNear ? of_file.plan : built_in.plan;
}

std::vector<Plan> plans_to_measure(int rows, const Weight& weight) {
  return all_plans(rows, weight);
}
std::vector<Plan> plans_to_measure(int rows, const HalfWeight& weight) {
  return all_plans(rows, weight);
}

std::string plan_name(const Plan& p) {
  return std::string(p.many ? "many " : "few ") + std::to_string(p.rows) + "x" +
         std::to_string(p.blocks) + "x" + std::to_string(p.groups) + " x" +
         std::to_string(p.cluster);
}

}  // namespace atom::backend::cuda::hopper
