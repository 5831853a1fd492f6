// What only the cpu backend promises: a row's bits do not depend on the other rows, the cut into
// tasks or the number of threads; integer sums are exact at the largest codes. For each instruction
// set of this machine.
#include <gtest/gtest.h>

#include <cmath>
#include <span>
#include <vector>

#include "backend/open.h"
#include "base/error.h"
#include "format/quantize.h"
#include "testing/compare.h"
#include "testing/random_data.h"
#include "tests/backend/backends_under_test.h"

namespace atom::backend {
namespace {

using format::Format;
using format::Segments;
using testing::normal_values;
using testing::same_bits;

std::vector<Candidate> cpu_candidates() {
  std::vector<Candidate> result;
  for (const Candidate& candidate : candidates())
    if (candidate.name == "cpu" && !candidate.isa.empty()) result.push_back(candidate);
  return result;
}

class Cpu : public ::testing::TestWithParam<Candidate> {
 protected:
  static std::unique_ptr<Backend> open(Executor& executor) {
    return open_backend("cpu", {.executor = &executor, .isa = GetParam().isa});
  }
};

// One weight of given codes: scale 1 everywhere, so that outputs are the sums of products.
struct CodeWeight {
  CodeWeight(Format f, int n, int k, const std::vector<int8_t>& values)
      : format(f), n(n), k(k), words(static_cast<size_t>(n) * format::row_bytes(f, k) + 3) {
    const int64_t bytes = format::row_bytes(f, k);
    for (int row = 0; row < n; ++row) {
      const std::span<const int8_t> codes(values.data() + int64_t{row} * k, static_cast<size_t>(k));
      if (format::is_e2m1(f))
        format::pack_e2m1(codes, words.data() + row * bytes);
      else if (format::is_int4(f))
        format::pack_int4(codes, reinterpret_cast<uint32_t*>(words.data() + row * bytes));
      else
        std::memcpy(words.data() + row * bytes, codes.data(), codes.size());
    }
    const size_t count = static_cast<size_t>(n) * static_cast<size_t>(format::groups(f, k));
    halves.assign(count, format::is_e2m1(f) ? 0x4000 : 0x3c00);  // the value of a code is 1
    floats.assign(count, 1.0f);
  }
  LinearWeight get() const {
    LinearWeight w{.n = n, .segments = format::whole(format, k), .part = {}, .bias = nullptr};
    w.part[0].codes = words.data();
    w.part[0].scales = format::bits(format) == 4 ? static_cast<const void*>(halves.data())
                                                 : static_cast<const void*>(floats.data());
    return w;
  }

