#include "backend/cuda/hopper_prefill_plan.h"

#include <algorithm>

namespace atom::backend::cuda::hopper {
namespace {

// The parts of one page: rows [row, row + count). The fewer positions, the more heads a part takes.
void add_parts(const PrefillPart& page, int group, std::vector<PrefillPart>& parts) {
  PrefillPart part = page;
  while (1 << part.shift < part.count) ++part.shift;
  const int heads = kPrefillRows >> part.shift;
  for (part.head = 0; part.head < group; part.head += heads) {
    part.heads = std::min(heads, group - part.head);
    parts.push_back(part);
  }
}

}  // namespace

std::vector<PrefillTile> plan_prefill(std::span<const PrefillSequence> sequences, int group) {
  std::vector<PrefillTile> tiles;
  std::vector<PrefillPart> parts;
  for (const PrefillSequence& s : sequences) {
    parts.clear();
    for (int row = 0; row < s.rows;) {
      const int position = s.position + row;
      const int count = std::min(s.rows - row, kPrefillTokens - position % kPrefillTokens);
      add_parts({.page = position / kPrefillTokens,
                 .row = s.first_row + row,
                 .position = position,
                 .count = count},
                group, parts);
      row += count;
    }
    for (size_t i = 0; i < parts.size(); i += 2) {
      PrefillTile tile{.page_table = s.page_table,
                       .open_page = s.open_page,
                       .first_row = s.first_row,
                       .first_position = s.position,
                       .last_position = s.position + s.rows - 1,
                       .part = {parts[i], {.page = parts[i].page}}};
      if (i + 1 < parts.size()) tile.part[1] = parts[i + 1];
      tiles.push_back(tile);
    }
  }
  std::stable_sort(tiles.begin(), tiles.end(), [](const PrefillTile& a, const PrefillTile& b) {
    return a.units() > b.units();
  });
  return tiles;
}

}  // namespace atom::backend::cuda::hopper
