// Backend::attention on every backend: what it stores, what it reads, and what it must not depend
// on.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

#include "backend/attention_test.h"
#include "testing/sanitized.h"

namespace atom::backend {
namespace {

using atom::testing::all_within;
using atom::testing::is_chosen;
using atom::testing::same_bits;
using atom::testing::same_values;
using format::KvKind;

// Every head arrangement, head_dim and KV format, with small pages.
std::vector<AttentionShape> shapes() {
  std::vector<AttentionShape> result;
  for (const KvKind kind : kKinds)
    for (const int head_dim : {16, 64, 80, 96, 128})
      for (const auto& [heads, kv_heads] : {std::pair{1, 1}, {4, 2}, {8, 1}, {3, 1}})
        result.push_back({heads, kv_heads, head_dim, kind, 16});
  return result;
}

// Prefills of ragged lengths, then decoding steps mixed with further chunks.
const Steps kShort = {
    {{0, 0, 17}, {1, 0, 1}},
    {{0, 17, 18}, {1, 1, 2}, {2, 0, 5}},
    {{2, 5, 6}, {1, 2, 33}, {0, 18, 19}},
};
// The same across pages of 64.
const Steps kLong = {
    {{0, 0, 70}, {1, 0, 1}, {2, 0, 16}},
    {{0, 70, 71}, {1, 1, 2}, {2, 16, 33}, {3, 0, 5}},
    {{3, 5, 6}, {2, 33, 34}, {1, 2, 3}, {0, 71, 72}},
    {{1, 3, 64}},
    {{1, 64, 65}, {0, 72, 140}, {3, 6, 7}},
    {{1, 65, 66}, {0, 140, 200}},
};

TEST_P(Attention, AttendsToWhatItStored) {
  int turn = 0;
  for (const AttentionShape& shape : shapes())
    if (is_chosen(turn++, 3)) check_steps(shape, kShort);
}

TEST_P(Attention, TransformsQueriesAndKeysAlike) {
  for (const KvKind kind : kKinds) {
    check_steps({4, 2, 64, kind, 16, 64}, kShort);
    check_steps({3, 1, 80, kind, 16, 16}, kShort);
    check_steps({2, 1, 80, kind, 16, 128}, kShort);  // 64 and 16
    check_steps({4, 2, 96, kind, 16, 32}, kShort);
    check_steps({2, 1, 96, kind, 64, 128}, kShort);  // 64 and 32
  }
  // Orthogonal: with a cache that keeps every bit the result is the same up to rounding.
  const AttentionShape plain{4, 2, 64, KvKind::kF32, 16}, turned{4, 2, 64, KvKind::kF32, 16, 64};
  AttentionRun a(*backend, plain, 4, 51), b(*backend, turned, 4, 51);
  for (const std::vector<Chunk>& chunks : kShort) {
    const std::vector<float> y = a.step(chunks), z = b.step(chunks);
    // Scores up to about 100 move by 100 * 64 * 2^-24, weights by that share, outputs of size 3 too.
    for (size_t i = 0; i < y.size(); ++i) EXPECT_NEAR(y[i], z[i], 2e-3) << i;
  }
}

TEST_P(Attention, AnOffsetOfTheKeysDoesNotMoveTheResult) {
  for (const KvKind kind : kKinds) {
    check_steps({4, 2, 64, kind, 16, 64, true}, kShort);
    check_steps({3, 3, 80, kind, 16, 0, true}, kShort);
  }
  const AttentionShape plain{4, 2, 64, KvKind::kF32, 16},
      moved{4, 2, 64, KvKind::kF32, 16, 0, true};
  AttentionRun a(*backend, plain, 4, 51), b(*backend, moved, 4, 51);
  for (const std::vector<Chunk>& chunks : kShort) {
    const std::vector<float> y = a.step(chunks), z = b.step(chunks);
    for (size_t i = 0; i < y.size(); ++i) EXPECT_NEAR(y[i], z[i], 2e-3) << i;  // as above
  }
  EXPECT_NE(a.pool(), b.pool());
}

// The positions of the page that a sequence has begun, and nothing beside its own open page.
TEST_P(Attention, ReadsItsOwnPageInInt8) {
  int turn = 0;
  for (const KvKind kind : {KvKind::kInt4, KvKind::kInt8Int4}) {
    for (const int head_dim : {16, 80, 96, 128}) {
      if (!is_chosen(turn++, 3)) continue;
      check_steps({4, 2, head_dim, kind, 16, 0, false, true}, kShort);
      check_steps({3, 1, head_dim, kind, 64, 16, true, true, 0.9f}, kLong);
    }
    if (!is_chosen(turn++, 3)) continue;
    check_steps({2, 1, 32, kind, 128, 0, false, true}, kLong);  // pages wider than a tile
    check_steps({2, 1, 32, kind, 24, 0, false, true}, kLong);   // and across tiles
  }
}

TEST_P(Attention, ClipsInt4SidesOnly) {
  for (const KvKind kind : kKinds) {
    const AttentionShape whole{2, 1, 16, kind, 16};
    AttentionShape clipped = whole;
    clipped.clip = 0.8f;
    check_steps(clipped, kShort);
    AttentionRun a(*backend, whole, 3, 51), b(*backend, clipped, 3, 51);
    a.step({{0, 0, 40}});
    b.step({{0, 0, 40}});
    const std::vector<uint8_t> x = a.pool(), y = b.pool();
    const format::KvLayout layout = whole.layout();
    for (int side = 0; side < 2; ++side) {
      bool equal = true;
      for (const int32_t page : a.pages(0)) {
        const int64_t begin = page * layout.page_bytes() + layout.head_offset(side, 0);
        equal = equal && std::memcmp(&x[begin], &y[begin],
                                     static_cast<size_t>(layout.head_bytes(side))) == 0;
      }
      EXPECT_EQ(equal, format::kv_side(kind, side) != KvKind::kInt4) << format::name(kind) << side;
    }
  }
}

TEST_P(Attention, CrossesPages) {
  int turn = 0;
  for (const KvKind kind : kKinds) {
    check_steps({4, 2, 64, kind, 64}, kLong);
    if (is_chosen(turn++, 2)) check_steps({3, 3, 16, kind, 32}, kLong);
  }
}

// What is stored, against the vectors themselves: K rotated by its position, V as it is.
TEST_P(Attention, StoresRotatedKeysAndPlainValues) {
  for (const KvKind kind : kKinds) {
    const AttentionShape shape{2, 1, 16, kind, 16};
    SCOPED_TRACE(shape.label());
    AttentionRun run(*backend, shape, 1, 52);
    run.step({{0, 0, 40}});
    const format::KvLayout layout = shape.layout();
    const std::vector<uint8_t> pool = run.pool();
    const std::vector<int32_t> pages = run.pages(0);
    for (int p = 0; p < 40; ++p) {
      for (int side = 0; side < 2; ++side) {
        std::vector<float> x(run.at(0, p, 2 + side), run.at(0, p, 2 + side) + 16);
        if (side == 0) {
          for (int i = 0; i < 8; ++i) {
            const double angle = p * std::pow(10000.0, -i / 8.0);
            const float c = static_cast<float>(std::cos(angle)),
                        s = static_cast<float>(std::sin(angle));
            const float first = x[i], second = x[i + 8];
            x[i] = first * c - second * s;
            x[i + 8] = second * c + first * s;
          }
        }
        const int64_t page = pages[p / 16] * layout.page_bytes();
        const uint8_t* row = pool.data() + page + layout.row_offset(side, 0, p % 16);
        const uint8_t* params = pool.data() + page + layout.param_offset(side, 0, p % 16);
        std::vector<uint8_t> expected(static_cast<size_t>(layout.row_bytes(side)), 0);
        const KvKind stored = format::kv_side(kind, side);
        const int high = (1 << std::min(layout.bits(side), 16)) - 1;
        const format::KvParams wanted = format::kv_params(x, high);
        const float lo = format::f16_to_f32(wanted.lo), inv = 1 / format::f16_to_f32(wanted.step);
        for (int i = 0; i < 16; ++i) {
          const uint16_t half = format::f32_to_f16(x[i]);
          if (stored == KvKind::kF32) std::memcpy(&expected[4 * i], &x[i], 4);
          if (stored == KvKind::kF16) std::memcpy(&expected[2 * i], &half, 2);
          if (stored == KvKind::kInt8)
            expected[i] = static_cast<uint8_t>(format::kv_code(x[i], lo, inv, high));
          if (stored == KvKind::kInt4)
            expected[i / 2] = static_cast<uint8_t>(
                expected[i / 2] | format::kv_code(x[i], lo, inv, high) << (4 * (i % 2)));
        }
        ASSERT_TRUE(same_values<uint8_t>(expected, {row, expected.size()})) << p << " " << side;
        if (layout.param_bytes(side) > 0) {
          ASSERT_EQ(std::memcmp(params, &wanted.lo, 2), 0) << p;
          ASSERT_EQ(std::memcmp(params + 2, &wanted.step, 2), 0) << p;
        }
      }
    }
  }
}

// The same rows in chunks of 1, 7 and 64 tokens, all at once, with neighbours, and on other threads: equal bits. Where
// decoding steps have a kernel of their own, which rounds to f16, chunks of 1 are as exact as that.
TEST_P(Attention, DoesNotDependOnChunksOrNeighbours) {
  constexpr int kLength = 150;
  int turn = 0;
  for (const KvKind kind : kKinds)
    for (const AttentionShape& shape :
         {AttentionShape{4, 2, 64, kind, 64},
          {3, 1, 80, kind, 16},
          AttentionShape{2, 1, 32, kind, 64, 0, false, format::has_int4_side(kind)},
          AttentionShape{3, 1, 128, kind, 64, 0, false, format::has_int4_side(kind)},
          AttentionShape{2, 1, 16, kind, 24, 0, false, format::has_int4_side(kind)}}) {
      if (!is_chosen(turn++, 4)) continue;
      SCOPED_TRACE(shape.label());
      AttentionRun all(*backend, shape, 3, 53);
      const std::vector<float> expected = all.step({{0, 0, kLength}});
      for (const int threads : {1, 2}) {
        Executor executor({.threads = threads});
        const std::unique_ptr<Backend> other = open(executor);
        AttentionRun run(*other, shape, 3, 53);
        EXPECT_TRUE(same_bits(expected, run.step({{0, 0, kLength}}))) << threads << " threads";
      }
      for (const int chunk : {1, 7, 64}) {
        AttentionRun run(*backend, shape, 3, 53);
        const bool halves = decodes_in_halves(shape, {{0, 0, chunk}});
        std::vector<float> y;
        for (int begin = 0; begin < kLength; begin += chunk) {
          const std::vector<Chunk> step = {{0, begin, std::min(begin + chunk, kLength)}};
          const std::vector<float> part = run.step(step);
          y.insert(y.end(), part.begin(), part.end());
          if (!halves) continue;
          const AttentionRun::Expected here = run.expected(step);
          EXPECT_TRUE(all_within(here.y, part, here.half_bounds)) << "position " << begin;
        }
        EXPECT_TRUE(halves || same_bits(expected, y)) << "chunks of " << chunk;
      }
      AttentionRun crowd(*backend, shape, 3, 53);
      const std::vector<float> y = crowd.step({{1, 0, 33}, {0, 0, kLength}, {2, 0, 1}});
      EXPECT_TRUE(same_bits(
          expected, std::span(y).subspan(static_cast<size_t>(33 * shape.heads * shape.head_dim),
                                         expected.size())));
    }
}

// The codes are those of quantize() on the f32 outputs.
TEST_P(Attention, QuantizesForItsConsumer) {
  Random random(54);
  const AttentionShape shape{4, 2, 80, KvKind::kInt4, 16};
  const int k = shape.heads * shape.head_dim;
  const std::vector<Chunk> chunks = {{0, 0, 20}, {1, 0, 3}};
  for (const format::Segments& segments :
       {split(format::int4(128), format::kInt8, k, 32), format::whole(format::int4(128), k),
        format::whole(format::kInt8, k), format::whole(format::int4(0), k),
        format::whole(format::kF16, k)})
    for (const auto& order : {std::vector<int32_t>(), atom::testing::permutation(random, k)}) {
      AttentionRun plain(*backend, shape, 2, 55), run(*backend, shape, 2, 55);
      const Input expected(*backend, segments, 23, order, 0.9f),
          actual(*backend, segments, 23, order, 0.9f);
      expected.quantize(plain.step(chunks));
      run.step(chunks, actual);
      EXPECT_TRUE(same_values<int8_t>(expected.codes().codes, actual.codes().codes));
      EXPECT_TRUE(same_bits(expected.codes().scales, actual.codes().scales));
      EXPECT_TRUE(same_bits(expected.dequantized(), actual.dequantized()));
    }
}

// NaN in a K or V vector reaches the later rows of its sequence whose heads read it, and nothing
// else.
TEST_P(Attention, KeepsBadSequencesApart) {
  for (const KvKind kind : kKinds)
    for (const auto& [side, tokens] : {std::pair{0, 16}, {1, 16}, {0, 64}, {1, 64}}) {
      const AttentionShape shape{4, 2, 64, kind, tokens};
      // There rows of the same page multiply it by a weight of 0.
      if (in_halves(shape) && kind == KvKind::kF16 && side == 1) continue;
      SCOPED_TRACE(shape.label());
      const std::vector<Chunk> chunks = {{0, 0, 40}, {1, 0, 50}, {2, 0, 1}};
      AttentionRun run(*backend, shape, 3, 56), same(*reference, shape, 3, 56),
          good(*backend, shape, 3, 56);
      constexpr int kBad = 20, kBadKvHead = 1;
      for (AttentionRun* r : {&run, &same})
        r->at(1, kBad, shape.heads + side * shape.kv_heads + kBadKvHead)[9] = kNaN;
      const std::vector<float> expected = good.step(chunks), y = run.step(chunks);
      same.step(chunks);
      EXPECT_TRUE(same_values<uint8_t>(same.pool(), run.pool()));
      if (shape.open_page) {
        EXPECT_TRUE(same_open_pages(same, run, chunks, shape));
      }
      size_t wrong = 0;
      for (int row = 0; row < 91; ++row)
        for (int head = 0; head < shape.heads; ++head)
          for (int i = 0; i < shape.head_dim; ++i) {
            const size_t at = static_cast<size_t>((row * shape.heads + head) * shape.head_dim + i);
            const bool reads = row >= 40 + kBad && row < 90 && head / 2 == kBadKvHead;
            // A floating-point V spoils its own channel only.
            const bool channel = side == 0 || format::is_quantized(kind) || i == 9;
            wrong += reads && channel ? !std::isnan(y[at]) : !same_bits(expected[at], y[at]);
          }
      EXPECT_EQ(wrong, 0u) << (side == 0 ? "K" : "V");
    }
}

// Scores so far apart that all but one weight vanish, and so large that exp overflows without the
// maximum.
TEST_P(Attention, SurvivesLargeScores) {
  for (const KvKind kind : kKinds)
    for (const int tokens : {16, 64}) {
      const AttentionShape shape{2, 1, 64, kind, tokens};
      SCOPED_TRACE(shape.label());
      AttentionRun run(*backend, shape, 1, 57);
      for (int p = 0; p < 60; ++p)
        for (int head = 0; head < 3; ++head)
          for (int i = 0; i < 64; ++i) run.at(0, p, head)[i] *= 40;
      const std::vector<Chunk> chunks = {{0, 0, 60}};
      const std::vector<float> y = run.step(chunks);
      const AttentionRun::Expected expected = run.expected(chunks);
      EXPECT_TRUE(all_within(expected.y, y, bounds_of(expected, shape, chunks)));
      for (const float v : y) ASSERT_TRUE(std::isfinite(v));
    }
}

INSTANTIATE_TEST_SUITE_P(All, Attention, ::testing::ValuesIn(candidates()), candidate_name);

}  // namespace
}  // namespace atom::backend