  Format format;
  int n, k;
  std::vector<uint8_t> words;
  std::vector<uint16_t> halves;
  std::vector<float> floats;
};

std::vector<float> run_linear(Backend& backend, const LinearWeight& weight, const Input& input) {
  const auto packed = backend.pack({&weight, 1}, input.spec().segments);
  const PackedLinear* linear = packed.get();
  const Guarded y(backend, static_cast<size_t>(input.rows()) * weight.n * sizeof(float));
  backend.linear({.x = input.activation(), .weights = {&linear, 1}, .y = y.as<float>()});
  return y.values<float>();
}

// The largest sums of the narrow accumulators: every product has the same sign and the largest
// size.
TEST_P(Cpu, SumsTheLargestCodesExactly) {
  const auto backend = open(three_threads());
  struct Case {
    Format weight, input;
    int k;
  };
  const int8_t w_codes[] = {-127, -8, 7, 127}, x_codes[] = {-127, -8, 7, 127};
  for (const Case& c : {Case{format::int4(128), format::int4(128), 384},
                        {format::int4(0), format::int4(0), 4100},
                        {format::int4(32), format::kInt8, 416},
                        {format::int4(0), format::kInt8, 1036},
                        {format::kInt8, format::kInt8, 11008}}) {
    const auto fits = [](Format f, int code) { return !format::is_int4(f) || std::abs(code) <= 8; };
    for (const int8_t w : w_codes) {
      for (const int8_t x : x_codes) {
        if (!fits(c.weight, w) || !fits(c.input, x)) continue;
        const CodeWeight weight(c.weight, 3, c.k, std::vector<int8_t>(3 * c.k, w));
        // int4: absmax 8 and clip 7/8 give scale 1, and 8 saturates to 7
        const Input input(*backend, format::whole(c.input, c.k), 7, {}, 0.875f);
        input.quantize(std::vector<float>(7 * c.k, x == 7 ? 8.0f : x));
        const float scale = input.codes().scales[0];
        const int8_t code = input.codes().codes[0];
        ASSERT_EQ(scale, format::is_int4(c.input) ? 1.0f : std::fabs(x == 7 ? 8.0f : x) / 127.0f);
        const int group = format::group_size(c.weight, c.k);
        float sum = 0;  // as defined: groups ascending, one fused multiply-add each
        for (int g = 0; g < format::groups(c.weight, c.k); ++g) {
          const int size = std::min(group, c.k - g * group);
          sum = std::fma(static_cast<float>(size * w * code), scale, sum);
        }
        for (const float y : run_linear(*backend, weight.get(), input))
          ASSERT_NEAR(y, sum, std::fabs(sum) * 1e-6)
              << format::name(c.weight) << " x " << format::name(c.input) << " " << +w << " " << +x;
      }
    }
  }
}

// Every pair of FP4 codes, and groups of nothing but the largest.
TEST_P(Cpu, SumsFp4CodesExactly) {
  const auto backend = open(three_threads());
  for (const Format& format : {format::e2m1(128), format::e2m1(32)}) {
    constexpr int kInputs = 256 + 9;
    for (const int8_t w : format::kE2M1Codes)
      for (const int8_t x : format::kE2M1Codes) {
        std::vector<float> row(kInputs, x);  // scale 2: the value of a code is 1
        for (int i = 0; i < kInputs; i += format.group) row[static_cast<size_t>(i)] = 12;
        const CodeWeight weight(format, 3, kInputs, std::vector<int8_t>(3 * kInputs, w));
        const Input input(*backend, format::whole(format, kInputs), 1, {}, 1.0f);
        input.quantize(row);
        float sum = 0;
        for (const float v : row) sum += v * w;
        for (const float y : run_linear(*backend, weight.get(), input))
          ASSERT_EQ(y, sum) << format::name(format) << " " << +w << " " << +x;
      }
  }
}

// Bits of random data, then every row alone and any number of threads.
TEST_P(Cpu, RowsDoNotDependOnTheCut) {
  Random random(3);
  constexpr int kRows = 205, kOutputs = 83, kInputs = 1100;  // several tasks, spans, ragged ends
  const std::vector<float> x = normal_values(random, kRows * kInputs);
  struct Case {
    Format weight, input;
  };
  for (const Case& c : {Case{format::kF32, format::kF32},
                        {format::kBF16, format::kF32},
                        {format::int4(64), format::kF32},
                        {format::int4(128), format::int4(128)},
                        {format::int4(32), format::kInt8},
                        {format::kInt8, format::kInt8},
                        {format::e2m1(128), format::e2m1(128)},
                        {format::kMxfp4, format::kMxfp4},
                        {format::kBF16, format::int4(128)}}) {
    // small codes, so that 16-bit floats made of the same bytes are finite
    std::vector<uint8_t> codes(kOutputs * format::row_bytes(c.weight, kInputs));
    for (uint8_t& byte : codes) byte = static_cast<uint8_t>(random.below(120));
    std::vector<uint8_t> scales(kOutputs * format::groups(c.weight, kInputs) *
                                format::weight_scale_bytes(c.weight));
    for (uint8_t& byte : scales) byte = static_cast<uint8_t>(40 + random.below(20));
    const LinearWeight weight{.n = kOutputs,
                              .segments = format::whole(c.weight, kInputs),
                              .part = {{codes.data(), scales.data()}, {}},
                              .bias = nullptr};
    std::vector<float> expected;
    for (const int threads : {1, 2, 3}) {
      Executor executor({.threads = threads});
      const auto backend = open(executor);
      const Input input(*backend, format::whole(c.input, kInputs), kRows, {}, 0.9f);
      input.quantize(x);
      const std::vector<float> y = run_linear(*backend, weight, input);
      if (expected.empty()) expected = y;
      EXPECT_TRUE(same_bits(expected, y)) << format::name(c.weight) << ", " << threads;
      for (const int rows : {1, 2, 5, 6, 7, 13, 97}) {
        const Input some(*backend, format::whole(c.input, kInputs), rows, {}, 0.9f);
        const int first = kRows - rows;
        some.quantize({x.begin() + first * kInputs, x.end()});
        EXPECT_TRUE(same_bits(std::span(expected).subspan(first * kOutputs),
                              run_linear(*backend, weight, some)))
            << format::name(c.weight) << ", " << rows << " rows, " << threads << " threads";
      }
    }
  }
}

struct AttentionData {
  static constexpr int kHeads = 6, kKvHeads = 2, kDim = 40, kPositions = 301, kPage = 16;
  static constexpr int kWidth = (kHeads + 2 * kKvHeads) * kDim, kOut = kHeads * kDim;
  std::vector<float> qkv, cos, sin;
  std::vector<int32_t> pages;

