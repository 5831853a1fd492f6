// The quantizers against tests/data/format/golden.json, which tools/make_golden_vectors.py makes
// from docs/formats.md. Every comparison is of bits.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "format/quantize.h"
#include "testing/compare.h"

namespace atom::format {
namespace {

using testing::same_bits;
using testing::same_values;

const Json& golden() {
  static const Json json = parse_json(read_file(ATOM_TEST_DATA "/format/golden.json"));
  return json;
}

// Hexadecimal words of `digits` digits each.
std::vector<uint32_t> words(const Json& text, int digits) {
  const std::string& hex = text.get_ref<const std::string&>();
  std::vector<uint32_t> result(hex.size() / static_cast<size_t>(digits));
  for (size_t i = 0; i < result.size(); ++i) {
    const char* begin = hex.data() + i * static_cast<size_t>(digits);
    std::from_chars(begin, begin + digits, result[i], 16);
  }
  return result;
}

std::vector<float> floats(const Json& text) {
  std::vector<float> result;
  for (const uint32_t bits : words(text, 8)) result.push_back(std::bit_cast<float>(bits));
  return result;
}

std::vector<int8_t> codes_of(const Json& c) { return c["codes"].get<std::vector<int8_t>>(); }

std::string label(const Json& c) {
  return c["name"].get<std::string>() + " " + c.value("format", c.value("kv", ""));
}

// The groups of a symmetric format: scale_of(values) gives each one's scale as used.
template <typename Element, typename ScaleOf>
void check_groups(const Json& c, std::span<const float> expected_scales, Element element,
                  const ScaleOf& scale_of) {
  const std::vector<float> x = floats(c["x"]);
  const Format format = parse_format(c["format"].get<std::string>());
  const size_t group = static_cast<size_t>(group_size(format, static_cast<int>(x.size())));
  std::vector<float> scales, values;
  std::vector<int8_t> codes(x.size());
  for (size_t at = 0; at < x.size(); at += group) {
    const auto part = std::span(x).subspan(at, std::min(group, x.size() - at));
    scales.push_back(scale_of(part));
    quantize_group(part, scales.back(), element, codes.data() + at);
    for (size_t i = at; i < at + part.size(); ++i)
      values.push_back(scales.back() * static_cast<float>(codes[i]));
  }
  EXPECT_EQ(scales.size(), static_cast<size_t>(groups(format, static_cast<int>(x.size()))));
  EXPECT_TRUE(same_bits(expected_scales, scales)) << label(c);
  EXPECT_TRUE(same_values<int8_t>(codes_of(c), codes)) << label(c);
  EXPECT_TRUE(same_bits(floats(c["value"]), values)) << label(c);
}

TEST(Golden, Conversions) {
  const Json& c = golden()["conversion"];
  const std::vector<float> x = floats(c["f32"]);
  const std::vector<uint32_t> half = words(c["f16"], 4), brain = words(c["bf16"], 4);
  ASSERT_EQ(x.size(), half.size());
  ASSERT_GT(x.size(), 100u);
  for (size_t i = 0; i < x.size(); ++i) {
    if (std::isnan(x[i])) {  // any NaN is right
      EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(x[i]))));
      EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(x[i]))));
      continue;
    }
    EXPECT_EQ(f32_to_f16(x[i]), half[i]) << x[i];
    EXPECT_EQ(f32_to_bf16(x[i]), brain[i]) << x[i];
  }
}

TEST(Golden, Int4Weights) {
  ASSERT_GT(golden()["int4_weight"].size(), 50u);
  for (const Json& c : golden()["int4_weight"]) {
    const float clip = floats(c["clip"])[0];
    std::vector<float> scales;
    for (const uint32_t bits : words(c["scale"], 4))
      scales.push_back(f16_to_f32(static_cast<uint16_t>(bits)));
    check_groups(c, scales, Int4{}, [&](std::span<const float> x) {
      return f16_to_f32(weight_scale_bits(int4_scale(absmax(x), clip)));
    });

    const std::vector<int8_t> codes = codes_of(c);
    const std::vector<uint32_t> expected = words(c["packed"], 8);
    std::vector<uint32_t> packed(expected.size());
    ASSERT_EQ(packed.size(), (codes.size() + 7) / 8);
    pack_int4(codes, packed.data());
    EXPECT_EQ(packed, expected) << label(c);
    for (size_t i = 0; i < codes.size(); ++i)
      EXPECT_EQ(unpack_int4(packed.data(), static_cast<int64_t>(i)), codes[i]);
  }
}

TEST(Golden, ProgressiveInt4Weights) {
  ASSERT_GT(golden()["progressive_weight"].size(), 40u);
  for (const Json& c : golden()["progressive_weight"]) {
    const std::vector<float> x = floats(c["x"]);
    const Format format = parse_format(c["format"].get<std::string>());
    ASSERT_TRUE(is_progressive(format));
    const float factor = floats(c["clip"])[0] / 7.0f;
    const size_t group = static_cast<size_t>(group_size(format, static_cast<int>(x.size())));
    std::vector<float> wanted;
    for (size_t at = 0; at < x.size(); at += group)
      wanted.push_back(absmax(std::span(x).subspan(at, std::min(group, x.size() - at))) * factor);
    const float row_scale = progressive_row_scale(*std::max_element(wanted.begin(), wanted.end()));
    EXPECT_TRUE(same_bits(floats(c["row_scale"])[0], row_scale)) << label(c);
    std::vector<int8_t> multipliers;
    std::vector<float> scales;
    for (const float scale : wanted) {
      multipliers.push_back(progressive_multiplier(scale, row_scale));
      scales.push_back(row_scale * static_cast<float>(multipliers.back()));
    }
    EXPECT_EQ(multipliers, c["multipliers"].get<std::vector<int8_t>>()) << label(c);
    size_t next = 0;
    check_groups(c, scales, Int4Progressive{},
                 [&](std::span<const float>) { return scales[next++]; });
  }
}

