// One decoding step for decode_check: pages, tables and inputs with NaN wherever nothing may be read, the
// plain kernel's result, and runs of the decode kernel.
#pragma once

#include <cmath>
#include <random>

#include "bench/cuda/decode_data.cuh"

namespace atom::bench {

constexpr int kPoolPages = 640, kMostContext = 20000;

template <typename T>
T* nan_memory(size_t count) {  // every byte 0xff
  T* to = device_array<T>(count);
  ATOM_REQUIRE(cudaMemset(to, 0xff, count * sizeof(T)));
  return to;
}

__device__ uint32_t mix(uint32_t x) {
  x ^= x >> 16, x *= 0x7feb352du, x ^= x >> 15, x *= 0x846ca68bu;
  return x ^ x >> 16;
}
__device__ float uniform(uint32_t x) { return static_cast<float>(mix(x) >> 8) * 0x1p-24f; }

// A side of every page and head: values of about normal size, random codes with lo near -range / 2, or f16. Some tokens
// are large. Grid: pages x KV heads; a thread takes a token.
__global__ void fill_pages(cuda::KvView kv, int side) {
  const cuda::KvSide& of = kv.side[side];
  const int64_t vector =
      ((int64_t{blockIdx.x} * 2 + side) * gridDim.y + blockIdx.y) * kv.tokens + threadIdx.x;
  uint8_t* base =
      kv.pages + blockIdx.x * kv.page_bytes + of.offset + int64_t{blockIdx.y} * of.head_bytes;
  uint8_t* row = base + threadIdx.x * of.row_bytes;
  const auto seed = static_cast<uint32_t>(vector * 1024);
  const float size = mix(seed + 700) % 97 == 0 ? 3.0f : 1.0f;
  for (int i = 0; i < of.row_bytes / 2; ++i) {
    const __half value = __float2half(size * 3.4f * (uniform(seed + i) - 0.5f));
    reinterpret_cast<uint16_t*>(row)[i] =
        of.bits == 16 ? __half_as_ushort(value) : static_cast<uint16_t>(mix(seed + i));
  }
  if (of.bits == 16) return;
  const float step = size * (0.5f + uniform(seed + 800)) * (of.bits == 4 ? 0.2f : 0.012f);
  auto* params = reinterpret_cast<__half*>(base + kv.tokens * of.row_bytes) + 2 * threadIdx.x;
  params[0] =
      __float2half(-step * (of.bits == 4 ? 7.5f : 127.5f) * (0.8f + 0.4f * uniform(seed + 900)));
  params[1] = __float2half(step);
}

// NaN from token `from` on in a side of every head of a page. Grid: entries of `pages` x KV heads.
__global__ void spoil(cuda::KvView kv, int side, const int32_t* pages, const int32_t* from) {
  if (static_cast<int>(threadIdx.x) < from[blockIdx.x]) return;
  const cuda::KvSide& of = kv.side[side];
  uint8_t* base = kv.pages + pages[blockIdx.x] * kv.page_bytes + of.offset +
                  int64_t{blockIdx.y} * of.head_bytes;
  auto* row = reinterpret_cast<uint16_t*>(base + threadIdx.x * of.row_bytes);
  for (int i = 0; i < of.row_bytes / 2; ++i) row[i] = of.bits == 16 ? 0x7e00 : 0xffff;
  if (of.bits < 16)
    reinterpret_cast<uint32_t*>(base + kv.tokens * of.row_bytes)[threadIdx.x] = 0x7e007e00u;
}

// Angles of every position, made once.
inline void rope_tables(const float** cosines_out, const float** sines_out) {
  static float* tables[2] =
      {};  // of head_dim 256; others use its first columns, any angles will do
  if (tables[0] == nullptr) {
    std::vector<float> cosines(size_t{kMostContext} * 128), sines(cosines.size());
    for (size_t i = 0; i < cosines.size(); ++i) {
      const double angle =
          static_cast<double>(i / 128) * std::pow(1e4, -static_cast<double>(i % 128) / 128);
      cosines[i] = static_cast<float>(std::cos(angle)),
      sines[i] = static_cast<float>(std::sin(angle));
    }
    tables[0] = device_copy(cosines), tables[1] = device_copy(sines);
  }
  *cosines_out = tables[0], *sines_out = tables[1];
}

// One step: pages, tables, inputs, and what the plain kernel makes of them.
class Step {
 public:
  Step(const DecodeKind& kind, const std::vector<int>& contexts, float query_size)
      : kind_(kind), contexts_(contexts), rows_(static_cast<int>(contexts.size())) {
    const size_t rows = contexts.size();
    t_.rows = rows_;
    t_.heads = kind.heads;
    t_.kv_heads = kind.kv_heads;
    t_.head_dim = kind.head_dim;
    t_.cache = kind.cache_view();
    t_.cache.pages = nan_memory<uint8_t>(kPoolPages * static_cast<size_t>(t_.cache.page_bytes));
    t_.has_open_page = kind.open_page;
    t_.open = kind.open_view();
    t_.open.pages = nan_memory<uint8_t>(rows * static_cast<size_t>(t_.open.page_bytes));
    for (int side = 0; side < 2; ++side) {
      fill_pages<<<dim3(kPoolPages, kind.kv_heads), 64>>>(t_.cache, side);
      fill_pages<<<dim3(rows_, kind.kv_heads), 64>>>(t_.open, side);
    }
    make_places();
    make_inputs(query_size);
    y_count_ = rows * static_cast<size_t>(kind.heads * kind.head_dim);
    fresh_ =
        nan_memory<uint8_t>(rows * 2 * static_cast<size_t>(kind.kv_heads * (kind.head_dim + 4)));
    t_.fresh_bytes = kind.head_dim + 4;
    t_.query_bytes = hopper::decode_query_bytes(kind.head_dim);
    t_.queries = nan_memory<uint8_t>(rows * static_cast<size_t>(kind.heads * t_.query_bytes));
    t_.y = nan_memory<float>(y_count_ + kGuard);
    t_.fresh = fresh_;
    ATOM_REQUIRE(launch_store_kv(t_, nullptr));
    ATOM_REQUIRE(launch_attend(t_, nullptr));
    ATOM_REQUIRE(cudaDeviceSynchronize());
    expected_ = host_copy(t_.y, y_count_);
    t_.fresh = nullptr;  // now the open page has the newest token too
    ATOM_REQUIRE(launch_store_kv(t_, nullptr));
  }
  ~Step() {
    for (const void* p :
         {static_cast<const void*>(t_.cache.pages), static_cast<const void*>(t_.open.pages),
          static_cast<const void*>(t_.queries), static_cast<const void*>(t_.y),
          static_cast<const void*>(fresh_), static_cast<const void*>(t_.qkv),
          static_cast<const void*>(t_.places), static_cast<const void*>(table_)})
      free_device(p);
  }

