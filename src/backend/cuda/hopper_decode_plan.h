// Who reads what in a decoding step (DecodeTask), decided on the host: a pure function of the context lengths, the
// number of heads and the number of blocks. The plan is the same for all layers that share the page tables.
//
//   const DecodePlan plan = plan_decode(rows, {.heads = 8, .unit_tokens = 64, .blocks = 132});
//   // upload plan.segments, plan.merges, plan.merge_ends; room for plan.pieces and plan.counters (zeroed once)
//
// The fast plan deals equal numbers of units to the warps and moves the ends of blocks to ends of sequences where that
// costs little; how a row is split, and with it the last bits of its result, then depends on the batch. With `split`
// every row is cut at multiples of that many units, whatever the batch.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/cuda/hopper_decode.h"

namespace atom::backend::cuda::hopper {

struct DecodeRow {
  int context = 0;  // tokens, the newest included; 0: y of the row is left as it is
  const int32_t* page_table = nullptr;  // device memory
  const int32_t* ids = nullptr;         // the same on the host, may be null
  int open_page = 0;
};

struct DecodePlanShape {
  int heads = 0;         // KV heads * decode_passes()
  int unit_tokens = 64;  // decode_unit_tokens() of the cache
  int open_tokens = 32;  // decode_open_tokens()
  bool open_page = false;
  int blocks = 0;  // at most; the multiprocessors of the device
  int split = 0;   // units; 0: the fast plan
  bool operator==(const DecodePlanShape&) const = default;
};

struct DecodePlan {
  int blocks = 0;
  std::vector<DecodeSegment> segments;  // the first of each warp, then the others
  std::vector<DecodeMerge> merges;
  std::vector<int32_t> merge_ends;  // [blocks]
  int pieces = 0;
  int counters = 0;
};

// Row i of the step is rows[i].
DecodePlan plan_decode(std::span<const DecodeRow> rows, const DecodePlanShape& shape);

// Units of one head of a row: those of the cache, then those of the open page.
struct DecodeUnits {
  int cache = 0;
  int open = 0;
  int all() const { return cache + open; }
};
DecodeUnits decode_units(int context, const DecodePlanShape& shape);

}  // namespace atom::backend::cuda::hopper
