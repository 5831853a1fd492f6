// Rows in f16 between a linear and its consumer, where a backend takes them: gate and attention give the bits that the
// same values in f32 give.
#include <gtest/gtest.h>

#include <array>
#include <tuple>

#include "backend/attention_test.h"
#include "testing/random_data.h"

namespace atom::backend {
namespace {

using atom::testing::same_bits;
using atom::testing::same_values;
using format::int4;
using format::kF32;
using format::kInt8;
using format::KvKind;

class HalfRows : public Attention {
 protected:
  void SetUp() override {
    Attention::SetUp();
    if (!IsSkipped() && !backend->has_f16_rows()) GTEST_SKIP() << "takes rows in f32 only";
  }
};

// Rows of ordinary size, then one of every pattern in turn, infinity and NaN among them, and one of both ends.
std::vector<uint16_t> half_rows(Random& random, int rows, int width) {
  std::vector<uint16_t> x;
  for (int row = 0; row < rows; ++row)
    for (int i = 0; i < width; ++i) {
      uint16_t bits = format::f32_to_f16(static_cast<float>(3 * random.normal()));
      if (row % 8 == 1) bits = static_cast<uint16_t>(i * 40503 + row);
      if (row % 8 == 2) bits = i % 3 == 0 ? 0x7bff : i % 3 == 1 ? 0xfbff : 1;  // largest, subnormal
      x.push_back(bits);
    }
  return x;
}

void expect_same(const Input& expected, const Input& actual) {
  EXPECT_TRUE(same_values<int8_t>(expected.codes().codes, actual.codes().codes));
  EXPECT_TRUE(same_bits(expected.codes().scales, actual.codes().scales));
  EXPECT_TRUE(same_bits(expected.dequantized(), actual.dequantized()));
}

// Few rows and many, whole tiles and ragged ones, with and without an order.
TEST_P(HalfRows, GateHasTheBitsOfF32) {
  Random random(71);
  for (const auto& [k, rows] :
       {std::pair{16, 5}, {129, 5}, {200, 5}, {384, 5}, {384, 300}, {1000, 5}}) {
    const std::vector<uint16_t> halves = half_rows(random, rows, 2 * k);
    std::vector<float> widened;
    for (const uint16_t bits : halves) widened.push_back(format::f16_to_f32(bits));
    const Guarded x(*backend, widened), x_f16(*backend, halves);
    for (const format::Segments& segments :
         {format::whole(kF32, k), format::whole(kInt8, k), format::whole(int4(128), k),
          format::whole(format::kNvfp4, k), split(kInt8, kInt8, k, k > 128 ? 128 : 0),
          split(int4(128), kInt8, k, k > 128 ? 128 : 0)})
      for (const int hadamard : {0, 128})
        for (const bool ordered : {false, true}) {
          const auto order =
              ordered ? atom::testing::permutation(random, k) : std::vector<int32_t>();
          Input expected(*backend, segments, rows, order), actual(*backend, segments, rows, order);
          expected.set_hadamard(hadamard);
          actual.set_hadamard(hadamard);
          backend->gate({.x = x.as<float>(), .y = expected.activation()});
          backend->gate({.x_f16 = x_f16.as<uint16_t>(), .y = actual.activation()});
          SCOPED_TRACE(fmt::format("k {}, {} rows, {} {}, hadamard {}, order {}", k, rows,
                                   format::name(segments.at[0].format), segments.at[0].size,
                                   hadamard, ordered));
          expect_same(expected, actual);
        }
  }
}

// Prompts and decoding steps, kernels of every kind, odd numbers of heads.
TEST_P(HalfRows, AttentionHasTheBitsOfF32) {
  const Steps steps = {{{0, 0, 70}, {1, 0, 1}}, {{0, 70, 71}, {1, 1, 2}}, {{0, 71, 75}, {1, 2, 3}}};
  for (const KvKind kind : kKinds)
    for (const bool open : {false, true}) {
      if (open && format::kv_side(kind, 1) != KvKind::kInt4) continue;
      for (const auto& [heads, kv_heads, head_dim, tokens] :
           {std::tuple{4, 2, 128, 64}, {3, 3, 64, 64}, {3, 1, 80, 16}, {2, 1, 256, 64}}) {
        const AttentionShape shape{heads, kv_heads, head_dim, kind, tokens, 64, true, open, 0.9f};
        SCOPED_TRACE(shape.label());
        AttentionRun of_f16(*backend, shape, 2, 72), of_f32(*backend, shape, 2, 72);
        of_f16.row_kind = RowKind::kF16;
        of_f32.row_kind = RowKind::kWidened;
        for (const std::vector<Chunk>& chunks : steps) {
          EXPECT_TRUE(same_bits(of_f32.step(chunks), of_f16.step(chunks)));
          EXPECT_TRUE(same_values<uint8_t>(of_f32.pool(), of_f16.pool()));
          if (open) {
            EXPECT_TRUE(same_open_pages(of_f32, of_f16, chunks, shape));
          }
        }
      }
    }
}

// One of the two has to be given.
TEST_P(HalfRows, GateTakesOneKindOfRows) {
  const Input y(*backend, format::whole(kF32, 16), 1);
  const Guarded x(*backend, std::vector<float>(32)), x_f16(*backend, std::vector<uint16_t>(32));
  EXPECT_ANY_THROW(backend->gate({.y = y.activation()}));
  EXPECT_ANY_THROW(
      backend->gate({.x = x.as<float>(), .x_f16 = x_f16.as<uint16_t>(), .y = y.activation()}));
}

INSTANTIATE_TEST_SUITE_P(All, HalfRows, ::testing::ValuesIn(candidates()), candidate_name);

}  // namespace
}  // namespace atom::backend