  // Relative error (root of mean squares) against the plain kernel; two launches give the same bits.
  double run(int blocks, int split, bool overlap, std::vector<float>* result = nullptr) {
    const DevicePlan plan(plan_rows_, kind_.shape(blocks, split), kind_.head_dim);
    const hopper::DecodeTask d = decode_task(plan, overlap);
    std::vector<float> y[2];
    for (std::vector<float>& out : y) {
      ATOM_REQUIRE(cudaMemset(t_.y, 0xff, (y_count_ + kGuard) * sizeof(float)));
      ATOM_REQUIRE(hopper::launch_decode(d, nullptr));
      ATOM_REQUIRE(cudaDeviceSynchronize());
      out = host_copy(t_.y, y_count_ + kGuard);
    }
    bool good = std::memcmp(y[0].data(), y[1].data(), y[0].size() * sizeof(float)) == 0;
    if (!good) std::printf("  two launches differ\n");
    good = untouched({y[0].begin() + static_cast<std::ptrdiff_t>(y_count_), y[0].end()}) && good;
    good = untouched(host_copy(plan.pieces, plan.piece_floats + kGuard)) && good;
    if (result != nullptr) *result = y[0];
    return good ? difference(y[0]) : INFINITY;
  }

  // Whether one graph of a launch, replayed with plans of other contexts in the same memory, gives the bits of launches.
  bool replays(int blocks) {
    const hopper::DecodePlanShape shape = kind_.shape(blocks, 0);
    const DevicePlan plan(plan_rows_, shape, kind_.head_dim);
    const hopper::DecodeTask d = decode_task(plan, false);
    cudaStream_t stream;
    cudaGraph_t graph;
    cudaGraphExec_t launch;
    ATOM_REQUIRE(cudaStreamCreate(&stream));
    ATOM_REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    ATOM_REQUIRE(hopper::launch_decode(d, stream));
    ATOM_REQUIRE(cudaStreamEndCapture(stream, &graph));
    ATOM_REQUIRE(cudaGraphInstantiate(&launch, graph, 0));
    bool same = true;
    for (const int part : {1, 5, 2}) {
      std::vector<hopper::DecodeRow> rows = plan_rows_;
      for (hopper::DecodeRow& row : rows) row.context = (row.context + part - 1) / part;
      plan.fill(rows, shape);
      std::vector<float> y[2];
      for (int way = 0; way < 2; ++way) {
        ATOM_REQUIRE(cudaMemset(t_.y, 0xff, y_count_ * sizeof(float)));
        ATOM_REQUIRE(cudaDeviceSynchronize());
        ATOM_REQUIRE(way == 0 ? hopper::launch_decode(d, stream)
                              : static_cast<int>(cudaGraphLaunch(launch, stream)));
        ATOM_REQUIRE(cudaStreamSynchronize(stream));
        y[way] = host_copy(t_.y, y_count_);
      }
      same = same && std::memcmp(y[0].data(), y[1].data(), y_count_ * sizeof(float)) == 0;
      for (const float value : y[1]) same = same && std::isfinite(value);
    }
    ATOM_REQUIRE(cudaGraphExecDestroy(launch));
    ATOM_REQUIRE(cudaGraphDestroy(graph));
    ATOM_REQUIRE(cudaStreamDestroy(stream));
    return same;
  }

