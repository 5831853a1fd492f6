// Compares the Hopper linears with floating-point inputs, for every kernel and cut, with f64 sums of the rounded operands
// and of the operands themselves, within what roundings allow; where all numbers are small multiples of powers of two,
// bit by bit with the plain kernel. Plans that do not cut k must agree with each other bit by bit. Results in f16 must be
// those in f32, rounded. Exit code 1 when something differs.
//   half_check [f16] [bf16] [w4a16] [quick] [tiny]      no word: all; tiny: for compute-sanitizer
#include <cmath>
#include <cstring>
#include <iterator>

#include "bench/cuda/half_data.cuh"
#include "tests/backend/cuda/half_results.cuh"

namespace atom::bench {
namespace {

constexpr uint32_t kSentinel = 0x7fc0dead;
int cases = 0, failures = 0;

struct Case {
  HalfShape shape;
  int rows;
  bool add = false, exact = false;  // exact: numbers whose sums round nowhere
  int first_row = 0, end_row = 0;   // by expert; 0, 0: dense
  bool gather = false;
  bool large = false;  // bias beyond the range of f16
};

// The power of two that brings the largest magnitude to [2^14, 2^15).
float power_for(const float* values, size_t count) {
  float most = 0;
  for (size_t i = 0; i < count; ++i)
    if (std::isfinite(values[i])) most = std::max(most, std::fabs(values[i]));
  return most == 0 ? 1.0f : std::ldexp(1.0f, 14 - std::ilogb(most));
}
float rounded(float x) { return __half2float(__float2half_rn(x)); }

// Values of both sides as stored, and as the kernels multiply them.
struct Operands {
  std::vector<float> w, w_rounded;  // [n, k]
  std::vector<float> x, x_rounded;  // [rows, k]
};

void make_inputs(const Case& c, const cuda::InputView& view, Operands& o) {
  const int k = c.shape.k;
  std::vector<uint8_t> records(static_cast<size_t>(view.row_bytes) * c.rows, 0xff);
  for (int row = 0; row < c.rows; ++row) {
    std::vector<float> values(k);
    for (int i = 0; i < k; ++i) {
      const uint64_t at = uint64_t{1} * row * k + i;
      values[i] = c.exact ? static_cast<float>(static_cast<int>(random_at(21, at) % 31) - 15) *
                                std::ldexp(1.0f, row % 40 - 20)
                          : normal_at(22, at) * std::ldexp(1.0f, row % 3 * 30 - 30) *
                                (i % 97 == 5 ? 40.0f : 1.0f);
    }
    std::memcpy(&records[row * view.row_bytes], values.data(), size_t{4} * k);
    const float power = power_for(values.data(), k);
    for (const float v : values) {
      o.x.push_back(v);
      o.x_rounded.push_back(rounded(v * power) / power);
    }
  }
  ATOM_REQUIRE(cudaMemcpy(view.data, records.data(), records.size(), cudaMemcpyHostToDevice));
}

void make_floats(const Case& c, cuda::WeightView& view, Operands& o) {
  const HalfShape& s = c.shape;
  cuda::WeightSegment& segment = view.at[0];
  std::vector<uint16_t> codes(segment.row_bytes / 2 * s.n, 0xffff);
  for (int row = 0; row < s.n; ++row) {
    std::vector<float> values(s.k);
    for (int i = 0; i < s.k; ++i) {
      const uint64_t at = uint64_t{1} * row * s.k + i;
      float v = c.exact ? static_cast<float>(static_cast<int>(random_at(31, at) % 15) - 7) / 8
                        : normal_at(32, at) * 0.03f;
      if (!c.exact && s.element == cuda::Element::kBF16 && i % 7 == 0)
        v *= std::ldexp(1.0f, -static_cast<int>(random_at(33, at) % 50));
      uint16_t bits = __half_as_ushort(__float2half_rn(v));
      if (s.element == cuda::Element::kBF16) {
        uint32_t whole;
        std::memcpy(&whole, &v, 4);
        whole &= 0xffff0000u;
        std::memcpy(&v, &whole, 4);
        bits = static_cast<uint16_t>(whole >> 16);
      } else {
        v = rounded(v);
      }
      codes[segment.row_bytes / 2 * row + i] = bits;
      values[i] = v;
    }
    const float power = s.element == cuda::Element::kBF16 ? power_for(values.data(), s.k) : 1.0f;
    for (const float v : values) {
      o.w.push_back(v);
      o.w_rounded.push_back(rounded(v * power) / power);
    }
  }
  ATOM_REQUIRE(cudaMemcpy(const_cast<uint8_t*>(segment.codes), codes.data(), codes.size() * 2,
                          cudaMemcpyHostToDevice));
}

void make_codes(const Case& c, cuda::WeightView& view, Operands& o) {
  const HalfShape& s = c.shape;
  cuda::WeightSegment& segment = view.at[0];
  const std::vector<uint8_t> codes =
      host_copy(segment.codes, static_cast<size_t>(segment.row_bytes) * s.n);
  std::vector<float> steps = host_copy(segment.steps, size_t{1} * segment.groups * s.n);
  if (c.exact)
    for (size_t i = 0; i < steps.size(); ++i)
      steps[i] = std::ldexp(i % 3 == 0 ? -1.0f : 1.0f, static_cast<int>(random_at(41, i) % 3) - 9);
  ATOM_REQUIRE(cudaMemcpy(const_cast<float*>(segment.steps), steps.data(), steps.size() * 4,
                          cudaMemcpyHostToDevice));
  for (int row = 0; row < s.n; ++row) {
    std::vector<float> of_row;
    for (int g = 0; g < segment.groups; ++g) of_row.push_back(steps[size_t{1} * g * s.n + row]);
    const float power = power_for(of_row.data(), of_row.size());
    for (int i = 0; i < s.k; ++i) {
      const int code = ((codes[segment.row_bytes * row + i / 2] >> (i % 2 * 4)) & 15) - 8;
      const float step = of_row[i / 128], unit = 1.0f / 16777216.0f;
      o.w.push_back(static_cast<float>(code) * step);
      o.w_rounded.push_back(rounded(static_cast<float>(code) * (step * power) * unit) /
                            (power * unit));
    }
  }
}

// [rows, n]: the sum of products of rounded operands, of the operands, and of their magnitudes.
struct Sums {
  double of_rounded, exact, magnitude, largest;
};
struct SumTask {
  const float *w, *w_rounded, *x, *x_rounded;
  int n, k, rows;
};
__global__ void sum_kernel(SumTask t, Sums* sums) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= t.n * t.rows) return;
  const float *w = t.w + int64_t{i % t.n} * t.k, *x = t.x + int64_t{i / t.n} * t.k;
  const float *wr = t.w_rounded + int64_t{i % t.n} * t.k,
              *xr = t.x_rounded + int64_t{i / t.n} * t.k;
  Sums s = {0, 0, 0, 0};
  double most_w = 0, most_x = 0;
  for (int j = 0; j < t.k; ++j) {
    s.of_rounded += static_cast<double>(wr[j]) * xr[j];
    s.exact += static_cast<double>(w[j]) * x[j];
    s.magnitude += fabs(static_cast<double>(w[j]) * x[j]);
    most_w = fmax(most_w, fabs(static_cast<double>(w[j])));
    most_x = fmax(most_x, fabs(static_cast<double>(x[j])));
  }
  s.largest = most_w * most_x;
  sums[i] = s;
}

