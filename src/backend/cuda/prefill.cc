// Attention of sequences with several rows by the kernel of hopper_prefill.h. The tiles are made and uploaded once for the
// layers that share them.
#include <cuda_runtime_api.h>

#include <vector>

#include "backend/cuda/cuda_backend.h"
#include "base/error.h"

namespace atom::backend::cuda {

hopper::PrefillTask CudaBackend::prefill_task(const AttentionTask& task) {
  return {.heads = task.heads,
          .kv_heads = task.kv_heads,
          .head_dim = task.head_dim,
          .cache = task.cache,
          .has_open_page = task.has_open_page,
          .open = task.open,
          .y = task.y};
}

void CudaBackend::prefill(const AttentionTask& task) {
  hopper::PrefillTask p = prefill_task(task);
  upload_tiles(task.heads / task.kv_heads, task.single_rows_apart != 0, &p);
  p.queries = task.queries;
  p.fresh = task.fresh;
  p.fresh_bytes = task.fresh_bytes;
  require(hopper::launch_prefill(p, stream_), "attention of a prompt");
  if (task.has_open_page != 0) require(launch_keep_open_pages(task, stream_), "keeping open pages");
}

void CudaBackend::upload_tiles(int group, bool without_single_rows, hopper::PrefillTask* task) {
  if (tiles_.step != step_.number || tiles_.group != group ||
      tiles_.without_single_rows != without_single_rows) {
    std::vector<hopper::PrefillSequence> sequences;
    for (const hopper::PrefillSequence& s : step_.sequences)
      if (s.rows != 1 || !without_single_rows) sequences.push_back(s);
    const std::vector<hopper::PrefillTile> tiles = hopper::plan_prefill(sequences, group);
    const size_t bytes = tiles.size() * sizeof(hopper::PrefillTile);
    tiles_.step = 0;  // of none, should the memory not suffice
    tiles_.memory.reserve(bytes);
    staging_.copy(tiles_.memory.as<char>(), tiles.data(), bytes, stream_);
    tiles_.step = step_.number;
    tiles_.group = group;
    tiles_.without_single_rows = without_single_rows;
    tiles_.count = static_cast<int>(tiles.size());
  }
  task->tiles = tiles_.memory.as<hopper::PrefillTile>();
  task->tile_count = tiles_.count;
}

}  // namespace atom::backend::cuda
