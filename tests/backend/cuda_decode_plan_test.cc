// The host's plan of a decoding step: every unit is read once, and partial results meet.
#include "backend/cuda/hopper_decode_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <span>
#include <vector>

namespace atom::backend::cuda::hopper {
namespace {

using RowHead = std::pair<int, int>;

// What the kernel reads of a plan in memory that is as large as its layout says, and what it makes of that.
class DecodedPlan {
 public:
  DecodedPlan(const std::vector<DecodeRow>& rows, const DecodePlanShape& shape)
      : layout_(decode_plan_layout(shape, limits_of(rows, shape))),
        heads_(shape.heads),
        memory_(static_cast<size_t>(layout_.bytes) + kGuard, kFill) {
    // Behind a plan of other contexts, as a replayed graph finds it.
    std::vector<DecodeRow> others = rows;
    for (DecodeRow& row : others) row.context = 1 + row.context / 2;
    plan_decode(others, shape, layout_, memory_.data());
    const int64_t bytes = plan_decode(rows, shape, layout_, memory_.data());
    EXPECT_LE(bytes, layout_.bytes);
    EXPECT_TRUE(std::all_of(memory_.end() - kGuard, memory_.end(),
                            [](unsigned char byte) { return byte == kFill; }));
    layout_.set(memory_.data(), &task_);
  }

  struct Segment {
    int row, head, unit, count;
    const DecodeRun* record;
    bool last;
    bool knows_ids;
  };
  // Of warp w of the grid.
  std::vector<Segment> segments(int w) const {
    std::vector<Segment> found;
    const DecodeRun* r = task_.runs + w;
    Segment s{.row = r->row,
              .head = r->head,
              .unit = r->unit,
              .count = 0,
              .record = r,
              .last = false,
              .knows_ids = true};
    for (int left = r->count; left > 0;) {
      s.count = std::min(left, r->units - s.unit);
      if (task_.split > 0) s.count = std::min(s.count, task_.split - s.unit % task_.split);
      left -= s.count;
      s.last = left == 0;
      found.push_back(s);
      if (s.unit + s.count < r->units) {
        s.unit += s.count;
      } else {
        s.unit = 0;
        const bool next_row = ++s.head == heads_;
        if (next_row) s.head = 0;
        r = task_.runs + r->record + (next_row ? 1 : 0);
      }
      s.row = r->row;
      s.record = r;
      s.knows_ids = s.unit == r->unit;
    }
    return found;
  }
  // Blocks with work.
  int blocks() const {
    int blocks = 0;
    for (int w = 0; w < layout_.blocks * kDecodeWarps; ++w)
      if (task_.runs[w].count > 0) blocks = w / kDecodeWarps + 1;
    return blocks;
  }
  std::span<const DecodeMerge> merges(int block) const {
    const DecodeMerges& m = task_.block_merges[block];
    return {task_.merges + m.begin, static_cast<size_t>(m.count)};
  }
  int64_t pieces() const { return layout_.pieces; }

 private:
  static constexpr int kGuard = 64;
  static constexpr unsigned char kFill = 0xa5;
  static DecodePlanLimits limits_of(const std::vector<DecodeRow>& rows,
                                    const DecodePlanShape& shape) {
    DecodePlanLimits limits;
    for (const DecodeRow& row : rows) {
      limits.units += decode_units(row.context, shape).all();
      limits.units += decode_units(1 + row.context / 2, shape).all();
      ++limits.rows;
    }
    return limits;
  }

