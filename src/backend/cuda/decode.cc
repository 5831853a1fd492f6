// Attention of sequences with one row by the kernel of hopper_decode.h. The plan is made and uploaded once for the layers that
// share it.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "backend/cuda/cuda_backend.h"
#include "base/error.h"

namespace atom::backend::cuda {

namespace {

constexpr int kInvariantSplit = 8;  // units: 512 tokens of an int4 cache

}  // namespace

hopper::DecodeTask CudaBackend::decode_task(const AttentionTask& task) {
  return {.heads = task.heads,
          .kv_heads = task.kv_heads,
          .head_dim = task.head_dim,
          .group = task.heads / task.kv_heads,
          .passes = hopper::decode_passes(task.heads, task.kv_heads),
          .cache = task.cache,
          .has_open_page = task.has_open_page,
          .open = task.open,
          .overlap = 1,
          .y = task.y};
}

void CudaBackend::decode(const AttentionTask& task) {
  hopper::DecodeTask d = decode_task(task);
  const KvSide(&side)[2] = d.cache.side;
  upload_decode_plan(
      {.heads = d.kv_heads * d.passes,
       .unit_tokens = hopper::decode_unit_tokens(side[0].bits, side[1].bits, d.head_dim),
       .open_tokens = hopper::decode_open_tokens(d.head_dim),
       .open_page = d.has_open_page != 0,
       .blocks = device_.multiprocessors,
       .split = options_.batch_invariant ? kInvariantSplit : 0},
      &d);
  d.queries = task.queries;
  require(hopper::launch_decode(d, stream_), "attention of a decoding step");
}

// Layers whose caches are alike share a plan; it belongs to one step.
size_t CudaBackend::find_decode_plan(const hopper::DecodePlanShape& shape, int head_dim) {
  for (size_t i = 0; i < decode_plans_.size(); ++i)
    if (decode_plans_[i].shape == shape && decode_plans_[i].head_dim == head_dim) return i;
  decode_plans_.push_back({.shape = shape, .head_dim = head_dim});
  return decode_plans_.size() - 1;
}

// Grows by more than is needed, as a graph that was captured before is of no use after. What failed to grow is as it was.
void CudaBackend::make_room(DecodePlanOnDevice& on_device) {
  int rows = 0;
  int64_t units = 0;
  for (const hopper::DecodeRow& row : step_.rows) {
    if (row.context == 0) continue;
    ++rows;
    if (on_device.shape.split > 0)
      units += hopper::decode_units(row.context, on_device.shape).all();
  }
  hopper::DecodePlanLimits limits = on_device.limits;
  if (rows <= limits.rows && units <= limits.units) return;
  if (rows > limits.rows) limits.rows = std::max(2 * limits.rows, rows);
  if (units > limits.units) limits.units = 2 * units;
  const hopper::DecodePlanLayout layout = hopper::decode_plan_layout(on_device.shape, limits);
  const size_t piece_bytes = static_cast<size_t>(
      layout.pieces * hopper::decode_piece_floats(on_device.head_dim) * int64_t{sizeof(float)});
  DeviceMemory plan(static_cast<size_t>(layout.bytes)), pieces(piece_bytes);
  require(cudaMemsetAsync(pieces.as<char>(), 0xff, piece_bytes, stream_), "clearing pieces");
  on_device.plan = std::move(plan);
  on_device.pieces = std::move(pieces);
  on_device.limits = limits;
  on_device.layout = layout;
}

// The caller sends what this adds to staging_.
void CudaBackend::renew(DecodePlanOnDevice& on_device) {
  if (on_device.step == step_.number) return;
  make_room(on_device);
  host_plan_.resize(static_cast<size_t>(on_device.layout.bytes) / sizeof(hopper::DecodeRun) + 1);
  const int64_t bytes =
      hopper::plan_decode(step_.rows, on_device.shape, on_device.layout, host_plan_.data());
  staging_.add(on_device.plan.as<char>(), host_plan_.data(), static_cast<size_t>(bytes), stream_);
  on_device.step = step_.number;
}

void CudaBackend::upload_decode_plan(const hopper::DecodePlanShape& shape,
                                     hopper::DecodeTask* task) {
  const size_t index = find_decode_plan(shape, task->head_dim);
  if (std::find(step_.plans.begin(), step_.plans.end(), index) == step_.plans.end())
    step_.plans.push_back(index);
  DecodePlanOnDevice& on_device = decode_plans_[index];
  if (!capturing_) {
    try {
      renew(on_device);
      staging_.send(stream_);
    } catch (...) {
      forget_step();
      throw;
    }
  }
  on_device.layout.set(on_device.plan.as<char>(), task);
  task->pieces = on_device.pieces.as<float>();
}

// What was to be uploaded was not, or not in full: the next step brings everything up.
void CudaBackend::forget_step() {
  staging_.drop();
  step_.bytes.clear();
  ++step_.number;
}

// What a recorded step reads besides its operations' arguments, in one launch. The step before may still run: this is after it
// in the stream, and its own bytes lie in another slot of the staging.
void CudaBackend::prepare(std::span<const SequenceStep> sequences, int page_tokens,
                          std::span<const size_t> plans) {
  if (page_tokens == 0) return;  // no attention
  int rows = 0;
  for (const SequenceStep& s : sequences) rows = std::max(rows, s.row_end);
  try {
    upload_places(sequences, rows, page_tokens);
    for (const size_t index : plans) renew(decode_plans_[index]);
    staging_.send_by_kernel(stream_);
  } catch (...) {
    forget_step();
    throw;
  }
}

}  // namespace atom::backend::cuda
