// The operations on single rows (embed, norm, quantize, gate) on every backend.
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "backend/backends_under_test.h"
#include "base/file.h"
#include "base/json.h"
#include "format/quantize.h"
#include "testing/compare.h"
#include "testing/random_data.h"

namespace atom::backend {
namespace {

using atom::testing::all_within;
using atom::testing::normal_values;
using atom::testing::same_bits;
using atom::testing::same_values;
using format::Format;
using format::int4;
using format::kF16;
using format::kF32;
using format::kInt8;
using format::Segments;

// Inputs of every kind of consumer, with short last groups and absent segments among them.
std::vector<Segments> consumers(int k) {
  std::vector<Segments> result;
  for (const Format f : {int4(32), int4(64), int4(128), int4(0), format::e2m1(32),
                         format::e2m1(128), format::kMxfp4, format::kNvfp4, kInt8, kF32, kF16}) {
    result.push_back(format::whole(f, k));
    for (const int kept : {16, 32, 128}) {
      if (kept > k) continue;
      result.push_back(split(f, kInt8, k, kept));
      result.push_back(split(f, kF32, k, kept));
    }
  }
  return result;
}

std::string label(const Segments& s) {
  return fmt::format("{} {}, {} {}", format::name(s.at[0].format), s.at[0].size,
                     format::name(s.at[1].format), s.at[1].size);
}

constexpr std::array kWidths = {16, 72, 128, 129, 200, 384, 1000};

// Rows that quantizers tend to get wrong, k values each.
std::vector<float> hard_rows(Random& random, int k) {
  std::vector<float> x;
  const auto add = [&](const auto& value) {
    for (int i = 0; i < k; ++i) x.push_back(value(i));
  };
  const auto spoiled = [&](float bad, int at) {
    add([&](int i) { return i == at ? bad : static_cast<float>(random.normal()); });
  };
  add([&](int) { return static_cast<float>(random.normal()); });
  add([](int i) { return i % 2 == 0 ? 0.0f : -0.0f; });
  // Ties: multiples of half a scale of 1/8; every group of 32 and more begins with the largest.
  add([](int i) { return i % 16 == 0 ? -0.875f : static_cast<float>(i % 29 - 14) / 16.0f; });
  add([](int i) { return i % 16 == 0 ? 127.0f : static_cast<float>(i % 509 - 254) / 2.0f; });
  add([](int i) { return i % 16 == 0 ? -6.0f : static_cast<float>(i % 65 - 32) / 4.0f; });  // FP4
  add([](int i) { return std::ldexp(1.5f, -i / 16); });  // every group has a scale of its own
  add([](int i) { return i % 7 == 0 ? 0.3f : 0.0f; });
  spoiled(kNaN, k / 2);
  spoiled(-kNaN, k - 1);
  spoiled(kInfinity, 0);
  spoiled(-kInfinity, k - 1);
  spoiled(3e38f, 1);
  spoiled(-100.0f, k / 3);
  add([&](int) { return std::bit_cast<float>(static_cast<uint32_t>(random.below(4096))); });
  add([&](int i) { return i == k - 1 ? std::bit_cast<float>(1u) : 0.0f; });
  add([&](int) { return static_cast<float>(3e-38 * random.normal()); });
  return x;
}

class Rows : public BackendTest {};

TEST_P(Rows, QuantizeGivesTheDefinedBits) {
  Random random(31);
  for (const int k : kWidths) {
    const std::vector<float> x = hard_rows(random, k);
    const int rows = static_cast<int>(x.size()) / k;
    for (const Segments& segments : consumers(k))
      for (const float clip : {1.0f, 0.9f})
        for (const auto& order : {std::vector<int32_t>(), atom::testing::permutation(random, k)}) {
          Input expected(*reference, segments, rows, order, clip);
          Input actual(*backend, segments, rows, order, clip);
          const int hadamard = std::array{0, 0, 4, 16, 64, 128}.at(random.below(6));
          expected.set_hadamard(hadamard);
          actual.set_hadamard(hadamard);
          const bool signed_scales = random.below(2) == 1;
          expected.set_signed_scales(signed_scales);
          actual.set_signed_scales(signed_scales);
          expected.quantize(x);
          actual.quantize(x);
          SCOPED_TRACE(fmt::format("{}, hadamard {}, signed scales {}", label(segments), hadamard,
                                   signed_scales));
          ASSERT_TRUE(same_values<int8_t>(expected.codes().codes, actual.codes().codes));
          ASSERT_TRUE(same_bits(expected.codes().scales, actual.codes().scales));
          ASSERT_TRUE(same_bits(expected.dequantized(), actual.dequantized()));
        }
  }
}

// Without a clip the extreme value of a group has code -8, whichever sign it has.
TEST_P(Rows, SignedScalesPutTheExtremeValueAtMinusEight) {
  Random random(39);
  const int k = 200;
  const std::vector<float> x = normal_values(random, k);
  Input input(*backend, split(format::int4(32), kInt8, k, 8), 1);
  input.set_signed_scales(true);
  input.quantize(x);
  const auto codes = input.codes();
  for (int begin = 0, group = 0; begin < k - 8; begin += 32, ++group) {
    const auto larger = [](float a, float b) { return std::abs(a) < std::abs(b); };
    const auto at = std::max_element(&x[begin], &x[begin] + 32, larger) - x.data();
    EXPECT_EQ(codes.codes[at], -8) << group;
    EXPECT_EQ(codes.scales[group], x[at] / -8.0f) << group;
  }
}

// Against the matrix itself: entry (i, j) is (-1)^popcount(i & j) / sqrt(n).
TEST_P(Rows, HadamardIsTheMatrixOnTheFirstSegmentAlone) {
  Random random(38);
  for (const int k : {16, 100, 128, 200, 384}) {
    for (const int block : {2, 16, 128}) {
      const int kept = 16, normal = k - kept;
      const std::vector<float> x = normal_values(random, static_cast<size_t>(k));
      Input input(*backend, split(kF32, kF32, k, normal > 0 ? kept : 0), 1);
      if (normal == 0) continue;
      input.set_hadamard(block);
      input.quantize(x);
      const std::vector<float> y = input.dequantized();
      for (int at = 0, length = block; at < normal; at += length) {
        while (length > normal - at) length /= 2;
        for (int i = 0; i < length; ++i) {
          double sum = 0, magnitude = 0;
          for (int j = 0; j < length; ++j) {
            const double v = x[static_cast<size_t>(at + j)];
            sum += std::popcount(static_cast<unsigned>(i & j)) % 2 == 0 ? v : -v;
            magnitude += std::abs(v);
          }
          // log2(n) roundings of sums, one of the factor, one of the product.
          EXPECT_NEAR(sum / std::sqrt(length), y[static_cast<size_t>(at + i)],
                      9 * 0x1p-24 * magnitude / std::sqrt(length));
        }
      }
      for (int i = normal; i < k; ++i)
        EXPECT_EQ(y[static_cast<size_t>(i)], x[static_cast<size_t>(i)]);
    }
  }
}

std::vector<float> golden_floats(const Json& text) {
  std::vector<float> values;
  const std::string hex = text.get<std::string>();
  for (size_t i = 0; i < hex.size(); i += 8)
    values.push_back(
        std::bit_cast<float>(static_cast<uint32_t>(std::stoul(hex.substr(i, 8), nullptr, 16))));
  return values;
}

// An ordered row of int4 groups with int8 kept channels, and one of int8 alone: the segments of both
// have their own scales.
TEST_P(Rows, QuantizeGivesTheGoldenBits) {
  const Json golden = parse_json(read_file(ATOM_TEST_DATA "/format/golden.json"));
  for (const char* key : {"row", "row_int8"}) {
    const Json& c = golden[key];
    const auto order = c["order"].get<std::vector<int32_t>>();
    const Segments segments = split(format::parse_format(c["format"].get<std::string>()), kInt8,
                                    static_cast<int>(order.size()), c["kept"].get<int>());
    const int rows = static_cast<int>(c["x"].size());
    std::vector<float> x, scales;
    std::vector<int8_t> codes;
    for (int row = 0; row < rows; ++row) {
      for (const float v : golden_floats(c["x"][row])) x.push_back(v);
      for (const float v : golden_floats(c["scale"][row])) scales.push_back(v);
      for (const Json& code : c["codes"][row]) codes.push_back(code.get<int8_t>());
    }
    const Input input(*backend, segments, rows, order, golden_floats(c["clip"])[0]);
    input.quantize(x);
    EXPECT_TRUE(same_values<int8_t>(codes, input.codes().codes)) << key;
    EXPECT_TRUE(same_bits(scales, input.codes().scales)) << key;
  }
}

TEST_P(Rows, QuantizeGivesTheGoldenFp4Bits) {
  const Json golden = parse_json(read_file(ATOM_TEST_DATA "/format/golden.json"));
  for (const Json& c : golden["fp4_activation"]) {
    SCOPED_TRACE(c["name"].get<std::string>() + " " + c["format"].get<std::string>());
    const std::vector<float> x = golden_floats(c["x"]);
    const Segments segments = format::whole(format::parse_format(c["format"].get<std::string>()),
                                            static_cast<int>(x.size()));
    const Input input(*backend, segments, 1, {}, golden_floats(c["clip"])[0]);
    input.quantize(x);
    EXPECT_TRUE(same_values<int8_t>(c["codes"].get<std::vector<int8_t>>(), input.codes().codes));
    EXPECT_TRUE(same_bits(golden_floats(c["step"]), input.codes().scales));
    EXPECT_TRUE(same_bits(golden_floats(c["value"]), input.dequantized()));
  }
}

TEST_P(Rows, EmbedWidensExactly) {
  Random random(32);
  constexpr int kCount = 11;
  for (const int width : {1, 15, 64, 130}) {
    for (const Format f : {kF32, kF16, format::kBF16}) {
      format::visit(f, [&](auto element) {
        using F = decltype(element);
        if constexpr (!F::kInteger) {
          std::vector<typename F::Storage> table;
          for (int i = 0; i < kCount * width; ++i)
            table.push_back(F::narrow(static_cast<float>(random.normal())));
          const std::vector<int32_t> ids = {0, kCount - 1, 3, 3, 7};
          std::vector<float> expected;
          for (const int32_t id : ids)
            for (int i = 0; i < width; ++i) expected.push_back(F::widen(table[id * width + i]));
          const Guarded rows(*backend, table), device_ids(*backend, ids);
          const Guarded y(*backend, expected.size() * sizeof(float));
          backend->embed(
              {.ids = device_ids.template as<int32_t>(),
               .rows = static_cast<int>(ids.size()),
               .table = {.rows = rows.data(), .format = f, .count = kCount, .width = width},
               .y = y.template as<float>()});
          EXPECT_TRUE(same_bits(expected, y.template values<float>()))
              << format::name(f) << " " << width;
        }
      });
    }
  }
}

struct NormOutput {
  std::vector<float> plain;
  Input::Codes codes;
  std::vector<float> values;
};

struct NormCase {
  const std::vector<float>& x;
  const std::vector<float>& gain;
  float epsilon;
  const Input& y;
};

NormOutput run_norm(Backend& backend, const NormCase& c) {
  const Guarded x(backend, c.x), gain(backend, c.gain), plain(backend, c.x.size() * sizeof(float));
  NormArgs args{.x = x.as<float>(),
                .gain = gain.as<float>(),
                .epsilon = c.epsilon,
                .y = c.y.activation(),
                .plain = plain.as<float>()};
  backend.norm(args);
  NormOutput out{plain.values<float>(), c.y.codes(), c.y.dequantized()};
  args.plain = nullptr;  // changes nothing in y
  backend.norm(args);
  EXPECT_TRUE(same_values<int8_t>(out.codes.codes, c.y.codes().codes));
  return out;
}

// The rows of a producer, quantized by the tested quantize().
void expect_quantized(Backend& backend, const std::vector<float>& plain, const Input& actual,
                      const std::vector<int32_t>& order, float clip) {
  const Input expected(backend, actual.spec().segments, actual.rows(), order, clip);
  expected.quantize(plain);
  EXPECT_TRUE(same_values<int8_t>(expected.codes().codes, actual.codes().codes));
  EXPECT_TRUE(same_bits(expected.codes().scales, actual.codes().scales));
  EXPECT_TRUE(same_bits(expected.dequantized(), actual.dequantized()));
}

// Distance allowed between two f32 results of a norm or a gate, relative: 2 ulp.
constexpr double kTwoUlp = 0x1p-22;

std::vector<double> relative_bounds(const std::vector<float>& values, double relative) {
  std::vector<double> bounds;
  for (const float v : values) bounds.push_back(relative * std::abs(double{v}) + 0x1p-148);
  return bounds;
}

// The norm itself is checked in f32 against f64; then its codes have to be those of quantize().
TEST_P(Rows, NormDividesByTheRootMeanSquare) {
  Random random(33);
  for (const int k : kWidths) {
    constexpr int kRows = 5;
    std::vector<float> x = normal_values(random, static_cast<size_t>(kRows * k), 3);
    for (int i = 0; i < k; ++i) {
      x[static_cast<size_t>(1 * k + i)] = 0;
      x[static_cast<size_t>(2 * k + i)] *= 1e-4f;
      if (i % 50 == 7) x[static_cast<size_t>(3 * k + i)] *= 1000;
    }
    const std::vector<float> gain = normal_values(random, static_cast<size_t>(k));
    for (const float epsilon : {1e-5f, 1e-6f})
      for (const Segments& segments : consumers(k)) {
        SCOPED_TRACE(label(segments));
        const auto order =
            random.below(2) == 1 ? atom::testing::permutation(random, k) : std::vector<int32_t>();
        const Input y(*backend, segments, kRows, order, 0.9f);
        const NormOutput out = run_norm(*backend, {x, gain, epsilon, y});
        std::vector<float> expected;
        for (int row = 0; row < kRows; ++row) {
          double squares = 0;
          for (int i = 0; i < k; ++i) squares += double{x[row * k + i]} * double{x[row * k + i]};
          const double inv = 1 / std::sqrt(squares / k + double{epsilon});
          for (int i = 0; i < k; ++i)
            expected.push_back(static_cast<float>(double{x[row * k + i]} * inv * double{gain[i]}));
        }
        ASSERT_TRUE(all_within(expected, out.plain, relative_bounds(expected, kTwoUlp)));
        expect_quantized(*backend, out.plain, y, order, 0.9f);
      }
  }
}

TEST_P(Rows, NormKeepsBadRowsApart) {
  Random random(34);
  constexpr int k = 200;
  std::vector<float> x = normal_values(random, 4 * k);
  const std::vector<float> gain = normal_values(random, k);
  const Input y(*backend, split(int4(64), kInt8, k, 32), 4);
  const NormOutput good = run_norm(*backend, {x, gain, 1e-5f, y});
  x[1 * k + 11] = kNaN;
  x[2 * k + 190] = kInfinity;
  const NormOutput bad = run_norm(*backend, {x, gain, 1e-5f, y});
  const std::span<const float> before(good.values), after(bad.values);
  EXPECT_TRUE(same_bits(before.first(k), after.first(k)));
  EXPECT_TRUE(same_bits(before.subspan(3 * k), after.subspan(3 * k)));
  for (int i = 0; i < k; ++i) EXPECT_TRUE(std::isnan(bad.plain[1 * k + i])) << i;
  EXPECT_TRUE(std::isnan(bad.plain[2 * k + 190]));  // infinity times 0
}

TEST_P(Rows, GateIsSiluTimesUp) {
  Random random(35);
  for (const int k : kWidths) {
    constexpr int kRows = 4;
    std::vector<float> x = normal_values(random, static_cast<size_t>(kRows * 2 * k), 3);
    for (int i = 0; i < k; ++i) {  // far ends of the sigmoid
      x[static_cast<size_t>(2 * 2 * k + i)] = static_cast<float>(i - k / 2) * 0.37f;
      x[static_cast<size_t>(3 * 2 * k + i)] = static_cast<float>(1e-3 * random.normal());
    }
    const std::array<float, 8> ends = {0.0f, -0.0f, 100.0f, -80.0f, 1e30f, -1e30f, 1e-30f, -1e-30f};
    for (size_t i = 0; i < ends.size(); ++i) x[i] = ends[i];
    std::vector<float> expected;
    for (int row = 0; row < kRows; ++row)
      for (int i = 0; i < k; ++i) {
        const double gate = double{x[row * 2 * k + i]};
        const float silu = static_cast<float>(gate / (1 + std::exp(-gate)));
        expected.push_back(silu * x[row * 2 * k + k + i]);
      }
    const Guarded device(*backend, x);
    for (const Segments& segments : consumers(k)) {
      SCOPED_TRACE(label(segments));
      const auto order =
          random.below(2) == 1 ? atom::testing::permutation(random, k) : std::vector<int32_t>();
      const Input plain(*backend, format::whole(kF32, k), kRows),
          y(*backend, segments, kRows, order);
      backend->gate({.x = device.as<float>(), .y = plain.activation()});
      backend->gate({.x = device.as<float>(), .y = y.activation()});
      // Gates below -80 have a silu below 1e-33; a polynomial may flush it, so its bound is
      // absolute.
      std::vector<double> bounds = relative_bounds(expected, 2 * kTwoUlp);
      for (double& bound : bounds) bound += 1e-30;
      ASSERT_TRUE(all_within(expected, plain.dequantized(), bounds));
      expect_quantized(*backend, plain.dequantized(), y, order, 1);
    }
  }
}

TEST_P(Rows, GateKeepsBadRowsApart) {
  Random random(36);
  constexpr int k = 129;
  std::vector<float> x = normal_values(random, 3 * 2 * k);
  const Input y(*backend, format::whole(kF32, k), 3);
  const auto run = [&] {
    const Guarded device(*backend, x);
    backend->gate({.x = device.as<float>(), .y = y.activation()});
    return y.dequantized();
  };
  const std::vector<float> good = run();
  x[2 * k + 5] = kNaN;         // row 1: gate
  x[2 * k + k + 9] = kNaN;     // row 1: up
  x[2 * k + 40] = -kInfinity;  // -inf / inf
  const std::vector<float> bad = run();
  for (size_t i = 0; i < good.size(); ++i) {
    if (i == k + 5 || i == k + 9 || i == k + 40)
      EXPECT_TRUE(std::isnan(bad[i])) << i;
    else
      EXPECT_TRUE(same_bits(good[i], bad[i])) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(All, Rows, ::testing::ValuesIn(candidates()), candidate_name);

}  // namespace
}  // namespace atom::backend
