// Backend::pack and Backend::linear on every backend.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "backend/linear_run.h"
#include "format/float16.h"
#include "testing/compare.h"
#include "testing/expect_error.h"
#include "testing/sanitized.h"

namespace atom::backend {
namespace {

using atom::testing::all_within;
using atom::testing::between;
using atom::testing::is_chosen;
using atom::testing::same_bits;
using atom::testing::same_values;
using format::e2m1;
using format::Format;
using format::int4;
using format::int4_progressive;
using format::kBF16;
using format::kF16;
using format::kF32;
using format::kInt8;
using format::kMxfp4;
using format::kNvfp4;

// Every combination that a linear computes.
constexpr std::array kFormats = {
    Formats{kF32, kF32, kF32, kF32},
    Formats{kF16, kF32, kF16, kF32},
    Formats{kBF16, kF32, kBF16, kF32},
    Formats{kF16, kF16, kInt8, kF16},
    Formats{int4(128), kF32, kInt8, kF32},
    Formats{int4(32), kF32, kF16, kF32},
    Formats{int4(0), kF32, kInt8, kF32},
    Formats{kInt8, kF32, kBF16, kF32},
    Formats{kF16, kInt8, kF16, kInt8},
    Formats{kBF16, int4(128), kBF16, kInt8},
    Formats{kF32, int4(0), kF16, kF32},
    Formats{int4(128), int4(128), kInt8, kInt8},
    Formats{int4(64), int4(64), kInt8, kInt8},
    Formats{int4(32), int4(32), kInt8, kInt8},
    Formats{int4(0), int4(0), kInt8, kInt8},
    Formats{int4(128), int4(128), kF16, kF32},
    Formats{int4(128), int4(128), kF16, kInt8},
    Formats{kInt8, kInt8, kInt8, kInt8},
    Formats{int4(128), kInt8, kInt8, kInt8},
    Formats{int4(64), kInt8, kInt8, kInt8},
    Formats{int4(32), kInt8, kInt8, kInt8},
    Formats{int4_progressive(128), kInt8, kInt8, kInt8},
    Formats{int4_progressive(64), kInt8, kInt8, kInt8},
    Formats{int4_progressive(32), kInt8, kInt8, kInt8},
    Formats{int4_progressive(128), kInt8, kF16, kF32},
    Formats{int4_progressive(64), kF32, kInt8, kF32},
    Formats{e2m1(128), e2m1(128), kInt8, kInt8},
    Formats{e2m1(64), e2m1(64), kInt8, kInt8},
    Formats{e2m1(32), e2m1(32), kF16, kF32},
    Formats{kMxfp4, kMxfp4, kInt8, kInt8},
    Formats{kNvfp4, kNvfp4, kInt8, kInt8},
    Formats{kNvfp4, kNvfp4, kF16, kF32},
    Formats{e2m1(32), kF32, kInt8, kF32},
    Formats{kMxfp4, kF32, kInt8, kF32},
    Formats{kNvfp4, kF32, kInt8, kF32},
    Formats{kBF16, e2m1(128), kBF16, kInt8},
    Formats{kF16, kNvfp4, kF16, kInt8},
};

constexpr std::array kRows = {1, 2, 3, 5, 63, 64, 65, 127, 129};
constexpr std::array kOutputCounts = {1, 15, 16, 17, 130};
constexpr std::array kInputs = {16, 72, 128, 129, 200, 384, 1000};
constexpr std::array kKeptCounts = {0, 16, 32, 128};

class Linear : public BackendTest {
 protected:
  void check_case(const Case& c, Random& random) {
    SCOPED_TRACE(c.label());
    const std::vector<int32_t> order =
        c.m % 2 == 1 ? atom::testing::permutation(random, c.k) : std::vector<int32_t>();
    const HostWeight w = make_weight(random, {c.n, c.weight(), c.has_bias, c.data});
    const std::vector<float> x = make_rows(random, c.input(), c.m, order, c.data);
    std::vector<float> before(static_cast<size_t>(c.m) * static_cast<size_t>(c.n), NAN);
    if (c.then == Then::kAdd)
      for (float& v : before) v = static_cast<float>(between(random, -32, 32)) / 8;
    const Result run = run_dense(*backend, c, w, x, order, before);

    std::vector<float> expected;
    std::vector<double> bounds;
    for (int row = 0; row < c.m; ++row) {
      for (int n = 0; n < c.n; ++n) {
        const ExactOutput y = exact_output(w, n, input_row(c.input(), run, row));
        const double bias = c.has_bias ? double{w.bias[n]} : 0;
        const double old = c.then == Then::kAdd ? double{before[expected.size()]} : 0;
        const double sum = c.then == Then::kAdd ? old + double{static_cast<float>(y.value + bias)}
                                                : y.value + bias;
        expected.push_back(static_cast<float>(sum));
        bounds.push_back(error_bound(y, bias, old) + half_bound(*backend, c, y));
        if (c.data == Data::kExact) {  // units of 2^-5 that fit 24 bits in any order of addition
          ASSERT_LT((y.products + std::abs(bias) + std::abs(old)) * 32, 1 << 24);
        }
      }
    }
    if (c.data == Data::kExact)
      EXPECT_TRUE(same_bits(expected, run.y));
    else
      EXPECT_TRUE(all_within(expected, run.y, bounds_here(expected, bounds)));

    const Input same(*reference, c.input(), c.m, order, clip_of(c));
    same.quantize(x);
    EXPECT_TRUE(same_values<int8_t>(same.codes().codes, run.codes.codes));
    EXPECT_TRUE(same_bits(same.codes().scales, run.codes.scales));
    EXPECT_TRUE(same_bits(same.dequantized(), run.values));
  }

