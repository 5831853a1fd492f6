// Byte-pair merging of one word (Sennrich et al. 2016): joins the pair of lowest rank, the leftmost
// of equal ones, until no pair has a rank. O(n log n) in the number of symbols.
//
//   MergeTable table(rank_count);
//   table.add(a, b, {.rank = 0, .token = ab});
//   Merger merger;                             // scratch of one thread
//   merger.run(table, symbols);                // in place, shrinks
#pragma once

#include <cstdint>
#include <vector>

#include "text/pair_map.h"

namespace atom::text {

class MergeTable {
 public:
  struct Merge {
    uint32_t rank;
    int32_t token;
  };
  explicit MergeTable(size_t count = 0) : ranks_(count), token_(count, -1) {}

  // rank < count. The last rank of a pair counts. Merges of one rank must give one token, unless
  // share_ranks() was called.
  void add(int32_t a, int32_t b, Merge merge) {
    ranks_.assign(a, b, merge.rank);
    token_[merge.rank] = merge.token;
    if (shared_) tokens_.assign(a, b, static_cast<uint32_t>(merge.token));
  }
  // Before the first add: merges of one rank may give different tokens.
  void share_ranks() {
    shared_ = true;
    tokens_ = PairMap(token_.size());
  }
  uint32_t rank(int32_t a, int32_t b) const {
    return ranks_.find(a, b);
  }  // PairMap::kNone: no merge
  // Of the merge of a and b, which has that rank.
  int32_t token(uint32_t rank, int32_t a, int32_t b) const {
    return shared_ ? static_cast<int32_t>(tokens_.find(a, b)) : token_[rank];
  }

 private:
  PairMap ranks_;
  PairMap tokens_;  // used when ranks are shared
  bool shared_ = false;
  std::vector<int32_t> token_;  // by rank
};

class Merger {
 public:
  // symbols.size() < 2^32.
  void run(const MergeTable& table, std::vector<int32_t>& symbols);

 private:
  void run_short(const MergeTable& table, std::vector<int32_t>& symbols);
  void run_long(const MergeTable& table, std::vector<int32_t>& symbols);

  std::vector<uint32_t> rank_;  // of the pair that starts at a position; PairMap::kNone: none
  std::vector<uint32_t> next_;
  std::vector<uint32_t> previous_;
  std::vector<uint64_t> queue_;  // rank << 32 | position, a heap with the smallest on top
};

}  // namespace atom::text
