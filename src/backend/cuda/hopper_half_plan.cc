// The choice of a kernel and of its cut for hopper_half_linear.h: no device, no CUDA.
#include <algorithm>
#include <cmath>
#include <iterator>
#include <span>

#include "backend/cuda/hopper_half_tuned.h"
#include "backend/cuda/hopper_measured.h"

namespace atom::backend::cuda::hopper {
namespace {

// A kernel for few rows, as launch_half_few_rows has them.
struct HalfCandidate {
  int rows, blocks, groups;
  int ctas;  // that a multiprocessor holds
};
constexpr HalfCandidate kF16[] = {
    {8, 1, 1, 3},  {8, 2, 1, 2},   {8, 2, 2, 1},   {16, 1, 1, 3}, {16, 2, 1, 2},
    {32, 1, 1, 3}, {32, 2, 1, 2},  {32, 2, 2, 1},  {64, 1, 1, 2}, {64, 2, 1, 1},
    {64, 2, 2, 1}, {128, 1, 1, 2}, {128, 2, 1, 1},
};
constexpr HalfCandidate kInt4[] = {
    {8, 1, 1, 4},  {8, 1, 2, 3},  {8, 1, 3, 2},  {8, 1, 6, 1},   {8, 2, 1, 3},  {8, 2, 3, 1},
    {16, 1, 1, 4}, {16, 1, 2, 3}, {16, 1, 3, 2}, {16, 1, 6, 1},  {16, 2, 1, 3}, {16, 2, 3, 1},
    {32, 1, 2, 2}, {32, 1, 4, 1}, {32, 2, 1, 2}, {32, 2, 2, 1},  {32, 4, 1, 1}, {64, 1, 2, 2},
    {64, 2, 1, 2}, {64, 2, 2, 1}, {64, 4, 1, 1}, {128, 2, 1, 1},
};
constexpr int kClusters[] = {1, 2, 4};
constexpr int kMostFewRows = 128;

std::span<const HalfCandidate> candidates(HalfKind kind) {
  if (kind == HalfKind::kF16) return kF16;
  return kInt4;
}

Plan half_many_rows(int tile) {
  return {.rows = tile, .blocks = 2, .groups = 1, .cluster = 1, .many = true};
}

// Roughly the microseconds of a linear with few rows on a chip like the H200, to compare candidates: a constant, then
// the longest of four: the weights' bytes from memory, all bytes from L2, those of the busiest multiprocessor, and the
// stages of a group one after the other.
double cost(const HalfCandidate& c, int cluster, int rows, const HalfWeight& w,
            int multiprocessors) {
  constexpr double kMemory = 4.4e6, kL2 = 5.5e6, kMultiprocessor = 6.0e4;  // bytes a microsecond
  const double stage_microseconds = w.kind == HalfKind::kF16 ? 0.2 : 0.4;
  const int slots = half_slots(w.k), outputs = c.blocks * kBlockOutputs;
  const int ctas = (w.n + outputs - 1) / outputs * cluster * ((rows + c.rows - 1) / c.rows);
  const double weights = static_cast<double>(c.blocks) * w.slot_bytes();
  const double stage = weights + 2.0 * kHalfSlotInputs * std::min(rows, c.rows);
  const double stages = static_cast<double>(slots) / cluster;
  const int resident = multiprocessors * c.ctas;
  const int waves = (ctas + resident - 1) / resident;
  const int busiest = (std::min(ctas, resident) + multiprocessors - 1) / multiprocessors;
  const double memory = ctas * stages * weights / kMemory, all = ctas * stages * stage / kL2;
  const double bytes = waves * busiest * stages * stage / kMultiprocessor;
  const double walk = waves * stages / c.groups * stage_microseconds;
  return 3.0 + std::max({memory, all, bytes, walk}) + (waves - 1) * 0.5 + (cluster - 1) * 0.2 +
         (c.groups - 1) * 0.05;
}

Plan few_rows(int rows, const HalfWeight& weight, int multiprocessors, bool cut_k) {
  int tile = 8;
  while (tile < rows && tile < kMostFewRows) tile *= 2;
  Plan best;
  double least = 1e30;
  for (const HalfCandidate& c : candidates(weight.kind))
    for (const int cluster : kClusters) {
      if (c.rows != tile || (!cut_k && (cluster > 1 || c.groups > 1))) continue;
      if (cluster * c.groups > 1 && half_slots(weight.k) < 2 * cluster * c.groups) continue;
      const double time = cost(c, cluster, rows, weight, multiprocessors);
      if (time >= least) continue;
      least = time;
      best = {.rows = c.rows, .blocks = c.blocks, .groups = c.groups, .cluster = cluster};
    }
  return best;
}

Plan estimated(int rows, const HalfWeight& weight, int multiprocessors, bool cut_k) {
  if (rows <= kMostFewRows) return few_rows(rows, weight, multiprocessors, cut_k);
  const int pairs = (weight.n + 2 * kBlockOutputs - 1) / (2 * kBlockOutputs);
  for (const int tile : {256, 128})
    if (weight.n % 4 == 0 && pairs * ((rows + tile - 1) / tile) >= multiprocessors)
      return half_many_rows(tile);
  return half_many_rows(64);
}

Nearest nearest_built_in(int rows, const HalfWeight& weight) {
  Nearest nearest;
  for (const HalfTuned& t : kHalfTuned) {
    if (t.kind != weight.kind) continue;
    const double away = distance(t.n, weight.n) + distance(t.k, weight.k);
    if (away < nearest.distance) nearest = {&t.plan[rows_class(rows)], away};
  }
  return nearest;
}

}  // namespace

bool has_half_kernel(HalfKind kind, const Plan& plan) {
  if (plan.many) return plan.rows == 64 || plan.rows == 128 || plan.rows == 256;
  if (std::find(std::begin(kClusters), std::end(kClusters), plan.cluster) == std::end(kClusters))
    return false;
  const std::span<const HalfCandidate> all = candidates(kind);
  return std::any_of(all.begin(), all.end(), [&](const HalfCandidate& c) {
    return c.rows == plan.rows && c.blocks == plan.blocks && c.groups == plan.groups;
  });
}

bool suits(const Plan& plan, const HalfWeight& weight) {
  return plan.cluster * plan.groups <= std::max(1, half_slots(weight.k));
}

Plan half_plan(int rows, const HalfWeight& weight, bool by_expert, int multiprocessors) {
  return half_plan(rows, weight, by_expert, PlanSource{multiprocessors});
}

Plan half_plan(int rows, const HalfWeight& weight, bool by_expert, const PlanSource& source) {
  // How many rows an expert has is known on the device only.
  if (by_expert && rows > kMostFewRows) return half_many_rows(rows > 1024 ? 128 : 64);
  Nearest built_in;
  if (source.multiprocessors == kTunedMultiprocessors) built_in = nearest_built_in(rows, weight);
  const Plan* nearest = nearer(find_nearest(source.measured, size_of(weight), rows), built_in);
  if (nearest != nullptr && suits(*nearest, weight)) return *nearest;
  return estimated(rows, weight, source.multiprocessors, true);
}

Plan half_plan_for_any_rows(int rows, const HalfWeight& weight, int multiprocessors) {
  return estimated(rows, weight, multiprocessors, false);
}

}  // namespace atom::backend::cuda::hopper
