// The host's tiles of a step: every row and head is computed once, by parts that the kernel can take.
#include "backend/cuda/hopper_prefill_plan.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <utility>

namespace atom::backend::cuda::hopper {
namespace {

std::vector<PrefillSequence> sequences_of(const std::vector<std::pair<int, int>>& chunks) {
  std::vector<PrefillSequence> sequences;
  static const int32_t kTable[64] = {};
  int row = 0, index = 0;
  for (const auto& [position, rows] : chunks) {
    sequences.push_back({.page_table = kTable + index,
                         .first_row = row,
                         .rows = rows,
                         .position = position,
                         .open_page = 7 * index});
    row += rows;
    ++index;
  }
  return sequences;
}

void check_part(const PrefillPart& part, const PrefillTile& tile, int group) {
  EXPECT_LE(part.count, 1 << part.shift);
  EXPECT_LT(part.count, 2 << part.shift);
  EXPECT_LE(part.heads << part.shift, kPrefillRows);
  EXPECT_LE(part.head + part.heads, group);
  EXPECT_EQ(part.page, part.position / kPrefillTokens);
  EXPECT_EQ(part.page, (part.position + part.count - 1) / kPrefillTokens);
  EXPECT_EQ(part.row - tile.first_row, part.position - tile.first_position);
  EXPECT_LE(part.position + part.count - 1, tile.last_position);
}

// (row, head) -> how often.
std::map<std::pair<int, int>, int> computed(const std::vector<PrefillTile>& tiles, int group) {
  std::map<std::pair<int, int>, int> times;
  int before = 1 << 30;
  for (const PrefillTile& tile : tiles) {
    EXPECT_LE(tile.units(), before);
    before = tile.units();
    EXPECT_TRUE(tile.part[1].page == tile.part[0].page ||
                tile.part[1].page == tile.part[0].page + 1);
    EXPECT_GT(tile.part[0].count, 0);
    for (const PrefillPart& part : tile.part) {
      if (part.count == 0) continue;
      check_part(part, tile, group);
      for (int i = 0; i < part.count; ++i)
        for (int head = 0; head < part.heads; ++head) ++times[{part.row + i, part.head + head}];
    }
  }
  return times;
}

TEST(PrefillPlan, ComputesEveryRowAndHeadOnce) {
  std::mt19937 random(1);
  std::vector<std::vector<std::pair<int, int>>> steps = {
      {{0, 1}}, {{0, 64}}, {{0, 65}}, {{63, 2}, {64, 64}, {100, 0}, {1000, 1}}};
  steps.emplace_back();
  for (int i = 0; i < 20; ++i)
    steps.back().emplace_back(static_cast<int>(random() % 300), static_cast<int>(random() % 300));
  for (const int group : {1, 2, 3, 4, 8, 9, 80})
    for (const auto& step : steps) {
      const std::vector<PrefillSequence> sequences = sequences_of(step);
      const auto times = computed(plan_prefill(sequences, group), group);
      size_t rows = 0;
      for (const auto& [position, count] : step) rows += static_cast<size_t>(count);
      EXPECT_EQ(times.size(), rows * static_cast<size_t>(group));
      for (const auto& [vector, count] : times) EXPECT_EQ(count, 1) << vector.first;
    }
}

// Rows of int8 hold codes and {lo, step}, and begin where copies of 16 bytes may.
TEST(PrefillPlan, RowsOfTheStepAreWholeCopies) {
  for (const int dim : {64, 96, 128, 256}) {
    EXPECT_EQ(prefill_fresh_bytes(dim) % 16, 0);
    EXPECT_GE(prefill_fresh_bytes(dim), dim + 4);
    EXPECT_LT(prefill_fresh_bytes(dim), dim + 4 + 16);
  }
}

TEST(PrefillPlan, KnowsItsSequence) {
  const std::vector<PrefillSequence> sequences = sequences_of({{10, 3}, {70, 200}});
  for (const PrefillTile& tile : plan_prefill(sequences, 2)) {
    const PrefillSequence& s = sequences[tile.first_row == 0 ? 0 : 1];
    EXPECT_EQ(tile.page_table, s.page_table);
    EXPECT_EQ(tile.open_page, s.open_page);
    EXPECT_EQ(tile.first_row, s.first_row);
    EXPECT_EQ(tile.first_position, s.position);
    EXPECT_EQ(tile.last_position, s.position + s.rows - 1);
  }
}

// Few positions: the heads of a group fill the rows.
TEST(PrefillPlan, PacksHeads) {
  const auto tiles = plan_prefill(sequences_of({{128, 5}}), 8);
  ASSERT_EQ(tiles.size(), 1u);
  EXPECT_EQ(tiles[0].part[0].shift, 3);
  EXPECT_EQ(tiles[0].part[0].heads, 8);
  EXPECT_EQ(tiles[0].part[1].count, 0);
  EXPECT_EQ(tiles[0].part[1].page, 2);
}

}  // namespace
}  // namespace atom::backend::cuda::hopper