  // What the kernels read, for sums on the host.
  struct Stored {
    std::vector<uint8_t> pool, open, queries;
  };
  Stored stored() const {
    const size_t rows = contexts_.size();
    return {host_copy(t_.cache.pages, kPoolPages * static_cast<size_t>(t_.cache.page_bytes)),
            host_copy(t_.open.pages, rows * static_cast<size_t>(t_.open.page_bytes)),
            host_copy(t_.queries, rows * static_cast<size_t>(kind_.heads * t_.query_bytes))};
  }
  const cuda::AttentionTask& task() const { return t_; }
  const std::vector<int>& contexts() const { return contexts_; }
  int page(int row, int position) const {
    return ids_[first_[static_cast<size_t>(row)] + static_cast<size_t>(position / 64)];
  }

 private:
  static constexpr size_t kGuard = DevicePlan::kGuard;
  static bool untouched(const std::vector<float>& memory) {
    for (const float& word : memory)
      if (uint32_t bits; std::memcpy(&bits, &word, 4), bits != 0xffffffffu) {
        std::printf("  written behind the end, or not put back\n");
        return false;
      }
    return true;
  }
  hopper::DecodeTask decode_task(const DevicePlan& plan, bool overlap) const {
    hopper::DecodeTask d = kind_.task();
    d.queries = t_.queries;
    d.cache = t_.cache;
    d.open = t_.open;
    d.overlap = overlap ? 1 : 0;
    d.y = t_.y;
    plan.set(d);
    return d;
  }
  double difference(const std::vector<float>& y) const {
    double error = 0, size = 0;
    for (size_t i = 0; i < y_count_; ++i) {
      error += std::pow(double{y[i]} - expected_[i], 2);
      size += std::pow(double{expected_[i]}, 2);
    }
    return std::sqrt(error / size);  // NaN where y has one
  }
  void make_places();
  void make_inputs(float query_size);

