// Attention of a step with several rows a sequence on Hopper (sm_90a): chunks of prompts, alone or beside decoding rows,
// whose K and V are stored already (in int8 too, with open pages: AttentionTask::fresh).
//
//   const std::vector<PrefillTile> tiles = plan_prefill(sequences, heads / kv_heads);  // hopper_prefill_plan.h
//   launch_store_kv(task, stream);                // task.queries asks for PrefillTask::queries
//   hopper::launch_prefill({.queries = ..., .cache = task.cache, .tiles = tiles on the device, ...}, stream);
//
// Queries, weights, K and V are rounded to f16, sums are f32: a result differs from the plain kernel's by roundings of
// 2^-11. A row's bits depend on its own position and cache alone, not on the chunk or the batch.
#pragma once

#include <cstdint>

#include "backend/cuda/tasks.h"

namespace atom::backend::cuda::hopper {

inline constexpr int kPrefillTokens = 64;  // of a page, and the most positions of a part
inline constexpr int kPrefillRows = 64;    // of a part: positions times query heads

// Positions of one page of a sequence and query heads of one group, as the rows of a warpgroup: row i is position
// `position` + i % 2^shift and head `head` + i / 2^shift. count 0: nothing.
struct PrefillPart {
  int32_t page = 0;      // of the sequence
  int32_t row = 0;       // of the step, that of `position`
  int32_t position = 0;  // in the sequence
  int32_t count = 0;     // positions, at most 2^shift
  int32_t shift = 0;
  int32_t head = 0;   // within the group
  int32_t heads = 0;  // heads << shift is at most kPrefillRows
  int32_t unused = 0;
};

// What a CTA does for each KV head: two parts of one sequence, the second of the same page as the first or of the next.
struct alignas(16) PrefillTile {
  const int32_t* page_table = nullptr;  // device memory
  int32_t open_page = 0;
  int32_t first_row = 0;  // of the sequence in the step, and its positions: earlier ones are in
  int32_t first_position = 0;  // the open page, later ones in PrefillTask::fresh
  int32_t last_position = 0;
  PrefillPart part[2];
  int32_t units() const { return part[1].page + 1; }  // pages that it reads, about
};

struct PrefillTask {
  const uint8_t* queries = nullptr;  // as DecodeTask::queries
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  KvView cache;
  int has_open_page = 0;
  KvView open;
  const uint8_t* fresh = nullptr;  // AttentionTask::fresh
  int64_t fresh_bytes = 0;         // prefill_fresh_bytes()
  const PrefillTile* tiles = nullptr;
  int tile_count = 0;
  float* y = nullptr;  // [rows, heads * head_dim]
};
constexpr int64_t prefill_fresh_bytes(int head_dim) {
  return (int64_t{head_dim} + 4 + 15) / 16 * 16;
}
// Whether there is a kernel for the task: the caches, pages and head_dims of can_decode().
bool can_prefill(const PrefillTask& task);
Status launch_prefill(const PrefillTask& task, Stream stream);

}  // namespace atom::backend::cuda::hopper
