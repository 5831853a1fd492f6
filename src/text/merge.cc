#include "text/merge.h"

#include <algorithm>
#include <functional>

#include "base/error.h"

namespace atom::text {
namespace {

// Up to here a scan for the minimum beats the queue.
constexpr size_t kShortWord = 32;

constexpr uint32_t kNoMerge = PairMap::kNone;

}  // namespace

void Merger::run(const MergeTable& table, std::vector<int32_t>& symbols) {
  check(symbols.size() < UINT32_MAX, "a word has less than 2^32 symbols");
  if (symbols.size() < 2) return;
  if (symbols.size() <= kShortWord) {
    run_short(table, symbols);
  } else {
    run_long(table, symbols);
  }
}

void Merger::run_short(const MergeTable& table, std::vector<int32_t>& symbols) {
  uint32_t rank[kShortWord];
  size_t pairs = symbols.size() - 1;
  for (size_t i = 0; i < pairs; ++i) rank[i] = table.rank(symbols[i], symbols[i + 1]);
  while (pairs > 0) {
    const size_t best = static_cast<size_t>(std::min_element(rank, rank + pairs) - rank);
    if (rank[best] == kNoMerge) break;
    symbols[best] = table.token(rank[best], symbols[best], symbols[best + 1]);
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    std::copy(rank + best + 1, rank + pairs, rank + best);
    --pairs;
    if (best > 0) rank[best - 1] = table.rank(symbols[best - 1], symbols[best]);
    if (best < pairs) rank[best] = table.rank(symbols[best], symbols[best + 1]);
  }
}

void Merger::run_long(const MergeTable& table, std::vector<int32_t>& symbols) {
  // A doubly linked list over positions; a merge keeps the left position and drops the right one. A
  // queue entry is stale when its position no longer starts a pair of that rank.
  const auto count = static_cast<uint32_t>(symbols.size());
  rank_.assign(count, kNoMerge);
  next_.resize(count);
  previous_.resize(count);
  queue_.clear();
  for (uint32_t i = 0; i < count; ++i) {
    next_[i] = i + 1;
    previous_[i] = i - 1;
    if (i + 1 == count) break;
    rank_[i] = table.rank(symbols[i], symbols[i + 1]);
    if (rank_[i] != kNoMerge) queue_.push_back(uint64_t{rank_[i]} << 32 | i);
  }
  const std::greater<> smallest_on_top;
  std::make_heap(queue_.begin(), queue_.end(), smallest_on_top);

  const auto renew = [&](uint32_t at) {
    rank_[at] = table.rank(symbols[at], symbols[next_[at]]);
    if (rank_[at] == kNoMerge) return;
    queue_.push_back(uint64_t{rank_[at]} << 32 | at);
    std::push_heap(queue_.begin(), queue_.end(), smallest_on_top);
  };
  while (!queue_.empty()) {
    std::pop_heap(queue_.begin(), queue_.end(), smallest_on_top);
    const uint64_t top = queue_.back();
    queue_.pop_back();
    const auto at = static_cast<uint32_t>(top);
    const auto rank = static_cast<uint32_t>(top >> 32);
    if (rank_[at] != rank) continue;
    const uint32_t right = next_[at];
    symbols[at] = table.token(rank, symbols[at], symbols[right]);
    symbols[right] = -1;
    rank_[at] = rank_[right] = kNoMerge;
    next_[at] = next_[right];
    if (next_[at] < count) {
      previous_[next_[at]] = at;
      renew(at);
    }
    if (at > 0) renew(previous_[at]);
  }
  std::erase(symbols, -1);
}

}  // namespace atom::text