  // All formats, kept sizes and k; rows, outputs, bias and accumulation in turn.
  void check_all(Data data) {
    Random random(21);
    int turn = 0;
    for (const Formats& formats : kFormats)
      for (const int k : kInputs)
        for (const int kept : kKeptCounts) {
          if (kept > k) continue;
          const Case c{.formats = formats,
                       .m = kRows[static_cast<size_t>(turn) % kRows.size()],
                       .n = kOutputCounts[static_cast<size_t>(turn / 2) % kOutputCounts.size()],
                       .k = k,
                       .kept = kept,
                       .has_bias = random.below(2) == 1,
                       .then = random.below(2) == 1 ? Then::kAdd : Then::kStore,
                       .data = data};
          if (is_chosen(turn++, 7)) check_case(c, random);
          if (HasFatalFailure()) return;
        }
  }
};

TEST_P(Linear, StaysWithinTheErrorOfF32Sums) { check_all(Data::kNormal); }

TEST_P(Linear, IsExactWhereNothingRounds) { check_all(Data::kExact); }

TEST_P(Linear, TakesEveryNumberOfRowsAndOutputs) {
  Random random(22);
  for (const int m : kRows)
    for (const int n : kOutputCounts) {
      check_case({kFormats[11], m, n, 384, 128, true, Then::kAdd, Data::kNormal}, random);
      check_case({kFormats[1], m, n, 200, 0, false, Then::kStore, Data::kNormal}, random);
    }
}

TEST_P(Linear, RefusesOtherFormats) {
  Random random(23);
  struct Pair {
    Format weight, input;
  };
  for (const auto& [weight, input] :
       {Pair{kInt8, int4(128)}, Pair{int4(128), int4(64)}, Pair{int4(32), int4(128)},
        Pair{int4(0), int4(128)}, Pair{int4(128), int4(0)}, Pair{int4_progressive(128), int4(128)},
        Pair{int4_progressive(128), int4_progressive(128)}, Pair{kF32, int4_progressive(64)},
        Pair{e2m1(128), kInt8}, Pair{e2m1(32), kMxfp4}, Pair{kMxfp4, e2m1(32)},
        Pair{int4(32), e2m1(32)}, Pair{kInt8, kNvfp4}, Pair{e2m1(128), int4(128)}}) {
    const HostWeight w = make_weight(random, {.n = 4, .segments = format::whole(weight, 256)});
    const LinearWeight part = w.rows(0, 4);
    atom::testing::expect_error(
        [&] {
          backend->pack({&part, 1}, format::whole(input, 256));
        },
        {format::name(weight), format::name(input)});
  }
  // Segments of different sizes, and parts that differ.
  const HostWeight w = make_weight(random, {.n = 4, .segments = split(int4(128), kInt8, 256, 32)});
  const HostWeight other =
      make_weight(random, {.n = 4, .segments = split(int4(128), kInt8, 256, 16)});
  const LinearWeight parts[] = {w.rows(0, 4), other.rows(0, 4)};
  EXPECT_THROW(backend->pack({parts, 1}, split(int4(128), kInt8, 256, 16)), Error);
  EXPECT_THROW(backend->pack(parts, w.segments), Error);
}

// A row that is not a number makes its own outputs NaN and touches no other row.
TEST_P(Linear, KeepsBadRowsApart) {
  Random random(24);
  for (const Formats& formats : kFormats) {
    const Case c{formats, 7, 33, 384, 128, true, Then::kStore, Data::kNormal};
    SCOPED_TRACE(c.label());
    const HostWeight w = make_weight(random, {c.n, c.weight(), c.has_bias, c.data});
    std::vector<float> x = make_rows(random, c.input(), c.m, {}, c.data);
    const std::vector<float> before(static_cast<size_t>(c.m * c.n), NAN);
    const Result good = run_dense(*backend, c, w, x, {}, before);
    x[2 * 384 + 5] = NAN;    // normal segment
    x[4 * 384 + 300] = NAN;  // kept segment
    const Result bad = run_dense(*backend, c, w, x, {}, before);
    for (int row = 0; row < c.m; ++row)
      for (int n = 0; n < c.n; ++n) {
        const size_t i = static_cast<size_t>(row * c.n + n);
        if (row == 2 || row == 4)
          ASSERT_TRUE(std::isnan(bad.y[i])) << row << " " << n;
        else
          ASSERT_TRUE(same_bits(good.y[i], bad.y[i])) << row << " " << n;
      }
  }
}

// Where the number of rows chooses how k is cut (docs/kernels/linear.md).
bool cut_depends_on_rows(const Backend& backend, const Formats& formats) {
  return backend.name() == "cuda" && formats.weight == int4(128) && formats.input == int4(128);
}
// Both of two results are this near to the exact one, so twice as near to each other.
std::vector<double> bounds_between(const Case& c, const HostWeight& w, const Result& run) {
  std::vector<double> bounds;
  for (int row = 0; row < c.m; ++row)
    for (int n = 0; n < c.n; ++n) {
      const ExactOutput y = exact_output(w, n, input_row(c.input(), run, row));
      bounds.push_back(2 * error_bound(y, c.has_bias ? double{w.bias[n]} : 0, 0));
    }
  return bounds;
}

// A row has the same bits alone, in any batch, and for any number of threads.
TEST_P(Linear, DoesNotMixRows) {
  Random random(25);
  int turn = 0;
  for (const Formats& formats : kFormats) {
    if (!is_chosen(turn++, 3)) continue;
    Case c{formats, 129, 130, 200, 32, true, Then::kStore, Data::kNormal};
    SCOPED_TRACE(c.label());
    const HostWeight w = make_weight(random, {c.n, c.weight(), c.has_bias, c.data});
    const std::vector<float> x = make_rows(random, c.input(), c.m, {}, c.data);
    const Result all = run_dense(*backend, c, w, x, {}, std::vector<float>(all_size(c), NAN));
    for (const int threads : {1, 2}) {
      Executor executor({.threads = threads});
      const std::unique_ptr<Backend> other = open(executor);
      const std::vector<float> before(all_size(c), NAN);
      EXPECT_TRUE(same_bits(all.y, run_dense(*other, c, w, x, {}, before).y)) << threads;
    }
    for (const auto& [begin, count] :
         {std::pair{0, 1}, {64, 1}, {128, 1}, {60, 2}, {1, 3}, {7, 8}, {30, 63}}) {
      c.m = count;
      const std::vector<float> some(x.begin() + begin * c.k, x.begin() + (begin + count) * c.k);
      const Result part = run_dense(*backend, c, w, some, {}, std::vector<float>(all_size(c), NAN));
      const auto of_all = std::span(all.y).subspan(static_cast<size_t>(begin * c.n), part.y.size());
      if (cut_depends_on_rows(*backend, formats))
        EXPECT_TRUE(all_within(of_all, part.y, bounds_between(c, w, part)))
            << begin << " " << count;
      else
        EXPECT_TRUE(same_bits(of_all, part.y)) << begin << " " << count;
    }
  }
}

struct Experts {
  std::vector<int32_t> row_ends, row_index;  // row_index empty: the identity
};

void check_experts(Backend& backend, const Case& c, const Experts& experts, Random& random) {
  SCOPED_TRACE(c.label());
  std::vector<HostWeight> host;
  std::vector<std::unique_ptr<PackedLinear>> packed;
  std::vector<const PackedLinear*> weights;
  for (size_t e = 0; e < experts.row_ends.size(); ++e) {
    host.push_back(make_weight(random, {c.n, c.weight(), c.has_bias, c.data}));
    packed.push_back(backend.pack(parts_of(host.back()), c.input()));
    weights.push_back(packed.back().get());
  }
  const Input input(backend, c.input(), c.m);
  input.quantize(make_rows(random, c.input(), c.m, {}, c.data));
  const int rows = experts.row_ends.back();
  std::vector<float> before(static_cast<size_t>(rows * c.n), NAN);
  if (c.then == Then::kAdd) before = atom::testing::normal_values(random, before.size());
  const Guarded row_ends(backend, experts.row_ends), row_index(backend, experts.row_index);
  const Guarded y(backend, before);
  backend.linear({.x = input.activation(),
                  .weights = weights,
                  .row_ends = row_ends.as<int32_t>(),
                  .row_index = experts.row_index.empty() ? nullptr : row_index.as<int32_t>(),
                  .y = y.as<float>(),
                  .then = c.then});

  const Result run{y.values<float>(), input.codes(), input.dequantized()};
  std::vector<float> expected;
  std::vector<double> bounds;
  size_t e = 0;
  for (int row = 0; row < rows; ++row) {
    while (row >= experts.row_ends[e]) ++e;
    const int from = experts.row_index.empty() ? row : experts.row_index[static_cast<size_t>(row)];
    for (int n = 0; n < c.n; ++n) {
      const ExactOutput sum = exact_output(host[e], n, input_row(c.input(), run, from));
      const double bias = c.has_bias ? double{host[e].bias[n]} : 0;
      const double old = c.then == Then::kAdd ? double{before[expected.size()]} : 0;
      bounds.push_back(error_bound(sum, bias, old) + half_bound(backend, c, sum));
      expected.push_back(static_cast<float>(old + sum.value + bias));
    }
  }
  EXPECT_TRUE(all_within(expected, run.y, bounds));
}

TEST_P(Linear, ServesExperts) {
  Random random(26);
  const Experts spread{{0, 3, 3, 20, 21, 21, 90}, {}};
  Experts gathered = spread;
  for (int i = 0; i < 90; ++i) gathered.row_index.push_back(between(random, 0, 44));
  const Experts one_of_many{{0, 0, 1, 1}, {3}}, first{{2, 2}, {1, 0}};
  int turn = 0;
  for (const Formats& formats : kFormats) {
    if (!is_chosen(turn++, 3)) continue;
    check_experts(*backend, {formats, 90, 17, 384, 128, false, Then::kStore, Data::kNormal}, spread,
                  random);
    check_experts(*backend, {formats, 45, 130, 200, 32, true, Then::kStore, Data::kNormal},
                  gathered, random);
    check_experts(*backend, {formats, 4, 16, 128, 0, false, Then::kAdd, Data::kNormal}, one_of_many,
                  random);
    check_experts(*backend, {formats, 2, 1, 72, 16, true, Then::kStore, Data::kNormal}, first,
                  random);
  }
}

// y_f16 of a linear is its y, rounded; what is beyond the range of f16 becomes the largest of its sign. row_ends empty: dense.
void check_f16(Backend& backend, const Case& c, const std::vector<int32_t>& row_ends,
               Random& random) {
  SCOPED_TRACE(c.label());
  HostWeight w = make_weight(random, {c.n, c.weight(), c.has_bias, c.data});
  if (c.has_bias) w.bias[0] = 1e6f, w.bias.back() = -70000.0f;
  const std::unique_ptr<PackedLinear> packed = backend.pack(parts_of(w), c.input());
  const std::vector<const PackedLinear*> weights(std::max<size_t>(row_ends.size(), 1),
                                                 packed.get());
  const Input input(backend, c.input(), c.m);
  input.quantize(make_rows(random, c.input(), c.m, {}, c.data));
  const Guarded ends(backend, row_ends);
  const Guarded y(backend, std::vector<float>(all_size(c), 0.0f));
  const Guarded y_f16(backend, std::vector<uint16_t>(all_size(c), 0));
  LinearArgs args{.x = input.activation(),
                  .weights = weights,
                  .row_ends = row_ends.empty() ? nullptr : ends.as<int32_t>(),
                  .y = y.as<float>()};
  backend.linear(args);
  args.y = nullptr;
  args.y_f16 = y_f16.as<uint16_t>();
  backend.linear(args);
  std::vector<uint16_t> expected;
  for (const float v : y.values<float>())
    expected.push_back(format::f32_to_f16(std::min(std::max(v, -65504.0f), 65504.0f)));
  EXPECT_TRUE(same_values<uint16_t>(expected, y_f16.values<uint16_t>()));
}

TEST_P(Linear, RoundsResultsToF16) {
  if (backend->name() != "cuda") GTEST_SKIP() << backend->name() << " has results in f32 only";
  Random random(27);
  for (const Formats& formats : kFormats) {
    for (const int m : {1, 5, 64, 129, 300})
      for (const int n : {17, 128, 260})
        check_f16(*backend, {formats, m, n, 384, 128, m % 2 == 1, Then::kStore, Data::kNormal}, {},
                  random);
    check_f16(*backend, {formats, 90, 130, 200, 32, true, Then::kStore, Data::kNormal},
              {0, 3, 20, 20, 90}, random);
  }
}

TEST_P(Linear, RefusesToAddInF16) {
  if (backend->name() != "cuda") GTEST_SKIP() << backend->name() << " has results in f32 only";
  Random random(28);
  const Case c{kFormats[20], 3, 16, 128, 0, false, Then::kStore, Data::kNormal};
  const HostWeight w = make_weight(random, {c.n, c.weight(), c.has_bias, c.data});
  const std::unique_ptr<PackedLinear> packed = backend->pack(parts_of(w), c.input());
  const PackedLinear* weights[] = {packed.get()};
  const Input input(*backend, c.input(), c.m);
  input.quantize(make_rows(random, c.input(), c.m, {}, c.data));
  const Guarded y(*backend, all_size(c) * sizeof(float));
  const Guarded y_f16(*backend, all_size(c) * sizeof(uint16_t));
  LinearArgs args{.x = input.activation(), .weights = weights, .y_f16 = y_f16.as<uint16_t>()};
  args.then = Then::kAdd;
  EXPECT_THROW(backend->linear(args), InvariantError);
  args.then = Then::kStore;
  args.y = y.as<float>();
  EXPECT_THROW(backend->linear(args), InvariantError);
}

INSTANTIATE_TEST_SUITE_P(All, Linear, ::testing::ValuesIn(candidates()), candidate_name);

}  // namespace
}  // namespace atom::backend
