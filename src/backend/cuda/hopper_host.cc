// Tensor maps, and the choice of a kernel and its cut, for hopper_linear.h. Needs the CUDA headers alone.
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "backend/cuda/hopper_launch.h"
#include "backend/cuda/hopper_tuned.h"

namespace atom::backend::cuda::hopper {
namespace {

using EncodeTiled = decltype(&cuTensorMapEncodeTiled);

// The driver's function; null where it has none.
EncodeTiled find_encode() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  constexpr unsigned kVersion = 12000;
  if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, kVersion,
                                       cudaEnableDefault, &found) != cudaSuccess ||
      found != cudaDriverEntryPointSuccess)
    return nullptr;
  return reinterpret_cast<EncodeTiled>(function);
}

struct Matrix {
  CUtensorMapDataType type;
  void* data;
  int columns, rows;
  int64_t row_bytes;
  int box_columns, box_rows;
};
Status make_map(const Matrix& m, CUtensorMap& map) {
  static const EncodeTiled encode = find_encode();
  if (encode == nullptr) return cudaErrorNotSupported;
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(m.columns), static_cast<cuuint64_t>(m.rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(m.row_bytes)};
  const cuuint32_t box[2] = {static_cast<cuuint32_t>(m.box_columns),
                             static_cast<cuuint32_t>(m.box_rows)};
  const cuuint32_t steps[2] = {1, 1};
  const CUresult result =
      encode(&map, m.type, 2, m.data, sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
             CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}
Status make_input_map(const InputView& x, int segment, int box_rows, CUtensorMap& map) {
  const InputSegment& s = x.at[segment];
  return make_map({CU_TENSOR_MAP_DATA_TYPE_UINT8, x.data + s.codes_at, s.size, x.rows, x.row_bytes,
                   128, box_rows},
                  map);
}

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

// Microseconds of a linear with few rows, as measured on an H200 within some 10 %: a constant, the slots of the
// busiest multiprocessor at its share of the bandwidth, a step of the walk for each slot of a group in turn, and what
// a cluster's exchange takes.
double cost(const Candidate& c, int cluster, int blocks, int slots, int multiprocessors) {
  constexpr double kSlotMicroseconds = 0.125;  // kSlotBytes at 33 GB/s, a multiprocessor's share
  const int ctas = (blocks + c.blocks - 1) / c.blocks * cluster;
  const int resident = multiprocessors * c.ctas;
  const int waves = (ctas + resident - 1) / resident;
  const int busiest = (std::min(ctas, resident) + multiprocessors - 1) / multiprocessors;
  const int slots_of_cta = (slots + cluster - 1) / cluster;
  const double inputs = 1.0 + c.rows * 128.0 / (c.blocks * kSlotBytes) * 0.5;  // from L2
  const double stream = busiest * c.blocks * slots_of_cta * kSlotMicroseconds * inputs;
  const double walk = (slots_of_cta + c.groups - 1) / c.groups * 0.12;
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

Status make_input_maps(const Task& task, int box_rows, InputMaps& maps) {
  Status status = cudaSuccess;
  if (task.segment4 >= 0) status = make_input_map(task.x, task.segment4, box_rows, maps.of4);
  if (task.segment8 >= 0 && status == cudaSuccess)
    status = make_input_map(task.x, task.segment8, box_rows, maps.of8);
  if (task.segment4 < 0) maps.of4 = maps.of8;
  if (task.segment8 < 0) maps.of8 = maps.of4;
  return status;
}

Status make_result_map(const Task& task, int box_rows, CUtensorMap& map) {
  return make_map({CU_TENSOR_MAP_DATA_TYPE_FLOAT32, task.y, task.w.n, task.x.rows,
                   int64_t{task.w.n} * 4, 32, box_rows},
                  map);
}

bool has_few_rows_kernel(int rows, int blocks, int groups) {
  return std::any_of(std::begin(kCandidates), std::end(kCandidates), [&](const Candidate& c) {
    return c.rows == rows && c.blocks == blocks && c.groups == groups;
  });
}

Plan plan(int rows, const Weight& weight, bool by_expert, int multiprocessors) {
  // How many rows an expert has is known on the device only: the kernel whose CTAs take any number of tiles.
  if (by_expert)
    return {.rows = rows > 1024 ? 128 : 64, .blocks = 2, .groups = 1, .cluster = 1, .many = true};
  const Plan best = multiprocessors == kTunedMultiprocessors
                        ? tuned(rows, weight)
                        : estimated(rows, weight, multiprocessors);
  const bool any_rows = weight.slots4 > 0 && weight.slots8 <= kMostSlots8 && weight.n % 4 == 0;
  if (best.many && best.rows == 256 && !any_rows)
    return {.rows = 128, .blocks = 2, .groups = 1, .cluster = 1, .many = true};
  if (best.cluster > weight.slots4 + weight.slots8) return estimated(rows, weight, multiprocessors);
  return best;
}

Status launch_linear(const Task& task, const Plan& plan, int multiprocessors, Stream stream) {
  if (task.w.n == 0 || task.x.rows == 0) return cudaSuccess;
  return plan.many ? launch_many_rows(task, plan, multiprocessors, stream)
                   : launch_few_rows(task, plan, stream);
}

}  // namespace atom::backend::cuda::hopper
