// The host's plan of a decoding step: every unit is read once, and partial results meet.
#include "backend/cuda/hopper_decode_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <tuple>

namespace atom::backend::cuda::hopper {
namespace {

using RowHead = std::pair<int, int>;

struct Part {
  int block, warp, order;
  const DecodeSegment* segment;
};

// The segments of each row and head by their first units.
std::map<RowHead, std::map<int, Part>> parts_of(const DecodePlan& plan) {
  std::map<RowHead, std::map<int, Part>> parts;
  for (int w = 0; w < plan.blocks * kDecodeWarps; ++w) {
    int at = w;
    for (int order = 0; at >= 0; ++order) {
      const DecodeSegment& s = plan.segments[static_cast<size_t>(at)];
      if (s.count == 0) break;
      const Part part{w / kDecodeWarps, w % kDecodeWarps, order, &s};
      EXPECT_TRUE(parts[RowHead(s.row, s.head)].emplace(s.unit, part).second);
      at = s.next;
    }
  }
  return parts;
}

std::vector<DecodeRow> rows_of(const std::vector<int>& contexts) {
  std::vector<DecodeRow> rows;
  for (const int context : contexts) rows.push_back({.context = context});
  return rows;
}

// The block's merge of a row and head.
const DecodeMerge* merge_of(const DecodePlan& plan, int block, const RowHead& which) {
  const int begin = block == 0 ? 0 : plan.merge_ends[static_cast<size_t>(block) - 1];
  const int end = plan.merge_ends[static_cast<size_t>(block)];
  for (int i = begin; i < end; ++i) {
    const DecodeMerge& m = plan.merges[static_cast<size_t>(i)];
    if (RowHead(m.row, m.head) != which) continue;
    EXPECT_TRUE(m.arrivals == 1 || i == begin || i == end - 1) << "others wait for it";
    return &m;
  }
  return nullptr;
}

// In the slots of one block.
void check_slots(const DecodeMerge& merge, const std::vector<const Part*>& group) {
  std::set<int> warps;
  for (const Part* part : group) {
    const DecodeSegment& s = *part->segment;
    ASSERT_GE(s.place, 0);
    EXPECT_EQ(s.place / 2, part->warp);
    EXPECT_EQ(s.place % 2, s.next < 0 ? 1 : 0);
    EXPECT_TRUE(s.place % 2 == 1 || part->order == 0);
    EXPECT_EQ(s.place, part == group.back() ? merge.last_slot : 2 * part->warp + 1);
    warps.insert(part->warp);
  }
  EXPECT_EQ(warps.size(), group.size());
  EXPECT_EQ(*warps.begin(), merge.first_warp);
  EXPECT_EQ(*warps.rbegin(), merge.first_warp + merge.warps - 1);
  EXPECT_EQ(static_cast<int>(warps.size()), merge.warps);
}

void check_partials(const DecodePlan& plan, const std::map<int, Part>& parts, const RowHead& which,
                    std::set<int>* pieces) {
  std::map<int, std::vector<const Part*>> by_block;
  for (const auto& [unit, part] : parts) by_block[part.block].push_back(&part);
  std::set<int> own;  // pieces
  for (const auto& [block, group] : by_block) {
    const DecodeMerge* merge = merge_of(plan, block, which);
    ASSERT_NE(merge, nullptr);
    EXPECT_EQ(merge->arrivals, static_cast<int>(by_block.size()));
    if (merge->arrivals > 1) {
      EXPECT_LT(merge->counter, plan.counters);
    }
    if (group.front()->segment->place == kDecodePiece) {
      EXPECT_EQ(merge->warps, 0);
      for (const Part* part : group) EXPECT_TRUE(own.insert(part->segment->piece).second);
    } else {
      check_slots(*merge, group);
      EXPECT_EQ(merge->piece < 0, by_block.size() == 1);
      if (merge->piece >= 0) {
        EXPECT_TRUE(own.insert(merge->piece).second);
      }
    }
  }
  for (const auto& [block, group] : by_block) {
    const DecodeMerge* merge = merge_of(plan, block, which);
    EXPECT_EQ(static_cast<int>(own.size()), merge->end_piece - merge->first_piece);
    if (own.empty()) continue;
    EXPECT_EQ(*own.begin(), merge->first_piece);
    EXPECT_EQ(*own.rbegin(), merge->end_piece - 1);
  }
  for (const int piece : own) EXPECT_TRUE(pieces->insert(piece).second && piece < plan.pieces);
}

void check(const std::vector<int>& contexts, const DecodePlanShape& shape) {
  SCOPED_TRACE(::testing::Message() << contexts.size() << " rows, " << shape.heads << " heads, "
                                    << shape.blocks << " blocks, split " << shape.split);
  const std::vector<DecodeRow> rows = rows_of(contexts);
  const DecodePlan plan = plan_decode(rows, shape);
  ASSERT_LE(plan.blocks, shape.blocks);
  ASSERT_EQ(plan.merge_ends.size(), static_cast<size_t>(plan.blocks));
  const auto parts = parts_of(plan);
  std::set<int> pieces;
  for (size_t row = 0; row < rows.size(); ++row) {
    const DecodeUnits units = decode_units(contexts[row], shape);
    for (int head = 0; head < shape.heads; ++head) {
      const auto found = parts.find({static_cast<int>(row), head});
      ASSERT_EQ(found == parts.end(), units.all() == 0);
      if (units.all() == 0) continue;
      int next = 0;
      for (const auto& [unit, part] : found->second) {
        EXPECT_EQ(unit, next);
        next += part.segment->count;
        EXPECT_EQ(part.segment->cache_units, units.cache);
        if (next == units.all()) {
          const int before = units.open > 0 ? units.cache * shape.unit_tokens +
                                                  (units.open - 1) * shape.open_tokens
                                            : (units.cache - 1) * shape.unit_tokens;
          EXPECT_EQ(part.segment->tail, contexts[row] - before);
        }
      }
      EXPECT_EQ(next, units.all());
      if (found->second.size() == 1)
        EXPECT_EQ(found->second.begin()->second.segment->place, kDecodeWhole);
      else
        check_partials(plan, found->second, found->first, &pieces);
    }
  }
}

TEST(DecodePlan, ReadsEveryUnitOnce) {
  std::mt19937 random(3);
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<int> contexts;
    const int rows = 1 + static_cast<int>(random() % 30), most = 1 << (random() % 14);
    for (int i = 0; i < rows; ++i) contexts.push_back(static_cast<int>(random() % (most + 1)));
    for (const int split : {0, 1, 5})
      check(contexts, {.heads = 1 + static_cast<int>(random() % 9),
                       .unit_tokens = 16 << (random() % 3),
                       .open_tokens = random() % 2 == 0 ? 16 : 32,
                       .open_page = random() % 2 == 0,
                       .blocks = 1 + static_cast<int>(random() % 140),
                       .split = split});
  }
}

TEST(DecodePlan, TakesNothingForNothing) {
  EXPECT_EQ(plan_decode({}, {.heads = 4, .blocks = 8}).blocks, 0);
  const std::vector<DecodeRow> rows = rows_of({0, 0});
  EXPECT_EQ(plan_decode(rows, {.heads = 4, .blocks = 8}).blocks, 0);
}

// 64 rows of 16 pages for 8 heads on 132 blocks: 128 blocks with 4 rows and heads each need no merging across blocks.
TEST(DecodePlan, EndsBlocksAtEndsOfRows) {
  const std::vector<DecodeRow> rows = rows_of(std::vector<int>(64, 1024));
  const DecodePlan plan = plan_decode(rows, {.heads = 8, .blocks = 132});
  EXPECT_EQ(plan.blocks, 128);
  EXPECT_EQ(plan.pieces, 0);
  for (const DecodeMerge& merge : plan.merges) EXPECT_EQ(merge.arrivals, 1);
}

// With `split` the cuts of a row are those of its length alone.
TEST(DecodePlan, SplitsARowAlikeInEveryBatch) {
  const auto cuts = [](const std::vector<int>& contexts) {
    const std::vector<DecodeRow> rows = rows_of(contexts);
    const DecodePlan plan = plan_decode(rows, {.heads = 2, .blocks = 20, .split = 3});
    std::vector<std::pair<int, int>> found;
    auto parts = parts_of(plan);
    for (const auto& [unit, part] : parts[{0, 1}]) found.push_back({unit, part.segment->count});
    return found;
  };
  EXPECT_EQ(cuts({2000}), cuts({2000, 5, 300, 4000}));
}

TEST(DecodePlan, KnowsTheFirstPages) {
  std::vector<int32_t> ids(40);
  for (int i = 0; i < 40; ++i) ids[static_cast<size_t>(i)] = 100 + i;
  const std::vector<DecodeRow> rows = {{.context = 40 * 64, .ids = ids.data()}, {.context = 640}};
  const DecodePlan plan = plan_decode(rows, {.heads = 1, .blocks = 3});
  const auto all = parts_of(plan);
  for (const auto& [which, parts] : all)
    for (const auto& [unit, part] : parts)
      for (int i = 0; i < 4; ++i) {
        const bool known = which.first == 0 && unit + i < 40;
        EXPECT_EQ(part.segment->ids[i], known ? 100 + unit + i : -1);
      }
}

}  // namespace
}  // namespace atom::backend::cuda::hopper
