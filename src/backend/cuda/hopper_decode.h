// Attention of a decoding step on Hopper (sm_90a): one row a sequence, the newest position, whose K and V are stored
// already. Every page of the step is read once, by the warps that the host's plan (hopper_decode_plan.h) gives it to.
//
//   launch_store_kv(task, stream);                // task.queries asks for DecodeTask::queries
//   hopper::launch_decode({.queries = ..., .cache = task.cache, .blocks = plan.blocks, ...}, stream);
//
// Queries and weights are rounded to f16, sums are f32: a result differs from the plain kernel's by roundings of 2^-11.
// The same plan and input give the same bits; where a row is cut, and so its last bits, depends on the batch.
#pragma once

#include <cstdint>

#include "backend/cuda/tasks.h"

namespace atom::backend::cuda::hopper {

inline constexpr int kDecodeWarps = 8;    // of a block
inline constexpr int kDecodeTokens = 64;  // of a page
inline constexpr int kDecodeColumns = 8;  // query heads that share a pass over a KV head

// Reads are dealt out in units: as many tokens of a page and head, a power of two, as suit the kernel's shared memory.
constexpr int decode_unit_tokens(int key_bits, int value_bits, int head_dim) {
  const int enough = head_dim > 128 ? 8192 : 16384;  // bytes of K and V
  int tokens = 16;
  while (tokens < kDecodeTokens && tokens * (key_bits + value_bits) * head_dim / 8 < enough)
    tokens *= 2;
  return tokens;
}
constexpr int decode_open_tokens(int head_dim) { return head_dim > 128 ? 16 : 32; }

inline constexpr int32_t kDecodeWhole = -1;  // y
inline constexpr int32_t kDecodePiece = -2;

// Consecutive units of one row and head. Segment w is the first of warp w of the grid; count 0: the warp is idle.
struct alignas(16) DecodeSegment {
  int32_t row = 0;
  int32_t head = 0;  // KV head * passes + pass
  int32_t unit = 0;
  int32_t count = 0;
  int32_t cache_units = 0;  // of the row; those behind are in its open page
  int32_t tail = 0;         // tokens of the segment's last unit
  int32_t open_page = 0;
  int32_t place = kDecodeWhole;  // of its result, or slot 2 w (the first of warp w of the block) or
                                 // 2 w + 1 (its last)
  const int32_t* page_table = nullptr;
  int32_t piece = -1;                 // kDecodePiece: which
  int32_t next = -1;                  // the warp's next segment
  int32_t ids[4] = {-1, -1, -1, -1};  // of its first pages, where the host knows them
};

// What a block makes of partial results of a row and head. `warps` warps from first_warp on have one each, in the slot
// of their last segments, that of the last warp in last_slot. They become a piece or, without one, y; the last of the
// `arrivals` blocks makes y of pieces [first_piece, end_piece).
struct alignas(16) DecodeMerge {
  int32_t row = 0;
  int32_t head = 0;
  int32_t first_warp = 0, warps = 0;
  int32_t last_slot = 0;
  int32_t piece = -1;
  int32_t first_piece = 0, end_piece = 0;
  int32_t counter = 0;
  int32_t arrivals = 0;
  int32_t unused[2] = {};
};

struct DecodeTask {
  // [rows, heads]: f16 [head_dim], each head times a power of two; then two f32, what a score has to be multiplied
  // with to be one of base 2, and the sum of the f16; then 8 bytes unused.
  const uint8_t* queries = nullptr;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int group = 1;   // query heads a KV head
  int passes = 1;  // decode_passes()
  KvView cache;
  int has_open_page = 0;
  KvView open;
  int blocks = 0;
  const DecodeSegment* segments = nullptr;
  const DecodeMerge* merges = nullptr;
  const int32_t* merge_ends =
      nullptr;                   // [blocks]: block b has merges [merge_ends[b - 1], merge_ends[b])
  float* pieces = nullptr;       // [pieces, decode_piece_floats()]
  uint32_t* counters = nullptr;  // zero before and after
  int overlap = 0;  // begin while the kernel before ends: it wrote none of the pages but the last
  float* y = nullptr;  // [rows, heads * head_dim]
};
constexpr int64_t decode_query_bytes(int head_dim) { return 2 * int64_t{head_dim} + 16; }
constexpr int64_t decode_piece_floats(int head_dim) {
  return kDecodeColumns * (int64_t{head_dim} + 4);
}
// Query heads of a KV head go through it kDecodeColumns at a time.
constexpr int decode_passes(int heads, int kv_heads) {
  return (heads / kv_heads + kDecodeColumns - 1) / kDecodeColumns;
}
// Whether there is a kernel for the task: head_dim 64, 128 or 256; pages of kDecodeTokens; K and V of 16, 8 or 4 bits
// alike, or of 8 and 4; an open page beside V of 4 bits only.
bool can_decode(const DecodeTask& task);
Status launch_decode(const DecodeTask& task, Stream stream);

}  // namespace atom::backend::cuda::hopper