template <typename T>
T* upload(const std::vector<T>& values) {
  T* to = device_array<T>(values.size());
  ATOM_REQUIRE(cudaMemcpy(to, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  return to;
}

std::vector<Sums> sums_of(const Case& c, const Operands& o) {
  float *w = upload(o.w), *wr = upload(o.w_rounded), *x = upload(o.x), *xr = upload(o.x_rounded);
  const size_t count = size_t{1} * c.rows * c.shape.n;
  Sums* sums = device_array<Sums>(count);
  sum_kernel<<<(count + 127) / 128, 128>>>({w, wr, x, xr, c.shape.n, c.shape.k, c.rows}, sums);
  std::vector<Sums> result = host_copy(sums, count);
  for (void* memory : {static_cast<void*>(w), static_cast<void*>(wr), static_cast<void*>(x),
                       static_cast<void*>(xr), static_cast<void*>(sums)})
    ATOM_REQUIRE(cudaFree(memory));
  return result;
}

struct Expected {
  std::vector<Sums> sums;    // by the row of y
  std::vector<float> start;  // y before, with sentinels
  std::vector<float> bias;
  std::vector<float> plain;  // y by the plain kernel, exact cases only
};

bool is_close(const Case& c, const Expected& e, size_t i, float y) {
  const Sums& s = e.sums[i];
  const double before = c.add ? e.start[i] : 0, bias = e.bias[i % c.shape.n];
  // Every product is exact; a step of 16 adds to the sum with an error of two units of the largest sum's 2^-23; the
  // parts that k is cut into, factors, bias and addition round once each.
  const double of_sums = std::ldexp(1.0, -22) * (c.shape.k / 16.0 + 32);
  const double outer = std::ldexp(std::fabs(before) + std::fabs(bias) + s.magnitude, -22);
  const double expected = s.of_rounded + bias + before;
  if (!(std::fabs(y - expected) <= of_sums * s.magnitude + outer)) return false;
  const double operands = std::ldexp(c.shape.int4() ? 2.001 : 1.0, -11) * s.magnitude +
                          std::ldexp(s.largest, -37) * c.shape.k;
  return std::fabs(y - (s.exact + bias + before)) <=
         operands + of_sums * s.magnitude * 1.01 + outer;
}

void compare(const Case& c, const hopper::Plan& p, const Expected& e, const std::vector<float>& y,
             const std::vector<float>* same, const char* what) {
  const size_t count = y.size() - 64;
  const int n = c.shape.n;
  size_t wrong = 0, first = 0;
  const auto is_wrong = [&](size_t i) {
    const int row = static_cast<int>(i / n);
    const bool asked = c.end_row == 0 || (row >= c.first_row && row < c.end_row);
    if (i >= count || !asked) return std::memcmp(&y[i], &e.start[i], 4) != 0;
    if (!e.plain.empty()) return std::memcmp(&y[i], &e.plain[i], 4) != 0;
    if (same != nullptr && std::memcmp(&y[i], &(*same)[i], 4) != 0) return true;
    return !is_close(c, e, i, y[i]);
  };
  for (size_t i = 0; i < y.size(); ++i)
    if (is_wrong(i) && wrong++ == 0) first = i;
  if (wrong == 0) return;
  ++failures;
  if (failures < 30)
    std::printf(
        "  WRONG %s %s%s n %d k %d rows %d add %d [%d, %d) plan %d/%d/%d x%d%s: %zu of %zu, first "
        "row %zu output %zu: %g for %g\n",
        c.shape.name(), what, c.exact ? " exact" : "", n, c.shape.k, c.rows, c.add, c.first_row,
        c.end_row, p.rows, p.blocks, p.groups, p.cluster, p.many ? " many" : "", wrong, count,
        first / n, first % n, y[first],
        first >= count     ? 0.0f
        : !e.plain.empty() ? e.plain[first]
                           : e.sums[first].of_rounded);
}

struct Memory {
  cuda::InputView x;
  cuda::WeightView view;
  hopper::HalfWeight w;
  hopper::HalfRows rows;
  float* y;
  int32_t *ends, *index;
};

void run_plain(const Case& c, const Memory& m, Expected& e) {
  cuda::LinearTask plain;
  plain.x = m.x;
  plain.w = m.view;
  plain.add = c.add ? 1 : 0;
  plain.y = m.y;
  if (c.end_row > 0) plain.row_ends = m.ends, plain.expert = 1;
  if (c.gather) plain.row_index = m.index;
  ATOM_REQUIRE(cudaMemcpy(m.y, e.start.data(), e.start.size() * 4, cudaMemcpyHostToDevice));
  ATOM_REQUIRE(cuda::launch_linear(plain, nullptr));
  e.plain = host_copy(m.y, e.start.size());
}

// The inputs' rows, then the linear.
void launch(const Case& c, const Memory& m, const hopper::Plan& p, hopper::HalfTask t) {
  hopper::HalfRowsTask rows;
  rows.x = m.x;
  rows.to = m.rows;
  rows.dependent = t.dependent;
  if (c.gather) rows.row_index = m.index, rows.count = m.ends + 1;
  ATOM_REQUIRE(hopper::launch_half_rows(rows, nullptr));
  t.x = m.rows;
  t.w = m.w;
  if (c.end_row > 0) t.row_ends = m.ends, t.expert = 1;
  ATOM_REQUIRE(hopper::launch_half_linear(t, p, 132, nullptr));
  ATOM_REQUIRE(cudaDeviceSynchronize());
}

// Results in f16 are those in f32, rounded, and leave alone what lies beside them.
void check_halves(const Case& c, const Memory& m, const hopper::Plan& p, HalfResults& halves) {
  hopper::HalfTask t;
  t.dependent = 1;
  t.y = m.y;
  launch(c, m, p, t);
  const std::vector<float> result = host_copy(m.y, halves.count());
  t.y = nullptr;
  t.y_f16 = halves.y();
  halves.reset();
  launch(c, m, p, t);
  HalfResults::Wrong wrong = halves.compare(result);
  t.x = m.rows;
  t.w = m.w;
  t.add = 1;
  if (hopper::launch_half_linear(t, p, 132, nullptr) == 0) ++wrong.count;
  if (wrong.count == 0 || ++failures > 30) return;
  std::printf("  WRONG f16 %s n %d k %d rows %d [%d, %d) plan %d/%d/%d x%d%s: %zu, first %zu\n",
              c.shape.name(), c.shape.n, c.shape.k, c.rows, c.first_row, c.end_row, p.rows,
              p.blocks, p.groups, p.cluster, p.many ? " many" : "", wrong.count, wrong.first);
}

void run_plans(const Case& c, const Memory& m, const Expected& e) {
  std::vector<float> same;  // by the first plan that does not cut k
  const auto row_at = [&](int row) { return size_t{1} * row * c.shape.n; };
  HalfResults halves(e.start.size(), row_at(c.first_row),
                     row_at(c.end_row > 0 ? c.end_row : c.rows));
  for (const hopper::Plan& p : half_plans(m.w.kind, c.shape.k)) {
    if (!p.many && c.rows > 4 * p.rows) continue;
    for (const int dependent : {0, 1}) {
      ATOM_REQUIRE(cudaMemcpy(m.y, e.start.data(), e.start.size() * 4, cudaMemcpyHostToDevice));
      hopper::HalfTask t;
      t.add = c.add ? 1 : 0;
      t.y = m.y;
      t.dependent = dependent;
      launch(c, m, p, t);
      const std::vector<float> y = host_copy(m.y, e.start.size());
      const bool whole = p.many || (p.cluster == 1 && p.groups == 1);
      if (whole && same.empty()) same = y;
      compare(c, p, e, y, whole ? &same : nullptr, dependent ? "dependent" : "plain launch");
    }
    check_halves(c, m, p, halves);
  }
}

void run(const Case& c) {
  ++cases;
  const HalfShape& s = c.shape;
  Memory m;
  Operands o;
  Expected e;
  m.x = half_input(s, c.rows);
  m.view = half_weight(s, 1);
  make_inputs(c, m.x, o);
  if (s.int4())
    make_codes(c, m.view, o);
  else
    make_floats(c, m.view, o);
  for (int i = 0; i < s.n; ++i)
    e.bias.push_back((c.exact ? static_cast<float>(i % 5) : normal_at(5, i)) *
                     (c.large ? 1e5f : 1.0f));
  float* bias = upload(e.bias);
  m.view.bias = bias;
  m.w = half_packed(m.view, s);
  m.rows = half_rows(c.rows, s.k);
  e.start.resize(size_t{1} * c.rows * s.n + 64);
  for (size_t i = 0; i < e.start.size(); ++i) {
    e.start[i] = c.exact ? static_cast<float>(i % 9) : normal_at(99, i);
    if (i >= e.start.size() - 64) std::memcpy(&e.start[i], &kSentinel, 4);
  }
  m.y = device_array<float>(e.start.size());
  m.ends = upload(std::vector<int32_t>{c.first_row, c.end_row > 0 ? c.end_row : c.rows});
  std::vector<int32_t> index(c.rows);
  for (int i = 0; i < c.rows; ++i) index[i] = c.rows - 1 - i;
  m.index = upload(index);
  if (c.exact)
    run_plain(c, m, e);
  else
    e.sums = sums_of(c, o);
  if (c.gather && !c.exact) std::exit(2);  // sums are not in that order
  run_plans(c, m, e);
  for (const void* memory :
       {static_cast<const void*>(m.x.data), static_cast<const void*>(m.view.at[0].codes),
        static_cast<const void*>(m.view.at[0].steps), static_cast<const void*>(bias),
        static_cast<const void*>(m.w.slots), static_cast<const void*>(m.w.factors),
        static_cast<const void*>(m.rows.values), static_cast<const void*>(m.rows.factors),
        static_cast<const void*>(m.y), static_cast<const void*>(m.ends),
        static_cast<const void*>(m.index)})
    ATOM_REQUIRE(cudaFree(const_cast<void*>(memory)));
}

enum class Extent { kAll, kQuick, kTiny };

void check_shape(const HalfShape& shape, Extent extent) {
  std::vector<int> all = {1, 2, 3, 8, 17, 33, 63, 64, 65, 127, 128, 129, 1000};
  if (extent == Extent::kQuick) all = {1, 7, 33, 64, 129};
  if (extent == Extent::kTiny) all = {3, 30};
  for (const int rows : all) {
    if (rows == 1000 && int64_t{shape.n} * shape.k > 400000) continue;
    run({shape, rows, rows % 2 == 0});
    run({shape, rows, rows % 2 == 1, true});
    if (rows < 16) continue;
    if (rows == 129 || rows == 30) run({shape, rows, false, false, 0, 0, false, true});
    run({shape, rows, false, false, rows / 4, rows / 2 + 3});
    run({shape, rows, true, true, rows / 4, rows / 2 + 3, true});
    run({shape, rows, true, true, rows / 2, rows / 2});  // an expert without rows
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
  const bool any = !has("f16") && !has("bf16") && !has("w4a16");
  const Extent extent = has("tiny") ? Extent::kTiny : has("quick") ? Extent::kQuick : Extent::kAll;
  const size_t stride = extent == Extent::kAll ? 1 : extent == Extent::kQuick ? 2 : 3;
  const size_t first = extent == Extent::kTiny ? 1 : 0;
  const HalfShape shapes[] = {{512, 1024}, {100, 272}, {320, 1536}, {8, 128},   {70, 1000},
                              {256, 60},   {64, 4096}, {201, 129},  {640, 2752}};
  using atom::backend::cuda::Element;
  for (const Element element : {Element::kF16, Element::kBF16, Element::kInt4})
    for (size_t i = first; i < std::size(shapes); i += stride) {
      HalfShape shape = shapes[i];
      shape.element = element;
      if (any || has(shape.name())) check_shape(shape, extent);
    }
  std::printf("half_check: %d cases, %d failures\n", cases, failures);
  return failures == 0 ? 0 : 1;
}
