// Attention of a step with several rows a sequence by the kernel of hopper_prefill.h. The tiles are made and uploaded once for
// the layers that share them.
#include <cuda_runtime_api.h>

#include <vector>

#include "backend/cuda/cuda_backend.h"
#include "base/error.h"

namespace atom::backend::cuda {

namespace {

std::string plain_notice(const format::KvLayout& layout) {
  return fmt::format(
      "attention of a prompt, {} KV-cache, head_dim {}, {} tokens a page: plain kernel",
      format::name(layout.kind), layout.head_dim, layout.tokens);
}

}  // namespace

bool CudaBackend::prefill(const AttentionArgs& args, AttentionTask task) {
  if (!is_hopper() || is_decoding(args)) return false;
  hopper::PrefillTask p{.heads = task.heads,
                        .kv_heads = task.kv_heads,
                        .head_dim = task.head_dim,
                        .cache = task.cache,
                        .has_open_page = task.has_open_page,
                        .open = task.open,
                        .y = task.y};
  if (!hopper::can_prefill(p)) {
    note(plain_notice(args.layout));
    return false;
  }
  upload_tiles(task.heads / task.kv_heads, &p);
  task.query_bytes = hopper::decode_query_bytes(task.head_dim);
  queries_.reserve(static_cast<size_t>(task.query_bytes) * static_cast<size_t>(task.rows) *
                   static_cast<size_t>(task.heads));
  task.queries = queries_.as<uint8_t>();
  p.queries = task.queries;
  if (args.layout.open_page) reserve_fresh(hopper::prefill_fresh_bytes(task.head_dim), &task);
  p.fresh = task.fresh;
  p.fresh_bytes = task.fresh_bytes;
  require(launch_store_kv(task, stream_), "storing K and V");
  require(hopper::launch_prefill(p, stream_), "attention of a prompt");
  if (args.layout.open_page) require(launch_keep_open_pages(task, stream_), "keeping open pages");
  return true;
}

void CudaBackend::upload_tiles(int group, hopper::PrefillTask* task) {
  if (tiles_group_ != group) {
    const std::vector<hopper::PrefillTile> tiles = hopper::plan_prefill(step_sequences_, group);
    const size_t bytes = tiles.size() * sizeof(hopper::PrefillTile);
    tiles_.reserve(bytes);
    staging_.copy(tiles_.as<char>(), tiles.data(), bytes, stream_);
    tiles_group_ = group;
    tile_count_ = static_cast<int>(tiles.size());
  }
  task->tiles = tiles_.as<hopper::PrefillTile>();
  task->tile_count = tile_count_;
}

}  // namespace atom::backend::cuda
