// Attention of a decoding step on Hopper (sm_90a): one row a sequence, the newest position, whose K and V are stored
// already. Every page of the step is read once, by the warps that the host's plan (hopper_decode_plan.h) gives it to.
//
//   launch_store_kv(task, stream);                // task.queries asks for DecodeTask::queries
//   hopper::launch_decode({.queries = ..., .cache = task.cache, .runs = ..., ...}, stream);
//
// Queries and weights are rounded to f16, sums are f32: a result differs from the plain kernel's by roundings of 2^-11.
// The same plan and input give the same bits; where a row is cut, and so its last bits, depends on the batch.
//
// A launch depends on the step in what its pointers point to alone: a CUDA graph of it can be replayed with another
// plan, other contexts and tables in the same memory.
#pragma once

#include <cstdint>

#include "backend/cuda/tasks.h"

namespace atom::backend::cuda::hopper {

inline constexpr int kDecodeWarps = 8;    // of a block
inline constexpr int kDecodeTokens = 64;  // of a page
inline constexpr int kDecodeColumns = 8;  // query heads that share a pass over a KV head

// Whether decode, prefill and store kernels exist for vectors of this size.
constexpr bool has_attention(int head_dim) {
  return head_dim == 64 || head_dim == 96 || head_dim == 128 || head_dim == 256;
}

// Reads are dealt out in units: as many tokens of a page and head, a power of two, as suit the kernel's shared memory.
constexpr int decode_unit_tokens(int key_bits, int value_bits, int head_dim) {
  const int most = head_dim > 128 ? 12288 : 16384;  // bytes of K and V
  int tokens = 16;
  while (tokens < kDecodeTokens && 2 * tokens * (key_bits + value_bits) * head_dim / 8 <= most)
    tokens *= 2;
  return tokens;
}
constexpr int decode_open_tokens(int head_dim) { return head_dim > 128 ? 16 : 32; }

// Who reads what: device memory that the host fills before each step (hopper_decode_plan.h). A warp reads a run of
// consecutive units, in the order of rows, heads and positions. Record w of `runs` is that of warp w of the grid; those of
// the rows with a context follow, in order, as runs that begin at head 0 and unit 0.
struct alignas(16) DecodeRun {
  int32_t row = 0;
  int32_t head = 0;         // KV head * passes + pass
  int32_t unit = 0;         // of the row and head
  int32_t count = 0;        // units of the run, also of heads and rows behind; 0: the warp is idle
  int32_t cache_units = 0;  // of the row; those behind are in its open page
  int32_t units = 0;        // of the row
  int32_t tail = 0;         // tokens of its last unit
  int32_t open_page = 0;
  const int32_t* page_table = nullptr;
  int32_t record = 0;                 // of the row, in `runs`
  int32_t first_piece = 0;            // of the row's (DecodeTask::split)
  int32_t ids[4] = {-1, -1, -1, -1};  // of the run's first pages, where the host knows them
};

// What a block makes of partial results of a row and head. `warps` warps from first_warp on have one each, in the slot
// of their last segments, that of the last warp in last_slot: 2 w of the first segment of warp w of the block, 2 w + 1 of its
// last. They become a piece or, without one, y. The block that has pieces [first_piece, end_piece) makes y of them.
struct alignas(16) DecodeMerge {
  int32_t row = 0;
  int32_t head = 0;
  int32_t first_warp = 0, warps = 0;
  int32_t last_slot = 0;
  int32_t piece = -1;
  int32_t first_piece = 0, end_piece = 0;
};
struct alignas(16) DecodeMerges {  // of a block
  int32_t begin = 0, count = 0;
  int32_t finished = 0;  // of these, the first ones: they have pieces to make y of
  int32_t unused = 0;
};

struct DecodeTask {
  // [rows, heads]: f16 [head_dim], each head times a power of two from 2^-100 to 2^100; then two f32, what a score has to
  // be multiplied with to be one of base 2, and the sum of the f16; then 8 bytes unused. A head with a NaN, an infinity or a
  // value of kMostQuery or more, which would not fit f16, is zeros and the f32 NaN: its y is NaN.
  const uint8_t* queries = nullptr;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int group = 1;   // query heads a KV head
  int passes = 1;  // decode_passes()
  KvView cache;
  int has_open_page = 0;
  KvView open;
  int blocks = 0;  // of the plan, which may leave some without work; no more than run at once
  int split = 0;   // of the plan
  const DecodeRun* runs = nullptr;
  const DecodeMerges* block_merges = nullptr;  // [blocks]
  const DecodeMerge* merges = nullptr;
  float* pieces = nullptr;  // [pieces, decode_piece_floats()], every byte 0xff before and after
  int overlap = 0;  // begin while the kernel before ends: it wrote none of the pages but the last
  float* y = nullptr;  // [rows, heads * head_dim]
};
inline constexpr float kMostQuery = 4.15383749e34f;  // 2^115
constexpr int64_t decode_query_bytes(int head_dim) { return 2 * int64_t{head_dim} + 16; }
constexpr int64_t decode_piece_floats(int head_dim) {
  return kDecodeColumns * (int64_t{head_dim} + 4);
}
// Query heads of a KV head go through it kDecodeColumns at a time.
constexpr int decode_passes(int heads, int kv_heads) {
  return (heads / kv_heads + kDecodeColumns - 1) / kDecodeColumns;
}
// Whether there is a kernel for the task: has_attention(); pages of kDecodeTokens; K and V of 16, 8 or 4 bits
// alike, or of 8 and 4; an open page beside V of 4 bits only.
bool can_decode(const DecodeTask& task);
Status launch_decode(const DecodeTask& task, Stream stream);

}  // namespace atom::backend::cuda::hopper
