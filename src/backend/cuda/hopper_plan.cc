// The choice of a kernel and of its cut for hopper_linear.h: no device, no CUDA.
#include <algorithm>
#include <cmath>
#include <span>

#include "backend/cuda/hopper_measured.h"
#include "backend/cuda/hopper_tuned.h"

namespace atom::backend::cuda::hopper {
namespace {

// A kernel for few rows, as launch_few_rows and launch_grouped_few_rows have them.
struct Candidate {
  int rows, blocks, groups;
  int ctas;  // that a multiprocessor holds
};
constexpr Candidate kCandidates[] = {
    {8, 1, 2, 4},  {8, 1, 4, 2},  {8, 1, 8, 1},  {8, 2, 2, 2},  {16, 1, 3, 2},
    {16, 1, 6, 1}, {16, 2, 1, 2}, {32, 1, 4, 1}, {32, 1, 6, 1}, {32, 2, 1, 2},
    {32, 2, 2, 1}, {64, 1, 2, 1}, {64, 1, 4, 1}, {64, 2, 2, 1},
};
// Of weights without an int4 segment.
constexpr Candidate kInt8Candidates[] = {
    {8, 1, 1, 3},  {8, 1, 2, 4},  {8, 1, 4, 2},  {8, 1, 8, 1},  {8, 2, 2, 2},
    {16, 1, 1, 3}, {16, 1, 3, 2}, {16, 1, 6, 1}, {16, 2, 1, 2}, {32, 1, 1, 3},
    {32, 1, 2, 2}, {32, 1, 4, 1}, {32, 1, 6, 1}, {32, 2, 1, 2}, {32, 2, 2, 1},
    {64, 1, 1, 2}, {64, 1, 2, 1}, {64, 1, 4, 1}, {64, 2, 2, 1},
};
constexpr Candidate kGroupedCandidates[] = {
    {8, 1, 1, 4},  {8, 1, 2, 4},  {8, 1, 4, 2},  {8, 1, 8, 1},  {8, 2, 2, 2},
    {8, 2, 4, 1},  {16, 1, 3, 2}, {16, 1, 6, 1}, {16, 2, 1, 2}, {16, 2, 3, 1},
    {32, 1, 4, 1}, {32, 1, 6, 1}, {32, 2, 1, 2}, {32, 2, 2, 1}, {64, 1, 1, 4},
    {64, 1, 2, 2}, {64, 1, 4, 1}, {64, 2, 1, 2}, {64, 2, 2, 1},
};
// Kernels for many rows, as launch_many_rows and launch_grouped_many_rows have them: rows, blocks of outputs, CTAs that
// share inputs, CTAs that share k or, with grouped weights, a multiprocessor.
struct ManyRows {
  int rows, blocks, cluster, groups;
};
constexpr ManyRows kManyRows[] = {
    {32, 3, 1, 1},  {64, 2, 1, 1},  {64, 2, 1, 2},  {64, 3, 1, 1},  {64, 4, 1, 1},  {64, 4, 1, 2},
    {128, 2, 1, 1}, {128, 2, 1, 2}, {128, 3, 1, 1}, {256, 2, 1, 1}, {256, 2, 1, 2}, {256, 2, 2, 1},
};
constexpr ManyRows kGroupedManyRows[] = {
    {64, 2, 1, 1},  {64, 2, 1, 2},  {64, 3, 1, 1},  {128, 2, 1, 1},
    {128, 3, 1, 1}, {256, 2, 1, 1}, {256, 2, 2, 1},
};

// Roughly the microseconds of a linear with few rows on a chip like the H200, to compare candidates: a constant, then
// the longer of two: the slots of the busiest multiprocessor at its share of the bandwidth, and the slots of a group
// one after the other. A second wave of CTAs and a cluster's exchange cost extra.
double cost(const Candidate& c, int cluster, int blocks, int slots, int multiprocessors) {
  constexpr double kSlotMicroseconds = 0.125;  // kSlotBytes at 33 GB/s, a multiprocessor's share
  const int ctas = (blocks + c.blocks - 1) / c.blocks * cluster;
  const int resident = multiprocessors * c.ctas;
  const int waves = (ctas + resident - 1) / resident;
  const int busiest = (std::min(ctas, resident) + multiprocessors - 1) / multiprocessors;
  const int slots_of_cta = (slots + cluster - 1) / cluster;
  const double inputs = 1.0 + c.rows * 128.0 / (c.blocks * kSlotBytes) * 0.5;  // from L2
  const double stream = busiest * c.blocks * slots_of_cta * kSlotMicroseconds * inputs;
  const int steps = (slots_of_cta + c.groups - 1) / c.groups;  // of a group, one after the other
  const double walk = 0.6 * steps;
  return 3.0 + waves * std::max(stream, walk) + (waves - 1) * 2.0 + (cluster - 1) * 0.8;
}

// Whether the kernels for 256 rows take the weight, with results in f32 or f16.
bool has_256_rows(const Weight& weight) {
  const int most_slots8 = weight.grouped != 0 ? 4 : 2;  // beside int4 slots
  return weight.slots4 > 0 && weight.slots8 <= most_slots8 && weight.n % 8 == 0;
}

// What kernels for tiles of three and four blocks have code for.
bool has_short_int8(const Weight& weight) { return weight.slots4 == 0 || weight.slots8 <= 2; }

// Whether the kernels for tiles of four blocks take the weight: they read whole tiles.
bool has_four_blocks(const Weight& weight) {
  return packed_blocks(weight.n) % 4 == 0 && has_short_int8(weight);
}

Plan many_rows(int tile) {
  return {.rows = tile, .blocks = 2, .groups = 1, .cluster = 1, .many = true};
}

std::span<const Candidate> candidates(const Weight& weight) {
  if (weight.grouped != 0) return kGroupedCandidates;
  if (weight.slots4 == 0) return kInt8Candidates;
  return kCandidates;
}

Plan estimated(int rows, const Weight& weight, int multiprocessors) {
  constexpr int kMostFewRows = 64;
  const int blocks = weight.blocks(), slots = weight.slots4 + weight.slots8;
  if (rows > kMostFewRows) {
    const int pairs = (blocks + 1) / 2;
    for (const int tile : {256, 128})
      if (pairs * ((rows + tile - 1) / tile) >= multiprocessors) return many_rows(tile);
    return many_rows(64);
  }
  int tile = 8;
  while (tile < rows) tile *= 2;
  Plan best;
  double least = 1e30;
  for (const Candidate& c : candidates(weight))
    for (const int cluster : {1, 2}) {
      if (c.rows != tile || slots < 2 * cluster) continue;
      const double time = cost(c, cluster, blocks, slots, multiprocessors);
      if (time >= least) continue;
      least = time;
      best = {.rows = c.rows,
              .blocks = c.blocks,
              .groups = c.groups,
              .cluster = cluster,
              .many = false};
    }
  return best;
}

std::span<const Tuned> table(const Weight& weight) {
  if (weight.grouped != 0) return kTunedGrouped;
  return kTuned;
}

Nearest nearest_built_in(int rows, const Weight& weight) {
  Nearest nearest;
  const bool only_int8 = weight.slots4 == 0;
  const int slots = only_int8 ? (weight.slots8 + 1) / 2 : weight.slots4 + weight.slots8;
  const auto away_of = [&](const auto& t) {
    return distance(t.blocks, weight.blocks()) + distance(t.slots, slots);
  };
  if (only_int8)
    for (const TunedInt8& t : kTunedInt8)
      if (rows_class(t.rows) == rows_class(rows) && away_of(t) < nearest.distance)
        nearest = {&t.plan, away_of(t)};
  constexpr double kAsNear = 0.1;  // tables of int4 count kept channels twice
  for (const Tuned& t : table(weight)) {
    const double away = away_of(t), handicap = only_int8 ? kAsNear : 0.0;
    if (away + handicap < nearest.distance) nearest = {&t.plan[rows_class(rows)], away};
  }
  return nearest;
}

bool is_tuned(int multiprocessors) { return multiprocessors == kTunedMultiprocessors; }

}  // namespace

const char* origin_of_plans(int multiprocessors) {
  return is_tuned(multiprocessors) ? kTunedOrigin : "estimated plans";
}

bool has_few_rows_kernel(const Weight& weight, int rows, int blocks, int groups) {
  const auto is_it = [&](const Candidate& c) {
    return c.rows == rows && c.blocks == blocks && c.groups == groups;
  };
  const std::span<const Candidate> all = candidates(weight);
  return std::any_of(all.begin(), all.end(), is_it);
}

Plan plan_in_order(int rows, const Weight& weight, bool by_expert, int multiprocessors) {
  return plan_in_order(rows, weight, by_expert, PlanSource{multiprocessors});
}

Plan plan_in_order(int rows, const Weight& weight, bool by_expert, const PlanSource& source) {
  if (by_expert || weight.grouped == 0) return plan(rows, weight, by_expert, source);
  const int multiprocessors = source.multiprocessors;
  const int pairs = (weight.blocks() + 1) / 2;
  const bool fills = pairs * 2 > multiprocessors;
  if (rows > 64 || (rows > 32 && fills)) {
    const Plan many = rows > 64 ? estimated(rows, weight, multiprocessors) : many_rows(64);
    return many.rows == 256 && !has_256_rows(weight) ? many_rows(128) : many;
  }
  int tile = 8;
  while (tile < rows) tile *= 2;
  return {.rows = tile, .blocks = tile > 8 ? 2 : 1, .groups = 1, .cluster = 1, .many = false};
}

bool has_many_rows_kernel(bool grouped, int rows, int blocks, int cluster, int groups) {
  const std::span<const ManyRows> all =
      grouped ? std::span<const ManyRows>(kGroupedManyRows) : std::span<const ManyRows>(kManyRows);
  return std::any_of(all.begin(), all.end(), [&](const ManyRows& k) {
    return k.rows == rows && k.blocks == blocks && k.cluster == cluster && k.groups == groups;
  });
}

bool suits(const Plan& plan, const Weight& weight) {
  if (plan.many && plan.blocks == 4) return has_four_blocks(weight);
  if (plan.many && plan.blocks == 3) return has_short_int8(weight);
  if (plan.many) return plan.rows != 256 || has_256_rows(weight);
  return plan.cluster <= weight.slots4 + weight.slots8;
}

Plan plan(int rows, const Weight& weight, bool by_expert, int multiprocessors) {
  return plan(rows, weight, by_expert, PlanSource{multiprocessors});
}

Plan plan(int rows, const Weight& weight, bool by_expert, const PlanSource& source) {
  // How many rows an expert has is known on the device only: the kernel whose CTAs take any number of tiles.
  if (by_expert) return many_rows(rows > 1024 ? 128 : 64);
  Nearest built_in;
  if (is_tuned(source.multiprocessors)) built_in = nearest_built_in(rows, weight);
  const Plan* nearest = nearer(find_nearest(source.measured, size_of(weight), rows), built_in);
  const Plan best = nearest != nullptr ? *nearest : estimated(rows, weight, source.multiprocessors);
  if (suits(best, weight)) return best;
  return best.many ? many_rows(128) : estimated(rows, weight, source.multiprocessors);
}

}  // namespace atom::backend::cuda::hopper