  DecodeKind kind_;
  std::vector<int> contexts_;
  int rows_;
  size_t y_count_ = 0;
  cuda::AttentionTask t_;
  uint8_t* fresh_ = nullptr;
  int32_t* table_ = nullptr;
  std::vector<int32_t> ids_;
  std::vector<size_t> first_;  // of each row in ids_
  std::vector<hopper::DecodeRow> plan_rows_;
  std::vector<float> expected_;
};

inline void Step::make_places() {
  std::vector<int32_t> order(kPoolPages);
  for (int i = 0; i < kPoolPages; ++i) order[static_cast<size_t>(i)] = (i * 387 + 11) % kPoolPages;
  std::vector<cuda::RowPlace> places;
  std::vector<int32_t> last, used, open, open_used, whole(kPoolPages, 0), all;
  for (const int context : contexts_) {
    first_.push_back(ids_.size());
    for (int p = 0; p < (context + 63) / 64; ++p) ids_.push_back(order[ids_.size()]);
    last.push_back(ids_.back());
    used.push_back(kind_.open_page ? 0 : (context - 1) % 64);  // the newest is stored by the step
    open.push_back(static_cast<int32_t>(open.size()));
    open_used.push_back((context - 1) % 64);
  }
  all.assign(order.begin() + static_cast<std::ptrdiff_t>(ids_.size()), order.end());
  table_ = device_copy(ids_);
  for (size_t r = 0; r < contexts_.size(); ++r) {
    const int position = contexts_[r] - 1;
    places.push_back({table_ + first_[r], position, static_cast<int32_t>(r), position, position,
                      static_cast<int32_t>(r)});
    // Every other row's table is known to the device alone.
    plan_rows_.push_back({.context = contexts_[r],
                          .page_table = table_ + first_[r],
                          .ids = r % 2 == 0 ? ids_.data() + first_[r] : nullptr,
                          .open_page = static_cast<int>(r)});
  }
  t_.places = device_copy(places);
  const auto spoil_pages = [&](const cuda::KvView& kv, const std::vector<int32_t>& pages,
                               const std::vector<int32_t>& from) {
    if (pages.empty()) return;
    int32_t *p = device_copy(pages), *f = device_copy(from);
    const dim3 grid(static_cast<unsigned>(pages.size()), static_cast<unsigned>(kind_.kv_heads));
    for (int side = 0; side < 2; ++side) spoil<<<grid, 64>>>(kv, side, p, f);
    ATOM_REQUIRE(cudaDeviceSynchronize());
    free_device(p);
    free_device(f);
  };
  spoil_pages(t_.cache, last, used);
  spoil_pages(t_.cache, all, whole);
  spoil_pages(t_.open, open, open_used);
}

inline void Step::make_inputs(float query_size) {
  std::mt19937 random(17);
  std::normal_distribution<float> normal(0, 1);
  const size_t query = static_cast<size_t>(kind_.heads * kind_.head_dim);
  std::vector<float> qkv(contexts_.size() *
                         (query + static_cast<size_t>(2 * kind_.kv_heads * kind_.head_dim)));
  const size_t width = qkv.size() / contexts_.size();
  for (size_t i = 0; i < qkv.size(); ++i)
    qkv[i] = normal(random) * (i % width < query ? query_size : 1.0f);
  t_.qkv = device_copy(qkv);
  rope_tables(&t_.rope_cos, &t_.rope_sin);
  t_.hadamard = kind_.heads % 2 == 0 ? 64 : 0;
}

}  // namespace atom::bench
