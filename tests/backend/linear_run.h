// One linear of a test: its formats and sizes, and its run on one backend. Used by the tests of the
// linear operation, together with linear_cases.h.
//
//   const Case c{.formats = {int4(128), int4(128), kInt8, kInt8}, .m = 3, .n = 17, .k = 384, ...};
//   const HostWeight w = make_weight(random, {c.n, c.weight(), c.has_bias, c.data});
//   const Result run = run_dense(*backend, c, w, x, {}, before);
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "backend/backends_under_test.h"
#include "backend/linear_cases.h"

namespace atom::backend {

struct Formats {
  format::Format weight, input, kept_weight, kept_input;
};

struct Case {
  Formats formats;
  int m, n, k, kept;
  bool has_bias;
  Then then;
  Data data;

  format::Segments weight() const { return split(formats.weight, formats.kept_weight, k, kept); }
  format::Segments input() const { return split(formats.input, formats.kept_input, k, kept); }
  std::string label() const {
    return fmt::format("{} x {}, kept {} of {} x {}, m {} n {} k {}{}{}{}",
                       format::name(formats.weight), format::name(formats.input), kept,
                       format::name(formats.kept_weight), format::name(formats.kept_input), m, n, k,
                       has_bias ? ", bias" : "", then == Then::kAdd ? ", add" : "",
                       data == Data::kExact ? ", exact" : "");
  }
};

inline size_t all_size(const Case& c) {
  return static_cast<size_t>(c.m) * static_cast<size_t>(c.n);
}

inline float clip_of(const Case& c) { return c.data == Data::kExact ? 1.0f : 0.9f; }

// One linear on one backend, from host data.
struct Result {
  std::vector<float> y;
  Input::Codes codes;
  std::vector<float> values;
};

inline std::vector<LinearWeight> parts_of(const HostWeight& w) {
  if (w.n < 100) return {w.rows(0, w.n)};
  return {w.rows(0, 65), w.rows(65, 66), w.rows(66, w.n)};  // as q, k and v
}

inline Result run_dense(Backend& backend, const Case& c, const HostWeight& w,
                        const std::vector<float>& x, const std::vector<int32_t>& order,
                        const std::vector<float>& before) {
  const Input input(backend, c.input(), c.m, order, clip_of(c));
  input.quantize(x);
  const std::unique_ptr<PackedLinear> packed = backend.pack(parts_of(w), c.input());
  EXPECT_EQ(packed->n(), c.n);
  EXPECT_EQ(packed->k(), c.k);
  const Guarded y(backend, before);
  const PackedLinear* weights[] = {packed.get()};
  backend.linear({.x = input.activation(), .weights = weights, .y = y.as<float>(), .then = c.then});
  return {y.values<float>(), input.codes(), input.dequantized()};
}

// Row `row` of a run's input.
inline InputRow input_row(const format::Segments& segments, const Result& run, int row) {
  return {.segments = &segments,
          .codes = run.codes.codes.data() + row * segments.k(),
          .scales = run.codes.scales.data() + row * format::groups(segments),
          .values = run.values.data() + row * segments.k()};
}

// What the error of `cuda` may have beside that of f32 sums, where tensor cores compute a linear with floating-point
// inputs (docs/kernels/half.md): inputs, and int4 weights, rounded to f16 (2^-11 each), and steps of 16 products that are
// added with an error of two units in the last place of the largest sum.
inline double half_bound(const Backend& backend, const Case& c, const ExactOutput& y) {
  const bool all_kept = c.kept == c.k;
  const format::Format weight = all_kept ? c.formats.kept_weight : c.formats.weight;
  const format::Format input = all_kept ? c.formats.kept_input : c.formats.input;
  const bool int4 = weight == format::int4(128);
  if (backend.name() != "cuda" || (c.kept != 0 && !all_kept) || format::is_integer(input) ||
      !(int4 || weight == format::kF16 || weight == format::kBF16))
    return 0;
  return y.magnitude * (std::ldexp(int4 ? 2.001 : 1.0, -11) + std::ldexp(y.terms / 16.0 + 32, -22));
}

}  // namespace atom::backend
