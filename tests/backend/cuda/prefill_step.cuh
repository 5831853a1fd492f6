// One step with several rows a sequence for prefill_check: pages, tables and inputs with NaN wherever nothing may be read,
// the plain kernel's result, and runs of the prefill kernel.
#pragma once

#include "backend/cuda/hopper_prefill_plan.h"
#include "tests/backend/cuda/decode_step.cuh"

namespace atom::bench {

// Rows of the step that are positions [position, position + rows) of one sequence.
struct Chunk {
  int position, rows;
  int end() const { return position + rows; }
};

// Rows of Q, K and V, those of Q times `query_size`. A block takes a row.
static __global__ void fill_rows(float* qkv, int width, int query, float query_size) {
  for (int i = static_cast<int>(threadIdx.x); i < width; i += static_cast<int>(blockDim.x)) {
    const size_t at = size_t{blockIdx.x} * width + i;
    qkv[at] = normal_at(17, at) * (i < query ? query_size : 1.0f);
  }
}

class PrefillStep {
 public:
  PrefillStep(const DecodeKind& kind, const std::vector<Chunk>& chunks, float query_size);
  ~PrefillStep() {
    for (const void* p :
         {static_cast<const void*>(t_.cache.pages), static_cast<const void*>(t_.open.pages),
          static_cast<const void*>(t_.queries), static_cast<const void*>(t_.y),
          static_cast<const void*>(t_.fresh), static_cast<const void*>(t_.qkv),
          static_cast<const void*>(t_.places), static_cast<const void*>(table_)})
      free_device(p);
  }

  // Relative error (root of mean squares) against the plain kernel; two launches give the same bits.
  double run(std::vector<float>* result = nullptr) const {
    return run(hopper::plan_prefill(sequences_, kind_.heads / kind_.kv_heads), result);
  }
  // The same for chunks cut after every `rows` rows; without open pages, of which only one step's rows are there.
  double run_in_pieces(int rows, std::vector<float>* result) const;

  // What the kernels read, for sums on the host.
  struct Stored {
    std::vector<uint8_t> pool, open, fresh, queries;
  };
  Stored stored() const {
    const auto rows = static_cast<size_t>(t_.rows), chunks = chunks_.size();
    return {host_copy(t_.cache.pages, kPoolPages * static_cast<size_t>(t_.cache.page_bytes)),
            host_copy(t_.open.pages, chunks * static_cast<size_t>(t_.open.page_bytes)),
            host_copy(t_.fresh, rows * static_cast<size_t>(2 * kind_.kv_heads * t_.fresh_bytes)),
            host_copy(t_.queries, rows * static_cast<size_t>(kind_.heads * t_.query_bytes))};
  }
  const cuda::AttentionTask& task() const { return t_; }
  const std::vector<Chunk>& chunks() const { return chunks_; }
  int page(size_t chunk, int position) const {
    return ids_[first_[chunk] + static_cast<size_t>(position / 64)];
  }

 private:
  static constexpr size_t kGuard = DevicePlan::kGuard;
  double run(const std::vector<hopper::PrefillTile>& tiles, std::vector<float>* result) const;
  void make_places();
  void spoil_pages(const cuda::KvView& kv, const std::vector<int32_t>& pages,
                   const std::vector<int32_t>& from) const;
  void make_inputs(float query_size);

