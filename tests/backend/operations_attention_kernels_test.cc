// Backend::attention where backends may have kernels of their own: decoding steps and chunks of whole pages.
#include <gtest/gtest.h>

#include <string>
#include <tuple>

#include "backend/attention_test.h"
#include "testing/sanitized.h"

namespace atom::backend {
namespace {

using atom::testing::all_within;
using atom::testing::is_chosen;
using atom::testing::same_values;
using format::KvKind;

class AttentionKernels : public Attention {};

// One row a sequence, which some backends compute by another kernel: contexts of 1, whole pages and their neighbours.
TEST_P(AttentionKernels, DecodesOneRowASequence) {
  int turn = 0;
  for (const KvKind kind : {KvKind::kF16, KvKind::kInt8, KvKind::kInt4, KvKind::kInt8Int4})
    for (const bool open : {false, true}) {
      if (open && format::kv_side(kind, 1) != KvKind::kInt4) continue;
      for (const auto& [heads, kv_heads, head_dim] :
           {std::tuple{2, 2, 64}, {4, 2, 128}, {9, 1, 64}, {8, 1, 128}, {2, 1, 256}, {4, 2, 96}}) {
        if (kind != KvKind::kInt4 && heads > 4) continue;
        if (!is_chosen(turn++, 5)) continue;
        const AttentionShape shape{heads, kv_heads, head_dim, kind, 64, 16, false, open, 0.9f};
        SCOPED_TRACE(shape.label());
        AttentionRun run(*backend, shape, 4, 58), same(*reference, shape, 4, 58);
        const Steps steps = {{{0, 0, 63}, {1, 0, 66}, {2, 0, 127}},
                             {{2, 127, 128}, {0, 63, 64}, {3, 0, 1}, {1, 66, 67}},
                             {{0, 64, 65}, {2, 128, 129}, {3, 1, 2}},
                             {{2, 129, 130}}};
        for (const std::vector<Chunk>& chunks : steps) {
          const std::vector<float> y = run.step(chunks);
          same.step(chunks);
          if (chunks.front().end - chunks.front().begin > 1)
            continue;  // the prompts: tested beside
          const AttentionRun::Expected expected = run.expected(chunks);
          EXPECT_TRUE(all_within(expected.y, y, bounds_of(expected, shape, chunks)));
          EXPECT_TRUE(same_values<uint8_t>(same.pool(), run.pool()));
          if (open) {
            EXPECT_TRUE(same_open_pages(same, run, chunks, shape));
          }
        }
      }
    }
}

// Where attention has kernels of its own, a cache that they do not read is named, for decoding steps and others apart.
TEST_P(AttentionKernels, NamesThePlainKernel) {
  const bool special = GetParam().name == "cuda" &&
                       backend->description().find("and attention") != std::string::npos;
  for (const KvKind kind : {KvKind::kF16, KvKind::kInt8, KvKind::kInt4, KvKind::kInt8Int4}) {
    for (const int head_dim : {64, 96, 128, 256}) {
      AttentionRun run(*backend, {2, 1, head_dim, kind, 64}, 1, 59);
      run.step({{0, 0, 1}});
      run.step({{0, 1, 3}});
    }
  }
  EXPECT_TRUE(backend->fallbacks().empty());
  AttentionRun wide(*backend, {2, 1, 64, KvKind::kF32, 64}, 1, 59);
  wide.step({{0, 0, 2}});
  EXPECT_EQ(backend->fallbacks().size(), special ? 1u : 0u);
  wide.step({{0, 2, 3}});
  wide.step({{0, 3, 4}});
  const std::vector<std::string> fallbacks = backend->fallbacks();
  ASSERT_EQ(fallbacks.size(), special ? 2u : 0u);
  if (special) {
    EXPECT_NE(fallbacks[0].find("a prompt, f32 KV-cache"), std::string::npos) << fallbacks[0];
    EXPECT_NE(fallbacks[1].find("a decoding step, f32 KV-cache"), std::string::npos);
  }
}

// Chunks of several pages, which some backends compute by another kernel: any begin and end, several sequences, decoding rows
// beside them.
TEST_P(AttentionKernels, PrefillsPagesAtATime) {
  const Steps steps = {{{0, 0, 63}, {1, 0, 66}, {2, 0, 64}},
                       {{0, 63, 70}, {1, 66, 69}, {3, 0, 1}, {2, 64, 65}},
                       {{3, 1, 20}, {2, 65, 130}, {0, 70, 71}}};
  int turn = 0;
  for (const KvKind kind : {KvKind::kF16, KvKind::kInt8, KvKind::kInt4, KvKind::kInt8Int4})
    for (const bool open : {false, true}) {
      if (open && format::kv_side(kind, 1) != KvKind::kInt4) continue;
      for (const auto& [heads, kv_heads, head_dim] :
           {std::tuple{2, 2, 64}, {3, 1, 128}, {4, 2, 128}, {9, 1, 64}, {2, 1, 256}, {3, 1, 96}})
        if ((kind == KvKind::kInt4 || heads <= 3) && is_chosen(turn++, 5))
          check_steps({heads, kv_heads, head_dim, kind, 64, 16, false, open, 0.9f}, steps);
    }
}

INSTANTIATE_TEST_SUITE_P(All, AttentionKernels, ::testing::ValuesIn(candidates()), candidate_name);

}  // namespace
}  // namespace atom::backend
