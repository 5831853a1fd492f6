// Bits of linears that are known in advance: golden values of docs/formats.md, section 5, by an
// independent script, and the largest integer sums that exist.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "backend/linear_run.h"
#include "base/file.h"
#include "base/json.h"
#include "testing/compare.h"

namespace atom::backend {
namespace {

using atom::testing::between;
using atom::testing::same_bits;
using atom::testing::same_values;
using format::Format;
using format::int4_progressive;
using format::kInt8;

// Hexadecimal words of `digits` digits each.
std::vector<uint32_t> hex(const Json& text, int digits) {
  std::vector<uint32_t> words;
  const std::string s = text.get<std::string>();
  for (size_t i = 0; i < s.size(); i += static_cast<size_t>(digits))
    words.push_back(
        static_cast<uint32_t>(std::stoul(s.substr(i, static_cast<size_t>(digits)), nullptr, 16)));
  return words;
}

void append_words(std::vector<uint8_t>& to, const std::vector<uint32_t>& words) {
  for (const uint32_t word : words) append_bytes(to, word);
}

HostWeight golden_weight(const Json& c, Format format) {
  HostWeight w;
  w.n = static_cast<int>(c["kept_weight"].size());
  w.segments = split(format, kInt8, static_cast<int>(c["x_codes"][0].size()), c["kept"].get<int>());
  for (int n = 0; n < w.n; ++n) {
    if (format::is_e2m1(format))
      for (const uint32_t byte : hex(c["weight_packed"][n], 2))
        w.at[0].stored.push_back(static_cast<uint8_t>(byte));
    else
      append_words(w.at[0].stored, hex(c["weight_packed"][n], 8));
    for (const Json& code : c["kept_weight"][n]) append_bytes(w.at[1].stored, code.get<int8_t>());
    if (format::is_progressive(format)) {
      for (const Json& multiplier : c["weight_multiplier"][n])
        w.at[0].multipliers.push_back(multiplier.get<int8_t>());
    } else if (format::is_e2m1(format)) {
      for (const Json& bits : c["weight_scale"][n])
        if (format::weight_scale_bytes(format) == 2)
          append_bytes(w.at[0].stored_scales, bits.get<uint16_t>());
        else
          append_bytes(w.at[0].stored_scales, bits.get<uint8_t>());
    } else {
      for (const uint32_t bits : hex(c["weight_scale"][n], 4))
        append_bytes(w.at[0].stored_scales, static_cast<uint16_t>(bits));
    }
  }
  if (format::has_global_scale(format))
    w.at[0].global_scale = std::bit_cast<float>(hex(c["weight_global_scale"], 8)[0]);
  if (format::is_progressive(format))
    append_words(w.at[0].stored_scales, hex(c["weight_row_scale"], 8));
  append_words(w.at[1].stored_scales, hex(c["kept_scale"], 8));
  for (const uint32_t bits : hex(c["bias"], 8)) w.bias.push_back(std::bit_cast<float>(bits));
  return w;
}

class LinearBits : public BackendTest {
 protected:
  void check_golden(const char* key, Format input) {
    const Json c = parse_json(read_file(ATOM_TEST_DATA "/format/golden.json"))[key];
    const Format format = format::parse_format(c["format"].get<std::string>());
    const HostWeight w = golden_weight(c, format);
    std::vector<float> x, expected;
    std::vector<int8_t> codes;
    for (size_t row = 0; row < c["x"].size(); ++row) {
      for (const uint32_t bits : hex(c["x"][row], 8)) x.push_back(std::bit_cast<float>(bits));
      for (const uint32_t bits : hex(c["y"][row], 8))
        expected.push_back(std::bit_cast<float>(bits));
      for (const Json& code : c["x_codes"][row]) codes.push_back(code.get<int8_t>());
    }
    const Case one{.formats = {format, input, kInt8, kInt8},
                   .m = static_cast<int>(c["x"].size()),
                   .n = w.n,
                   .k = w.segments.k(),
                   .kept = c["kept"].get<int>(),
                   .has_bias = true,
                   .then = Then::kStore,
                   .data = Data::kExact};
    const Result run = run_dense(*backend, one, w, x, {}, std::vector<float>(expected.size(), NAN));
    EXPECT_TRUE(same_values<int8_t>(codes, run.codes.codes));
    EXPECT_TRUE(same_bits(expected, run.y));
  }
};

TEST_P(LinearBits, Int4GivesTheGoldenBits) { check_golden("linear", format::int4(128)); }

TEST_P(LinearBits, ProgressiveInt4GivesTheGoldenBits) { check_golden("linear_progressive", kInt8); }

TEST_P(LinearBits, Fp4GivesTheGoldenBits) {
  check_golden("linear_e2m1", format::e2m1(128));
  check_golden("linear_mxfp4", format::kMxfp4);
  check_golden("linear_nvfp4", format::kNvfp4);
}

// The whole segment is one integer: the largest sums that exist lie beyond the 24 bits of an f32, and
// adding scaled groups in f32 would round them again and again.
TEST_P(LinearBits, AddsProgressiveGroupsAsIntegers) {
  constexpr int kSize = 131072, kGroup = 128, kOutputs = 3;
  Random random(27);
  HostWeight w{.n = kOutputs,
               .segments = format::whole(int4_progressive(kGroup), kSize),
               .at = {},
               .bias = {}};
  std::vector<float> x(kSize, 127.0f);  // scale 1, codes 127
  std::vector<float> expected;
  for (int n = 0; n < kOutputs; ++n) {
    std::vector<int8_t> codes(kSize, -8);
    std::vector<int8_t> multipliers(kSize / kGroup, 15);
    for (int8_t& code : codes)
      if (n == 1) code = static_cast<int8_t>(between(random, -8, 7));
    for (int8_t& multiplier : multipliers)
      if (n == 2)
        multiplier = static_cast<int8_t>(between(random, 1, 15) * (between(random, 0, 1) * 2 - 1));
    int64_t sum = 0;
    for (size_t i = 0; i < codes.size(); ++i) sum += multipliers[i / kGroup] * codes[i] * 127;
    std::vector<uint32_t> words(kSize / 8);
    format::pack_int4(codes, words.data());
    for (const uint32_t word : words) append_bytes(w.at[0].stored, word);
    append_bytes(w.at[0].stored_scales, 0.25f);
    w.at[0].multipliers.insert(w.at[0].multipliers.end(), multipliers.begin(), multipliers.end());
    expected.push_back(0.25f * static_cast<float>(sum));
  }
  EXPECT_EQ(expected[0], -0.25f * 1997537280.0f);
  const Case c{.formats = {int4_progressive(kGroup), kInt8, kInt8, kInt8},
               .m = 1,
               .n = kOutputs,
               .k = kSize,
               .kept = 0,
               .has_bias = false,
               .then = Then::kStore,
               .data = Data::kExact};
  const Result run = run_dense(*backend, c, w, x, {}, std::vector<float>(kOutputs, NAN));
  EXPECT_TRUE(same_bits(expected, run.y));
}

INSTANTIATE_TEST_SUITE_P(All, LinearBits, ::testing::ValuesIn(candidates()), candidate_name);

}  // namespace
}  // namespace atom::backend