  DecodeKind kind_;
  std::vector<Chunk> chunks_;
  size_t y_count_ = 0;
  cuda::AttentionTask t_;
  int32_t* table_ = nullptr;
  std::vector<int32_t> ids_;
  std::vector<size_t> first_;  // of each chunk in ids_
  std::vector<hopper::PrefillSequence> sequences_;
  std::vector<float> expected_;
};

inline PrefillStep::PrefillStep(const DecodeKind& kind, const std::vector<Chunk>& chunks,
                                float query_size)
    : kind_(kind), chunks_(chunks) {
  for (const Chunk& c : chunks) t_.rows += c.rows;
  const auto rows = static_cast<size_t>(t_.rows);
  t_.heads = kind.heads;
  t_.kv_heads = kind.kv_heads;
  t_.head_dim = kind.head_dim;
  t_.cache = kind.cache_view();
  t_.cache.pages = nan_memory<uint8_t>(kPoolPages * static_cast<size_t>(t_.cache.page_bytes));
  t_.has_open_page = kind.open_page;
  t_.open = kind.open_view();
  t_.open.pages = nan_memory<uint8_t>(chunks.size() * static_cast<size_t>(t_.open.page_bytes));
  for (int side = 0; side < 2; ++side) {
    fill_pages<<<dim3(kPoolPages, kind.kv_heads), 64>>>(t_.cache, side);
    fill_pages<<<dim3(static_cast<unsigned>(chunks.size()), kind.kv_heads), 64>>>(t_.open, side);
  }
  make_places();
  make_inputs(query_size);
  y_count_ = rows * static_cast<size_t>(kind.heads * kind.head_dim);
  t_.fresh_bytes = hopper::prefill_fresh_bytes(kind.head_dim);
  t_.fresh = nan_memory<uint8_t>(rows * static_cast<size_t>(2 * kind.kv_heads * t_.fresh_bytes));
  t_.query_bytes = hopper::decode_query_bytes(kind.head_dim);
  t_.queries = nan_memory<uint8_t>(rows * static_cast<size_t>(kind.heads * t_.query_bytes));
  t_.y = nan_memory<float>(y_count_ + kGuard);
  ATOM_REQUIRE(launch_store_kv(t_, nullptr));
  ATOM_REQUIRE(launch_attend(t_, nullptr));
  ATOM_REQUIRE(cudaDeviceSynchronize());
  expected_ = host_copy(t_.y, y_count_);
}

inline double PrefillStep::run(const std::vector<hopper::PrefillTile>& tiles,
                               std::vector<float>* result) const {
  hopper::PrefillTile* on_device = device_copy(tiles);
  const hopper::PrefillTask task{.queries = t_.queries,
                                 .heads = t_.heads,
                                 .kv_heads = t_.kv_heads,
                                 .head_dim = t_.head_dim,
                                 .cache = t_.cache,
                                 .has_open_page = t_.has_open_page,
                                 .open = t_.open,
                                 .fresh = t_.fresh,
                                 .fresh_bytes = t_.fresh_bytes,
                                 .tiles = on_device,
                                 .tile_count = static_cast<int>(tiles.size()),
                                 .y = t_.y};
  std::vector<float> y[2];
  for (std::vector<float>& out : y) {
    ATOM_REQUIRE(cudaMemset(t_.y, 0xff, (y_count_ + kGuard) * sizeof(float)));
    ATOM_REQUIRE(hopper::launch_prefill(task, nullptr));
    ATOM_REQUIRE(cudaDeviceSynchronize());
    out = host_copy(t_.y, y_count_ + kGuard);
  }
  free_device(on_device);
  bool good = std::memcmp(y[0].data(), y[1].data(), y[0].size() * sizeof(float)) == 0;
  if (!good) std::printf("  two launches differ\n");
  for (size_t i = 0; i < kGuard; ++i)
    if (uint32_t bits; std::memcpy(&bits, &y[0][y_count_ + i], 4), bits != 0xffffffffu) {
      std::printf("  written behind the end\n");
      good = false;
      break;
    }
  double error = 0, size = 0;
  for (size_t i = 0; i < y_count_; ++i) {
    error += std::pow(double{y[0][i]} - expected_[i], 2);
    size += std::pow(double{expected_[i]}, 2);
  }
  if (result != nullptr) *result = y[0];
  return good ? std::sqrt(error / size) : INFINITY;  // NaN where y has one
}

inline double PrefillStep::run_in_pieces(int rows, std::vector<float>* result) const {
  std::vector<hopper::PrefillSequence> pieces;
  for (const hopper::PrefillSequence& s : sequences_)
    for (int row = 0; row < s.rows; row += rows) {
      pieces.push_back(s);
      pieces.back().first_row += row;
      pieces.back().position += row;
      pieces.back().rows = std::min(rows, s.rows - row);
    }
  return run(hopper::plan_prefill(pieces, kind_.heads / kind_.kv_heads), result);
}

inline void PrefillStep::make_places() {
  std::vector<int32_t> order(kPoolPages);
  for (int i = 0; i < kPoolPages; ++i) order[static_cast<size_t>(i)] = (i * 387 + 11) % kPoolPages;
  std::vector<cuda::RowPlace> places;
  std::vector<int32_t> pages, used, open, open_used;  // what holds something, and up to where
  for (const Chunk& c : chunks_) {
    first_.push_back(ids_.size());
    for (int p = 0; p < (c.end() + 63) / 64; ++p) {
      ids_.push_back(order[ids_.size()]);
      pages.push_back(ids_.back());
      used.push_back(std::max(c.position - 64 * p, 0));
    }
    open.push_back(static_cast<int32_t>(open.size()));
    open_used.push_back(c.position % 64);
  }
  for (size_t i = ids_.size(); i < order.size(); ++i) pages.push_back(order[i]), used.push_back(0);
  table_ = device_copy(ids_);
  int row = 0;
  for (size_t i = 0; i < chunks_.size(); ++i) {
    const Chunk& c = chunks_[i];
    sequences_.push_back({.page_table = table_ + first_[i],
                          .first_row = row,
                          .rows = c.rows,
                          .position = c.position,
                          .open_page = static_cast<int>(i)});
    for (int r = 0; r < c.rows; ++r)
      places.push_back({table_ + first_[i], c.position + r, row, c.position, c.end() - 1,
                        static_cast<int32_t>(i)});
    row += c.rows;
  }
  t_.places = device_copy(places);
  spoil_pages(t_.cache, pages, used);
  spoil_pages(t_.open, open, open_used);
}

inline void PrefillStep::spoil_pages(const cuda::KvView& kv, const std::vector<int32_t>& pages,
                                     const std::vector<int32_t>& from) const {
  int32_t *p = device_copy(pages), *f = device_copy(from);
  const dim3 grid(static_cast<unsigned>(pages.size()), static_cast<unsigned>(kind_.kv_heads));
  for (int side = 0; side < 2; ++side) spoil<<<grid, 64>>>(kv, side, p, f);
  ATOM_REQUIRE(cudaDeviceSynchronize());
  free_device(p);
  free_device(f);
}

inline void PrefillStep::make_inputs(float query_size) {
  const size_t query = static_cast<size_t>(kind_.heads * kind_.head_dim);
  const size_t width = query + static_cast<size_t>(2 * kind_.kv_heads * kind_.head_dim);
  auto* qkv = device_array<float>(static_cast<size_t>(t_.rows) * width);
  fill_rows<<<t_.rows, 256>>>(qkv, static_cast<int>(width), static_cast<int>(query), query_size);
  ATOM_REQUIRE(cudaGetLastError());
  t_.qkv = qkv;
  rope_tables(&t_.rope_cos, &t_.rope_sin);
  t_.hadamard = kind_.heads % 2 == 0 ? 64 : 0;
}

}  // namespace atom::bench
