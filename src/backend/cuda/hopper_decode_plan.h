// Who reads what in a decoding step (DecodeTask), decided on the host: a pure function of the context lengths, the
// number of heads and the number of blocks. The plan is the same for all layers that share the page tables.
//
//   const DecodePlanLayout layout = decode_plan_layout(shape, {.rows = 64, .units = ...});  // once
//   const size_t bytes = plan_decode(rows, shape, layout, host);                            // each step
//   // copy `bytes` from `host` to device memory of layout.bytes; layout.set(device, &task)
//
// The fast plan deals equal shares of the work to the warps and moves the ends of blocks to ends of sequences where that
// costs little; how a row is split, and with it the last bits of its result, then depends on the batch. With `split`
// every row is cut at multiples of that many units, whatever the batch.
#pragma once

#include <cstdint>
#include <span>

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
  int blocks = 0;  // of the grid; the multiprocessors of the device
  int split = 0;   // units; 0: the fast plan
  bool operator==(const DecodePlanShape&) const = default;
};

// Where the parts of a plan lie in its memory, in bytes: the same for every step of at most these rows.
struct DecodePlanLayout {
  int blocks = 0;
  int split = 0;
  int rows = 0;
  int64_t block_merges = 0, merges = 0;  // the runs come first
  int64_t bytes = 0;
  int64_t pieces = 0;  // at most

  // Points to a plan in device memory.
  void set(const void* plan, DecodeTask* task) const;
};
struct DecodePlanLimits {
  int rows = 0;       // with a context
  int64_t units = 0;  // of one head of all rows; for plans with `split` only
};
DecodePlanLayout decode_plan_layout(const DecodePlanShape& shape, const DecodePlanLimits& limits);

// Row i of the step is rows[i]. Writes to `plan`, which has layout.bytes and is a multiple of 16; returns how many of
// them count. Some 5 us for one row, 20 for 2048 rows and heads.
int64_t plan_decode(std::span<const DecodeRow> rows, const DecodePlanShape& shape,
                    const DecodePlanLayout& layout, void* plan);

// Units of one head of a row: those of the cache, then those of the open page.
struct DecodeUnits {
  int cache = 0;
  int open = 0;
  int all() const { return cache + open; }
};
DecodeUnits decode_units(int context, const DecodePlanShape& shape);

}  // namespace atom::backend::cuda::hopper
