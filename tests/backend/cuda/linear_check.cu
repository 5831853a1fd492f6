// Compares the Hopper linear with the plain kernel on a device, for every kernel and cut. Results must have the same bits.
// Those of w4a4 must where all scales are powers of two, so that nothing is rounded; else they may differ by roundings, but
// those of plans that do not cut k must have the same bits as each other. Results in f16 must be those in f32, rounded. Exit
// code 1 when one differs.
//   linear_check [w4a8] [w4a4] [few] [many] [quick] [tiny]      w4a8 includes w8a8; quick: fewer shapes; tiny: for
//   compute-sanitizer. No word: all
#include <cmath>
#include <cstring>
#include <iterator>

#include "backend/cuda/hopper_measured.h"
#include "bench/cuda/linear_data.cuh"
#include "tests/backend/cuda/half_results.cuh"

namespace atom::bench {
namespace {

constexpr uint32_t kSentinel = 0x7fc0dead;
int cases = 0, failures = 0;

struct Case {
  LinearShape shape;
  int rows;
  bool add;
  int first_row = 0, end_row = 0;  // by expert; 0, 0: dense
  bool powers = false;             // all scales are powers of two
  bool large = false;              // bias beyond the range of f16, or no number
};

// Scales become powers of two: 1/32 or 1/64, with their sign. Sums of k <= 11008 products stay below 2^24 such units.
__global__ void round_scales(float* scales, size_t count, size_t stride, int each) {
  for (size_t i = blockIdx.x * size_t{blockDim.x} + threadIdx.x; i < count * each;
       i += size_t{gridDim.x} * blockDim.x) {
    float& scale = scales[i / each * stride + i % each];
    scale = (scale < 0 ? -1.0f : 1.0f) / (random_at(17, i) % 2 == 0 ? 32 : 64);
  }
}
void round_all_scales(const LinearShape& shape, const cuda::WeightView& w,
                      const cuda::InputView& x) {
  for (int s = 0; s < 2; ++s) {
    const cuda::WeightSegment& of_w = w.at[s];
    const cuda::InputSegment& of_x = x.at[s];
    if (of_w.size == 0) continue;
    round_scales<<<256, 256>>>(const_cast<float*>(of_w.steps), shape.n, of_w.groups, of_w.groups);
    round_scales<<<256, 256>>>(reinterpret_cast<float*>(x.data + of_x.scales_at), x.rows,
                               x.row_bytes / 4, of_x.groups);
  }
  ATOM_REQUIRE(cudaGetLastError());
}

// The sum of the magnitudes of what w4a4 adds up, without bias: [rows, n].
__global__ void sum_magnitudes(cuda::WeightView w, cuda::InputView x, float* to) {
  const int output = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y;
  if (output >= w.n) return;
  const uint8_t* record = x.data + row * x.row_bytes;
  float total = 0;
  for (int s = 0; s < 2; ++s) {
    const cuda::WeightSegment& of = w.at[s];
    if (of.size == 0) continue;
    const auto* codes = reinterpret_cast<const int8_t*>(record + x.at[s].codes_at);
    const auto* scales = reinterpret_cast<const float*>(record + x.at[s].scales_at);
    for (int g = 0; g < of.groups; ++g) {
      int sum = 0;
      for (int i = g * of.group; i < min(of.size, (g + 1) * of.group); ++i) {
        const uint8_t* at = of.codes + output * of.row_bytes;
        const int code = of.element == cuda::Element::kInt8 ? static_cast<int8_t>(at[i])
                                                            : ((at[i / 2] >> (i % 2 * 4)) & 15) - 8;
        sum += code * codes[i];
      }
      total += fabsf(static_cast<float>(sum) * of.steps[size_t{1} * g * w.n + output] * scales[g]);
    }
  }
  to[size_t{1} * row * w.n + output] = total;
}

std::vector<float> filled(size_t count) {
  std::vector<float> y(count);
  for (size_t i = 0; i < count; ++i) y[i] = normal_at(99, i);
  return y;
}

// tolerance: of every result, or empty: none.
void compare(const Case& c, const hopper::Plan& p, const std::vector<float>& expected,
             const std::vector<float>& tolerance, const float* device, const char* what) {
  const size_t count = expected.size() - 64;
  const std::vector<float> y = host_copy(device, expected.size());
  const auto is_right = [&](size_t i) {
    if (std::memcmp(&y[i], &expected[i], 4) == 0) return true;
    return !tolerance.empty() && std::fabs(y[i] - expected[i]) <= tolerance[i];
  };
  size_t wrong = 0, first = 0;
  for (size_t i = 0; i < count; ++i)
    if (!is_right(i) && wrong++ == 0) first = i;
  uint32_t guard = 0;
  for (size_t i = count; i < y.size(); ++i) {
    std::memcpy(&guard, &y[i], 4);
    if (guard != kSentinel && wrong++ == 0) first = i;
  }
  if (wrong == 0) return;
  ++failures;
  if (failures < 40)
    std::printf(
        "  WRONG %s%s %s n %d k %d kept %d rows %d add %d [%d, %d) plan %d/%d/%d x%d%s: %zu of "
        "%zu, "
        "first row %zu output %zu: %g for %g\n",
        c.shape.grouped ? "w4a4" : "w4a8", c.powers ? " powers" : "", what, c.shape.n, c.shape.k,
        c.shape.kept, c.rows, c.add, c.first_row, c.end_row, p.rows, p.blocks, p.groups, p.cluster,
        p.many ? " many" : "", wrong, count, first / c.shape.n, first % c.shape.n, y[first],
        expected[first]);
}

// What additions in another order may change: every one of the S + 1 terms of a result (S groups, the int8 segment),
// and their sums on the way, is rounded by at most 2^-24 of the sum of magnitudes, here and in the plain kernel; bias and
// what y had are added to both, with a rounding of their own.
std::vector<float> tolerances(const Case& c, const cuda::WeightView& w, const cuda::InputView& x,
                              const std::vector<float>& start, const std::vector<float>& expected) {
  const size_t count = size_t{1} * c.rows * c.shape.n;
  auto* device = device_array<float>(count);
  sum_magnitudes<<<dim3((w.n + 127) / 128, x.rows), 128>>>(w, x, device);
  std::vector<float> sums = host_copy(device, count);
  ATOM_REQUIRE(cudaFree(device));
  const auto terms = static_cast<float>(c.shape.slots4() + 1);
  for (size_t i = 0; i < count; ++i)
    sums[i] = 0x1p-24f * (2 * (terms + 2) * sums[i] +
                          4 * (std::fabs(expected[i]) + std::fabs(c.add ? start[i] : 0.0f)));
  return sums;
}

// Kernels for many rows also on a device of few multiprocessors: a CTA takes tile after tile there.
struct Launch {
  const char* name;
  int dependent, multiprocessors;
};
const std::vector<Launch> kFewLaunches = {{"plain launch", 0, 132}, {"dependent", 1, 132}};
const std::vector<Launch> kManyLaunches = {
    {"plain launch", 0, 132}, {"dependent", 1, 132}, {"six multiprocessors", 1, 6}};

void compare_halves(const Case& c, const hopper::Plan& p, HalfResults& halves,
                    const std::vector<float>& result, const char* what) {
  const HalfResults::Wrong wrong = halves.compare(result);
  if (wrong.count == 0 || ++failures >= 40) return;
  std::printf(
      "  WRONG f16 %s %s n %d k %d kept %d rows %d [%d, %d) plan %d/%d/%d x%d%s: %zu, first row "
      "%zu output %zu\n",
      c.shape.grouped ? "w4a4" : "w4a8", what, c.shape.n, c.shape.k, c.shape.kept, c.rows,
      c.first_row, c.end_row, p.rows, p.blocks, p.groups, p.cluster, p.many ? " many" : "",
      wrong.count, wrong.first / c.shape.n, wrong.first % c.shape.n);
}

void check_plain_halves(const Case& c, HalfResults& halves, cuda::LinearTask t) {
  t.add = 0;
  ATOM_REQUIRE(cuda::launch_linear(t, nullptr));
  const std::vector<float> result = host_copy(t.y, halves.count());
  t.y = nullptr;
  t.y_f16 = halves.y();
  halves.reset();
  ATOM_REQUIRE(cuda::launch_linear(t, nullptr));
  compare_halves(c, {}, halves, result, "plain kernel");
}
// t: writes f32.
void check_halves(const Case& c, HalfResults& halves, hopper::Task t, const hopper::Plan& p) {
  t.add = 0;
  ATOM_REQUIRE(hopper::launch_linear(t, p, 132, nullptr));
  const std::vector<float> result = host_copy(t.y, halves.count());
  t.y = nullptr;
  t.y_f16 = halves.y();
  t.add = 1;
  if (hopper::launch_linear(t, p, 132, nullptr) == 0 && ++failures < 40)
    std::printf("  WRONG f16: added\n");
  t.add = 0;
  for (const int few_multiprocessors : {0, 1}) {
    if (few_multiprocessors != 0 && !p.many) continue;
    t.dependent = few_multiprocessors == 0 ? 1 : 0;
    halves.reset();
    const cuda::Status status =
        hopper::launch_linear(t, p, few_multiprocessors != 0 ? 6 : 132, nullptr);
    if (status != 0 && p.many && p.rows == 256 && t.w.n % 8 != 0) return;  // no boxes
    ATOM_REQUIRE(status);
    ATOM_REQUIRE(cudaDeviceSynchronize());
    compare_halves(c, p, halves, result, few_multiprocessors != 0 ? "six" : "dependent");
  }
}

// [n]; large: beyond the range of f16, just inside it when rounded, and no numbers.
float* make_bias(const Case& c) {
  const float large[] = {7e4f, -1e30f, 65519.99f, -65504, 65520, INFINITY, -INFINITY, NAN, 1};
  auto* bias = device_array<float>(c.shape.n);
  fill(bias, c.shape.n, Fill::kFloat, 5);
  std::vector<float> values = host_copy(bias, c.shape.n);
  for (size_t i = 0; c.large && i < values.size(); ++i) values[i] = large[i % std::size(large)];
  ATOM_REQUIRE(cudaMemcpy(bias, values.data(), values.size() * 4, cudaMemcpyHostToDevice));
  return bias;
}

void run(const Case& c, const std::vector<hopper::Plan>& plans) {
  cuda::WeightView view = random_weight(c.shape, 1);
  float* bias = make_bias(c);
  view.bias = bias;
  const cuda::InputView x = random_input(c.shape, c.rows, 2);
  if (c.powers) round_all_scales(c.shape, view, x);
  const hopper::Weight w = packed(view, c.shape);
  const size_t count = size_t{1} * c.rows * c.shape.n, whole = count + 64;
  std::vector<float> start = filled(whole);
  for (size_t i = count; i < whole; ++i) std::memcpy(&start[i], &kSentinel, 4);
  auto* y = device_array<float>(whole);
  auto* ends = device_array<int32_t>(2);
  const int32_t row_ends[2] = {c.first_row, c.end_row};
  ATOM_REQUIRE(cudaMemcpy(ends, row_ends, sizeof row_ends, cudaMemcpyHostToDevice));
  const auto reset = [&] {
    ATOM_REQUIRE(cudaMemcpy(y, start.data(), whole * sizeof(float), cudaMemcpyHostToDevice));
  };
  cuda::LinearTask plain;
  plain.x = x;
  plain.w = view;
  plain.add = c.add ? 1 : 0;
  plain.y = y;
  if (c.end_row > 0) plain.row_ends = ends, plain.expert = 1;
  reset();
  ATOM_REQUIRE(cuda::launch_linear(plain, nullptr));
  const std::vector<float> expected = host_copy(y, whole);
  HalfResults halves(whole, size_t{1} * c.first_row * c.shape.n,
                     size_t{1} * (c.end_row > 0 ? c.end_row : c.rows) * c.shape.n);
  check_plain_halves(c, halves, plain);
  std::vector<float> tolerance;
  if (c.shape.grouped && !c.powers) tolerance = tolerances(c, view, x, start, expected);
  std::vector<float> in_order;  // of w4a4, where k is not cut
  for (const hopper::Plan& p : plans) {
    if (p.many && p.blocks > 2 && !hopper::suits(p, w)) continue;
    hopper::Task t = task_of(x, w, y);
    t.add = plain.add;
    t.row_ends = plain.row_ends;
    t.expert = plain.expert;
    for (const Launch& how : p.many ? kManyLaunches : kFewLaunches) {
      t.dependent = how.dependent;
      reset();
      ATOM_REQUIRE(hopper::launch_linear(t, p, how.multiprocessors, nullptr));
      ATOM_REQUIRE(cudaDeviceSynchronize());
      compare(c, p, expected, tolerance, y, how.name);
      if ((!p.many && p.groups * p.cluster > 1) || tolerance.empty()) continue;
      if (in_order.empty())
        in_order = host_copy(y, whole);
      else
        compare(c, p, in_order, {}, y, "in order");
    }
    check_halves(c, halves, t, p);
  }
  for (const void* memory :
       {static_cast<const void*>(y), static_cast<const void*>(ends), static_cast<const void*>(bias),
        static_cast<const void*>(x.data), static_cast<const void*>(w.slots)})
    ATOM_REQUIRE(cudaFree(const_cast<void*>(memory)));
}

struct Wanted {
  bool few = true, many = true, quick = false, tiny = false;
};

std::vector<hopper::Plan> plans_for(const Wanted& wanted, const LinearShape& shape, int rows,
                                    bool can_256) {
  std::vector<hopper::Plan> plans;
  for (const hopper::Plan& plan : few_rows_plans(shape.grouped, shape.normal() == 0))
    if (wanted.few && rows <= 4 * plan.rows) plans.push_back(plan);
  for (const hopper::Plan& plan : many_rows_plans(shape.grouped))
    if (wanted.many && (plan.rows < 256 || can_256)) plans.push_back(plan);
  return plans;
}

void check_shape(const LinearShape& shape, const Wanted& wanted) {
  std::vector<int> all = {1, 2, 3, 7, 8, 9, 16, 17, 33, 63, 64, 65, 127, 129, 300, 1000};
  if (wanted.quick) all = {1, 7, 16, 33, 64, 129, 300};
  if (wanted.tiny) all = {7, 33, 130};
  for (const int rows : all) {
    const auto plans = [&](bool can_256) { return plans_for(wanted, shape, rows, can_256); };
    const bool can_256 =
        shape.normal() > 0 && shape.slots8() <= (shape.grouped ? 4 : 2) && shape.n % 4 == 0;
    run({shape, rows, rows % 2 == 0}, plans(can_256));
    if (shape.grouped) run({shape, rows, rows % 2 == 1, 0, 0, true}, plans(can_256));
    ++cases;
    if (rows == 129 || rows == 7)
      run({shape, rows, false, 0, 0, shape.grouped, true}, plans(can_256));
    if (rows < 16) continue;
    run({shape, rows, false, rows / 4, rows / 2 + 3}, plans(false));
    run({shape, rows, true, rows / 2, rows / 2}, plans(false));  // an expert without rows
  }
}

}  // namespace
}  // namespace atom::bench