TEST(Golden, Int8) {
  ASSERT_GT(golden()["int8"].size(), 30u);
  for (const Json& c : golden()["int8"])
    check_groups(c, floats(c["scale"]), Int8{},
                 [](std::span<const float> x) { return int8_scale(absmax(x)); });
}

TEST(Golden, Int4Activations) {
  ASSERT_GT(golden()["int4_activation"].size(), 50u);
  for (const Json& c : golden()["int4_activation"]) {
    const float clip = floats(c["clip"])[0];
    check_groups(c, floats(c["scale"]), Int4{},
                 [&](std::span<const float> x) { return int4_scale(absmax(x), clip); });
  }
}

// The largest magnitude of the whole vector, which is one segment here.
float global_of(const Json& c) { return nvfp4_global(absmax(floats(c["x"]))); }

TEST(Golden, Fp4Weights) {
  ASSERT_GT(golden()["fp4_weight"].size(), 60u);
  for (const Json& c : golden()["fp4_weight"]) {
    const float clip = floats(c["clip"])[0];
    visit(parse_format(c["format"].get<std::string>()), [&](auto f) {
      using F = decltype(f);
      if constexpr (!F::kInteger) {
        FAIL() << label(c);
      } else if constexpr (F::kE2M1) {
        const float global = F::kGlobal ? global_of(c) : 1.0f;
        EXPECT_TRUE(same_bits(floats(c["global"])[0], global_of(c))) << label(c);
        std::vector<int> stored;
        check_groups(c, floats(c["step"]), F{}, [&](std::span<const float> x) {
          stored.push_back(fp4_scale_bits<F>(absmax(x), clip, global));
          return F::step(static_cast<typename F::Scale>(stored.back())) / global;
        });
        EXPECT_EQ(stored, c["scale"].get<std::vector<int>>()) << label(c);
        const std::vector<int8_t> codes = codes_of(c);
        std::vector<uint8_t> packed((codes.size() + 1) / 2);
        pack_codes<F>(codes, packed.data());
        const std::vector<uint32_t> expected = words(c["packed"], 2);
        EXPECT_TRUE(std::equal(packed.begin(), packed.end(), expected.begin(), expected.end()))
            << label(c);
        for (size_t i = 0; i < codes.size(); ++i)
          EXPECT_EQ(unpack_code<F>(packed.data(), static_cast<int64_t>(i)), codes[i]);
      }
    });
  }
}

TEST(Golden, Fp4Activations) {
  ASSERT_GT(golden()["fp4_activation"].size(), 50u);
  for (const Json& c : golden()["fp4_activation"]) {
    const float clip = floats(c["clip"])[0];
    visit(parse_format(c["format"].get<std::string>()), [&](auto f) {
      using F = decltype(f);
      if constexpr (F::kInteger)
        check_groups(c, floats(c["step"]), F{}, [&](std::span<const float> x) {
          return input_step<F>(absmax(x), clip, global_of(c));
        });
    });
  }
}

TEST(Golden, SignedInt4) {
  ASSERT_GT(golden()["int4_signed"].size(), 30u);
  for (const Json& c : golden()["int4_signed"]) {
    const float clip = floats(c["clip"])[0];
    check_groups(c, floats(c["scale"]), Int4{},
                 [&](std::span<const float> x) { return signed_int4_scale(extreme(x), clip); });
  }
}

TEST(Golden, KvVectors) {
  ASSERT_GT(golden()["kv"].size(), 50u);
  ASSERT_GT(golden()["kv_clipped"].size(), 50u);
  Json cases = golden()["kv"];
  cases.insert(cases.end(), golden()["kv_clipped"].begin(), golden()["kv_clipped"].end());
  for (const Json& c : cases) {
    const std::vector<float> x = floats(c["x"]);
    const int high = (1 << kv_bits(parse_kv(c["kv"].get<std::string>()))) - 1;
    const KvParams params = kv_params(x, high, floats(c["clip"])[0]);
    const float lo = f16_to_f32(params.lo), step = f16_to_f32(params.step);
    const float golden_lo = f16_to_f32(static_cast<uint16_t>(words(c["lo"], 4)[0]));
    const float golden_step = f16_to_f32(static_cast<uint16_t>(words(c["step"], 4)[0]));
    EXPECT_TRUE(same_bits(golden_lo, lo)) << label(c) << ": " << lo;
    EXPECT_TRUE(same_bits(golden_step, step)) << label(c) << ": " << step;
    std::vector<int> codes;
    std::vector<float> values;
    for (const float v : x) {
      codes.push_back(kv_code(v, lo, 1.0f / step, high));
      values.push_back(lo + step * static_cast<float>(codes.back()));
    }
    EXPECT_EQ(codes, c["codes"].get<std::vector<int>>()) << label(c);
    EXPECT_TRUE(same_bits(floats(c["value"]), values)) << label(c);
  }
}

}  // namespace
}  // namespace atom::format
