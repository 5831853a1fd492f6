// Attention of a decoding step by the kernel of hopper_decode.h. The plan is made and uploaded once for the layers that
// share it.
#include <cuda_runtime_api.h>

#include <cstring>
#include <vector>

#include "backend/cuda/cuda_backend.h"
#include "base/error.h"

namespace atom::backend::cuda {

namespace {

std::string plain_notice(const format::KvLayout& layout) {
  return fmt::format(
      "attention of a decoding step, {} KV-cache, head_dim {}, {} tokens a page: plain kernel",
      format::name(layout.kind), layout.head_dim, layout.tokens);
}

}  // namespace

bool CudaBackend::decode(const AttentionArgs& args, AttentionTask task) {
  if (!is_decoding(args) || !is_hopper()) return false;
  hopper::DecodeTask d{.heads = task.heads,
                       .kv_heads = task.kv_heads,
                       .head_dim = task.head_dim,
                       .group = task.heads / task.kv_heads,
                       .passes = hopper::decode_passes(task.heads, task.kv_heads),
                       .cache = task.cache,
                       .has_open_page = task.has_open_page,
                       .open = task.open,
                       .overlap = 1,
                       .y = task.y};
  if (!hopper::can_decode(d)) {
    note(plain_notice(args.layout));
    return false;
  }
  const KvSide(&side)[2] = d.cache.side;
  upload_decode_plan(
      {.heads = d.kv_heads * d.passes,
       .unit_tokens = hopper::decode_unit_tokens(side[0].bits, side[1].bits, d.head_dim),
       .open_tokens = hopper::decode_open_tokens(d.head_dim),
       .open_page = d.has_open_page != 0,
       .blocks = device_.multiprocessors},
      &d);
  task.query_bytes = hopper::decode_query_bytes(task.head_dim);
  queries_.reserve(static_cast<size_t>(task.query_bytes) * static_cast<size_t>(task.rows) *
                   static_cast<size_t>(task.heads));
  task.queries = queries_.as<uint8_t>();
  d.queries = task.queries;
  require(launch_store_kv(task, stream_), "storing K and V");
  require(hopper::launch_decode(d, stream_), "attention of a decoding step");
  return true;
}

void CudaBackend::upload_decode_plan(const hopper::DecodePlanShape& shape,
                                     hopper::DecodeTask* task) {
  if (!(decode_plan_.shape == shape) || decode_plan_.head_dim != task->head_dim) {
    const hopper::DecodePlan plan = hopper::plan_decode(step_rows_, shape);
    decode_plan_ = {.shape = shape,
                    .head_dim = task->head_dim,
                    .blocks = plan.blocks,
                    .segments = plan.segments.size() * sizeof(hopper::DecodeSegment),
                    .merges = plan.merges.size() * sizeof(hopper::DecodeMerge)};
    const size_t ends = plan.merge_ends.size() * sizeof(int32_t);
    std::vector<char> bytes(decode_plan_.segments + decode_plan_.merges + ends);
    std::memcpy(bytes.data(), plan.segments.data(), decode_plan_.segments);
    if (decode_plan_.merges > 0)
      std::memcpy(bytes.data() + decode_plan_.segments, plan.merges.data(), decode_plan_.merges);
    std::memcpy(bytes.data() + bytes.size() - ends, plan.merge_ends.data(), ends);
    plan_.reserve(bytes.size());
    staging_.copy(plan_.as<char>(), bytes.data(), bytes.size(), stream_);
    pieces_.reserve(static_cast<size_t>(plan.pieces) *
                    static_cast<size_t>(hopper::decode_piece_floats(task->head_dim)) *
                    sizeof(float));
    const size_t counters = (static_cast<size_t>(plan.counters) + 1) * sizeof(uint32_t);
    counters_.reserve(counters);
    require(cudaMemsetAsync(counters_.as<uint32_t>(), 0, counters, stream_), "clearing counters");
  }
  char* at = plan_.as<char>();
  task->blocks = decode_plan_.blocks;
  task->segments = reinterpret_cast<const hopper::DecodeSegment*>(at);
  task->merges = reinterpret_cast<const hopper::DecodeMerge*>(at + decode_plan_.segments);
  task->merge_ends =
      reinterpret_cast<const int32_t*>(at + decode_plan_.segments + decode_plan_.merges);
  task->pieces = pieces_.as<float>();
  task->counters = counters_.as<uint32_t>();
}

}  // namespace atom::backend::cuda