  explicit AttentionData(Random& random)
      : qkv(normal_values(random, kPositions * kWidth)),
        cos(normal_values(random, kPositions * kDim / 2)),
        sin(normal_values(random, kPositions * kDim / 2)),
        pages(testing::permutation(random, (kPositions + kPage - 1) / kPage)) {}
};

// The outputs of all positions, computed in steps of `chunk`.
std::vector<float> attend(Backend& backend, const AttentionData& d, format::KvKind kind,
                          int chunk) {
  AttentionArgs args;
  args.heads = d.kHeads;
  args.layout = {.kind = kind, .kv_heads = d.kKvHeads, .head_dim = d.kDim, .tokens = d.kPage};
  const Guarded cache(backend, static_cast<size_t>(args.layout.page_bytes()) * d.pages.size());
  const Guarded qkv(backend, d.qkv), cos(backend, d.cos), sin(backend, d.sin);
  args.pages = cache.data();
  args.rope_cos = cos.as<float>();
  args.rope_sin = sin.as<float>();
  std::vector<float> out;
  for (int position = 0; position < d.kPositions; position += chunk) {
    args.rows = std::min(chunk, d.kPositions - position);
    args.qkv = qkv.as<float>() + position * d.kWidth;
    const Input y(backend, format::whole(format::kF32, d.kOut), args.rows);
    const SequenceStep step{0, args.rows, position, d.pages.data()};
    args.sequences = {&step, 1};
    args.y = y.activation();
    backend.attention(args);
    const std::vector<float> part = y.dequantized();
    out.insert(out.end(), part.begin(), part.end());
  }
  return out;
}

TEST_P(Cpu, AttentionDoesNotDependOnTheCut) {
  Random random(5);
  const AttentionData data(random);
  for (const auto kind : {format::KvKind::kF32, format::KvKind::kF16, format::KvKind::kInt8,
                          format::KvKind::kInt4, format::KvKind::kInt8Int4}) {
    std::vector<float> expected;
    for (const int threads : {1, 3}) {
      Executor executor({.threads = threads});
      const auto backend = open(executor);
      for (const int chunk : {301, 100, 64, 7, 1}) {
        const std::vector<float> y = attend(*backend, data, kind, chunk);
        if (expected.empty()) expected = y;
        EXPECT_TRUE(same_bits(expected, y))
            << format::name(kind) << " chunk " << chunk << ", " << threads << " threads";
      }
    }
  }
}

TEST_P(Cpu, NamesItsInstructionSet) {
  const auto backend = open(three_threads());
  EXPECT_NE(backend->description().find(GetParam().isa), std::string::npos);
}

TEST_P(Cpu, ReportsDequantizedInputs) {
  const auto backend = open(three_threads());
  const std::vector<uint16_t> ones(64, 0x3c00);
  const LinearWeight weight{.n = 1,
                            .segments = format::whole(format::kF16, 64),
                            .part = {{ones.data(), nullptr}, {}},
                            .bias = nullptr};
  const Input input(*backend, format::whole(format::int4(32), 64), 1);
  input.quantize(std::vector<float>(64, 1.0f));
  EXPECT_TRUE(backend->fallbacks().empty());
  run_linear(*backend, weight, input);
  run_linear(*backend, weight, input);
  EXPECT_EQ(backend->fallbacks(),
            std::vector<std::string>{"linear f16 x int4.g32: input dequantized"});
}

INSTANTIATE_TEST_SUITE_P(All, Cpu, ::testing::ValuesIn(cpu_candidates()), candidate_name);

}  // namespace
}  // namespace atom::backend