int main(int count, char** words) {
  using namespace atom::bench;
  const auto has = [&](const char* word) {
    for (int i = 1; i < count; ++i)
      if (std::strcmp(words[i], word) == 0) return true;
    return false;
  };
  const bool any_format = !has("w4a8") && !has("w4a4"), any_rows = !has("few") && !has("many");
  const Wanted wanted{any_rows || has("few"), any_rows || has("many"), has("quick"), has("tiny")};
  const LinearShape shapes[] = {
      {512, 1024, 128}, {320, 1536, 128}, {192, 416, 32},    {100, 272, 16},    {256, 1000, 0},
      {128, 384, 384},  {64, 4096, 128},  {640, 11008, 128}, {1024, 4096, 128}, {8, 128, 64},
      {136, 2048, 256}, {70, 512, 128},   {192, 4096, 4096}, {70, 512, 512},    {130, 928, 928}};
  for (const bool grouped : {false, true})
    for (size_t i = 0; i < std::size(shapes); i += wanted.tiny ? 5 : wanted.quick ? 2 : 1) {
      LinearShape shape = shapes[i];
      shape.grouped = grouped;
      if (any_format || has(grouped ? "w4a4" : "w4a8"))
        if (!grouped || shape.normal() > 0) check_shape(shape, wanted);
    }
  std::printf("linear_check: %d cases, %d failures\n", cases, failures);
  return failures == 0 ? 0 : 1;
}