  DecodePlanLayout layout_;
  int heads_;
  std::vector<unsigned char> memory_;
  DecodeTask task_;
};

struct Part {
  int block, warp, order;
  DecodedPlan::Segment segment;
  bool whole, piece;  // where its result goes; otherwise a slot
  int slot() const { return 2 * warp + (segment.last ? 1 : 0); }
};

// The segments of each row and head by their first units.
std::map<RowHead, std::map<int, Part>> parts_of(const DecodedPlan& plan,
                                                const DecodePlanShape& shape) {
  std::map<RowHead, std::map<int, Part>> parts;
  for (int w = 0; w < shape.blocks * kDecodeWarps; ++w) {
    int order = 0;
    for (const DecodedPlan::Segment& s : plan.segments(w)) {
      const bool whole = s.unit == 0 && s.count == s.record->units;
      const Part part{w / kDecodeWarps,         w % kDecodeWarps, order++, s, whole,
                      !whole && shape.split > 0};
      EXPECT_TRUE(parts[RowHead(s.row, s.head)].emplace(s.unit, part).second);
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
const DecodeMerge* merge_of(const DecodedPlan& plan, int block, const RowHead& which) {
  for (const DecodeMerge& m : plan.merges(block))
    if (RowHead(m.row, m.head) == which) return &m;
  return nullptr;
}

// In the slots of one block.
void check_slots(const DecodeMerge& merge, const std::vector<const Part*>& group) {
  std::set<int> warps;
  for (const Part* part : group) {
    EXPECT_TRUE(part->segment.last || part->order == 0);
    EXPECT_EQ(part->slot(), part == group.back() ? merge.last_slot : 2 * part->warp + 1);
    warps.insert(part->warp);
  }
  EXPECT_EQ(warps.size(), group.size());
  EXPECT_EQ(*warps.begin(), merge.first_warp);
  EXPECT_EQ(*warps.rbegin(), merge.first_warp + merge.warps - 1);
  EXPECT_EQ(static_cast<int>(warps.size()), merge.warps);
}

void check_partials(const DecodedPlan& plan, const DecodePlanShape& shape,
                    const std::map<int, Part>& parts, const RowHead& which, std::set<int>* pieces) {
  std::map<int, std::vector<const Part*>> by_block;
  for (const auto& [unit, part] : parts) by_block[part.block].push_back(&part);
  std::set<int> own;  // pieces
  for (const auto& [block, group] : by_block) {
    const DecodeMerge* merge = merge_of(plan, block, which);
    const bool is_last = block == by_block.rbegin()->first;
    if (shape.split > 0) {
      EXPECT_EQ(merge != nullptr, is_last);
      const DecodeRun& row = *group.front()->segment.record;
      const int to_head = (row.units + shape.split - 1) / shape.split;
      for (const Part* part : group)
        EXPECT_TRUE(
            own.insert(row.first_piece + which.second * to_head + part->segment.unit / shape.split)
                .second);
      if (merge != nullptr) {
        EXPECT_EQ(merge->warps, 0);
      }
    } else {
      ASSERT_NE(merge, nullptr);
      check_slots(*merge, group);
      EXPECT_EQ(merge->piece < 0, by_block.size() == 1);
      if (merge->piece >= 0) {
        EXPECT_TRUE(own.insert(merge->piece).second);
      }
    }
    // Who waits for others stands behind them in the grid.
    if (merge != nullptr && !is_last) {
      EXPECT_EQ(merge->end_piece - merge->first_piece, 0);
    }
  }
  const DecodeMerge* merge = merge_of(plan, by_block.rbegin()->first, which);
  ASSERT_NE(merge, nullptr);
  EXPECT_EQ(static_cast<int>(own.size()), merge->end_piece - merge->first_piece);
  if (!own.empty()) {
    EXPECT_EQ(*own.begin(), merge->first_piece);
    EXPECT_EQ(*own.rbegin(), merge->end_piece - 1);
  }
  for (const int piece : own) EXPECT_TRUE(pieces->insert(piece).second && piece < plan.pieces());
}

void check(const std::vector<int>& contexts, const DecodePlanShape& shape) {
  SCOPED_TRACE(::testing::Message() << contexts.size() << " rows, " << shape.heads << " heads, "
                                    << shape.blocks << " blocks, split " << shape.split);
  const std::vector<DecodeRow> rows = rows_of(contexts);
  const DecodedPlan plan(rows, shape);
  const auto parts = parts_of(plan, shape);
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
        next += part.segment.count;
        EXPECT_EQ(part.segment.record->cache_units, units.cache);
        EXPECT_EQ(part.segment.record->units, units.all());
        const int before =
            units.open > 0 ? units.cache * shape.unit_tokens + (units.open - 1) * shape.open_tokens
                           : (units.cache - 1) * shape.unit_tokens;
        EXPECT_EQ(part.segment.record->tail, contexts[row] - before);
      }
      EXPECT_EQ(next, units.all());
      if (found->second.size() == 1)
        EXPECT_TRUE(found->second.begin()->second.whole);
      else
        check_partials(plan, shape, found->second, found->first, &pieces);
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

// Copies of units are multiples of 16 bytes at multiples of them; what a warp has in shared memory limits their size.
TEST(DecodePlan, UnitsSuitTheirBytes) {
  struct Cache {
    int key_bits, value_bits, units[4];  // tokens of a unit with head_dim 64, 96, 128, 256
  };
  constexpr int kDims[] = {64, 96, 128, 256};
  for (const Cache& c : {Cache{4, 4, {64, 64, 64, 32}},
                         {8, 4, {64, 64, 64, 32}},
                         {8, 8, {64, 64, 64, 16}},
                         {16, 16, {64, 32, 32, 16}}})
    for (int i = 0; i < 4; ++i) {
      const int dim = kDims[i], tokens = decode_unit_tokens(c.key_bits, c.value_bits, dim);
      SCOPED_TRACE(::testing::Message() << dim << " dims of " << c.key_bits << " bits");
      EXPECT_TRUE(has_attention(dim));
      EXPECT_EQ(tokens, c.units[i]);
      for (const int bits : {c.key_bits, c.value_bits}) {
        EXPECT_EQ(tokens * dim * bits / 8 % 16, 0);
        EXPECT_LE(decode_open_tokens(dim) * (dim + 4),
                  c.value_bits == 4 ? tokens * (dim * bits / 8 + 4) : 1 << 20);
      }
    }
  EXPECT_FALSE(has_attention(80));
}

TEST(DecodePlan, TakesNothingForNothing) {
  EXPECT_EQ(DecodedPlan({}, {.heads = 4, .blocks = 8}).blocks(), 0);
  EXPECT_EQ(DecodedPlan(rows_of({0, 0}), {.heads = 4, .blocks = 8}).blocks(), 0);
}

// 64 rows of 16 pages for 8 heads on 132 blocks: 128 blocks with 4 rows and heads each need no merging across blocks.
TEST(DecodePlan, EndsBlocksAtEndsOfRows) {
  const DecodedPlan plan(rows_of(std::vector<int>(64, 1024)), {.heads = 8, .blocks = 132});
  EXPECT_EQ(plan.blocks(), 128);
  for (int block = 0; block < 132; ++block)
    for (const DecodeMerge& merge : plan.merges(block)) EXPECT_LT(merge.piece, 0);
}

// With `split` the cuts of a row are those of its length alone.
TEST(DecodePlan, SplitsARowAlikeInEveryBatch) {
  const auto cuts = [](const std::vector<int>& contexts) {
    const DecodePlanShape shape{.heads = 2, .blocks = 20, .split = 3};
    const DecodedPlan plan(rows_of(contexts), shape);
    std::vector<std::pair<int, int>> found;
    auto parts = parts_of(plan, shape);
    for (const auto& [unit, part] : parts[{0, 1}]) found.push_back({unit, part.segment.count});
    return found;
  };
  EXPECT_EQ(cuts({2000}), cuts({2000, 5, 300, 4000}));
}

TEST(DecodePlan, KnowsTheFirstPages) {
  std::vector<int32_t> ids(40);
  for (int i = 0; i < 40; ++i) ids[static_cast<size_t>(i)] = 100 + i;
  const std::vector<DecodeRow> rows = {{.context = 40 * 64, .ids = ids.data()}, {.context = 640}};
  const DecodePlanShape shape{.heads = 2, .blocks = 3};
  const DecodedPlan plan(rows, shape);
  const auto all = parts_of(plan, shape);
  for (const auto& [which, parts] : all)
    for (const auto& [unit, part] : parts) {
      EXPECT_TRUE(part.segment.knows_ids);
      for (int i = 0; i < 4; ++i) {
        const bool known = which.first == 0 && unit + i < 40;
        EXPECT_EQ(part.segment.record->ids[i], known ? 100 + unit + i : -1);
      }
    }
}

}  // namespace
}  // namespace atom::backend::cuda::hopper
