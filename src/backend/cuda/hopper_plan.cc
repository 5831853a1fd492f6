// The choice of a kernel and of its cut for hopper_linear.h: no device, no CUDA.
#include <algorithm>
#include <cmath>
#include <iterator>

#include "backend/cuda/hopper_tuned.h"

namespace atom::backend::cuda::hopper {
namespace {

// A kernel for few rows, as launch_few_rows has them.
struct Candidate {
  int rows, blocks, groups;
  int ctas;  // that a multiprocessor holds
};
constexpr Candidate kCandidates[] = {
    {8, 1, 2, 4},  {8, 1, 4, 2},  {8, 1, 8, 1},  {8, 2, 2, 2},  {16, 1, 3, 2},
    {16, 1, 6, 1}, {16, 2, 1, 2}, {32, 1, 4, 1}, {32, 1, 6, 1}, {32, 2, 1, 2},
    {32, 2, 2, 1}, {64, 1, 2, 1}, {64, 1, 4, 1}, {64, 2, 2, 1},
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

constexpr int kMostSlots8 = 4;  // beside int4 slots, of the kernel for 256 rows

Plan estimated(int rows, const Weight& weight, int multiprocessors) {
  constexpr int kMostFewRows = 64;
  const int blocks = weight.blocks(), slots = weight.slots4 + weight.slots8;
  if (rows > kMostFewRows) {
    const int pairs = (blocks + 1) / 2;
    for (const int tile : {256, 128})
      if (pairs * ((rows + tile - 1) / tile) >= multiprocessors)
        return {.rows = tile, .blocks = 2, .groups = 1, .cluster = 1, .many = true};
    return {.rows = 64, .blocks = 2, .groups = 1, .cluster = 1, .many = true};
  }
  int tile = 8;
  while (tile < rows) tile *= 2;
  Plan best;
  double least = 1e30;
  for (const Candidate& c : kCandidates)
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

// How far apart two sizes are: the logarithm of their ratio.
double distance(int a, int b) {
  return std::abs(std::log(static_cast<double>(std::max(a, 1)) / std::max(b, 1)));
}

Plan tuned(int rows, const Weight& weight) {
  int rows_class = 0;
  while (rows_class + 1 < kTunedClasses && rows > kTunedRows[rows_class]) ++rows_class;
  const Tuned* nearest = kTuned;
  double least = 1e30;
  for (const Tuned& t : kTuned) {
    const double away =
        distance(t.blocks, weight.blocks()) + distance(t.slots, weight.slots4 + weight.slots8);
    if (away < least) least = away, nearest = &t;
  }
  return nearest->plan[rows_class];
}

}  // namespace

bool is_tuned(int multiprocessors) { return multiprocessors == kTunedMultiprocessors; }

bool has_few_rows_kernel(int rows, int blocks, int groups) {
  return std::any_of(std::begin(kCandidates), std::end(kCandidates), [&](const Candidate& c) {
    return c.rows == rows && c.blocks == blocks && c.groups == groups;
  });
}

Plan plan(int rows, const Weight& weight, bool by_expert, int multiprocessors) {
  // How many rows an expert has is known on the device only: the kernel whose CTAs take any number of tiles.
  if (by_expert)
    return {.rows = rows > 1024 ? 128 : 64, .blocks = 2, .groups = 1, .cluster = 1, .many = true};
  const Plan best =
      is_tuned(multiprocessors) ? tuned(rows, weight) : estimated(rows, weight, multiprocessors);
  const bool any_rows = weight.slots4 > 0 && weight.slots8 <= kMostSlots8 && weight.n % 4 == 0;
  if (best.many && best.rows == 256 && !any_rows)
    return {.rows = 128, .blocks = 2, .groups = 1, .cluster = 1, .many = true};
  if (best.cluster > weight.slots4 + weight.slots8) return estimated(rows, weight, multiprocessors);
  return best;
}

}  // namespace atom::backend::cuda::hopper
