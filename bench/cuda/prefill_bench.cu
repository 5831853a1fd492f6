// Times the prefill kernel of Hopper over paged KV-caches: microseconds in CUDA graphs, and TFLOPS of the products that a
// causal mask leaves (4 head_dim a query head and pair of positions).
//   prefill_bench [FILE.csv] [plain] [FILTER...]
//
// FILE.csv is what bench/baselines/sdpa_prefill.py writes: each line then has the ratio to the best f16 time. plain:
// also the plain kernel, up to 4096 tokens. FILTER is a part of a line's name, such as "int4 32/8".
#include <random>

#include "backend/cuda/hopper_prefill_plan.h"
#include "bench/cuda/decode_data.cuh"
#include "bench/cuda/half_times.cuh"

namespace atom::bench {
namespace {

constexpr double kPeak = 810e12;  // of f16 products by wgmma alone, measured on an H200
constexpr int kReplays = 9;
constexpr float kWarmMilliseconds = 60;

// A side of every page and head: values of about normal size. Grid: pages x KV heads; a thread takes a token.
__global__ void fill_side(cuda::KvView kv, int side) {
  const cuda::KvSide& of = kv.side[side];
  const uint64_t vector =
      ((uint64_t{blockIdx.x} * 2 + side) * gridDim.y + blockIdx.y) * kv.tokens + threadIdx.x;
  uint8_t* base =
      kv.pages + blockIdx.x * kv.page_bytes + of.offset + int64_t{blockIdx.y} * of.head_bytes;
  auto* row = reinterpret_cast<uint16_t*>(base + threadIdx.x * of.row_bytes);
  for (int i = 0; i < of.row_bytes / 2; ++i) {
    const uint64_t at = vector * 1024 + i;
    row[i] = of.bits == 16 ? __half_as_ushort(__float2half(normal_at(1, at)))
                           : static_cast<uint16_t>(random_at(1, at));
  }
  if (of.bits == 16) return;
  const float step = of.bits == 4 ? 0.25f : 0.015f;
  auto* params = reinterpret_cast<__half*>(base + kv.tokens * of.row_bytes) + 2 * threadIdx.x;
  params[0] = __float2half(-step * (of.bits == 4 ? 7.5f : 127.5f));
  params[1] = __float2half(step);
}

// f16 queries with their two scalars (DecodeTask::queries). A warp takes one.
__global__ void fill_queries(uint8_t* queries, int dim, int64_t bytes) {
  uint8_t* query = queries + blockIdx.x * bytes;
  for (int i = static_cast<int>(threadIdx.x); i < dim; i += 32)
    reinterpret_cast<__half*>(query)[i] =
        __float2half(normal_at(2, uint64_t{blockIdx.x} * dim + i));
  if (threadIdx.x == 0) reinterpret_cast<float*>(query + 2 * dim)[0] = 1.4427f / sqrtf(dim);
}

struct Chunk {
  int position, rows;
};
struct Case {
  std::string label;
  DecodeKind kind;
  std::vector<Chunk> chunks;
  int batch, tokens;  // whole prompts, all alike; 0: other
  std::string name() const { return kind.name() + " " + label; }
};

class Bench {
 public:
  explicit Bench(const Case& c) : kind_(c.kind) {
    task_.heads = kind_.heads, task_.kv_heads = kind_.kv_heads, task_.head_dim = kind_.head_dim;
    task_.cache = kind_.cache_view();
    task_.has_open_page = kind_.open_page ? 1 : 0;
    task_.open = kind_.open_view();
    size_t pages = 0;
    for (const Chunk& chunk : c.chunks) {
      pages += static_cast<size_t>(chunk.position + chunk.rows + 63) / 64;
      rows_ += chunk.rows;
      for (int r = 0; r < chunk.rows; ++r) pairs_ += chunk.position + r + 1;
    }
    task_.cache.pages = device_array<uint8_t>(pages * static_cast<size_t>(task_.cache.page_bytes));
    task_.open.pages =
        device_array<uint8_t>(c.chunks.size() * static_cast<size_t>(task_.open.page_bytes));
    const auto kv_heads = static_cast<unsigned>(kind_.kv_heads);
    for (int side = 0; side < 2; ++side) {
      fill_side<<<dim3(static_cast<unsigned>(pages), kv_heads), 64>>>(task_.cache, side);
      fill_side<<<dim3(static_cast<unsigned>(c.chunks.size()), kv_heads), 64>>>(task_.open, side);
    }
    make_tiles(c, pages);
    make_rows();
    ATOM_REQUIRE(cudaDeviceSynchronize());
  }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;
  ~Bench() {
    for (const void* p :
         {static_cast<const void*>(task_.cache.pages), static_cast<const void*>(task_.open.pages),
          static_cast<const void*>(task_.queries), static_cast<const void*>(task_.fresh),
          static_cast<const void*>(task_.tiles), static_cast<const void*>(task_.y),
          static_cast<const void*>(table_)})
      free_device(p);
  }

  double flops() const { return 4.0 * kind_.head_dim * kind_.heads * pairs_; }
  float run() const {
    return graph_microseconds(
        flops() < 1e11 ? 20 : 2,
        [&](int, cudaStream_t stream) { ATOM_REQUIRE(hopper::launch_prefill(task_, stream)); },
        kReplays, kWarmMilliseconds);
  }
  float run_plain(const Case& c) const;

 private:
  void make_tiles(const Case& c, size_t pages) {
    std::vector<int32_t> ids(pages);
    for (size_t i = 0; i < pages; ++i) ids[i] = static_cast<int32_t>(i);
    std::mt19937 random(1);
    std::shuffle(ids.begin(), ids.end(), random);
    table_ = device_copy(ids);
    int row = 0;
    const int32_t* at = table_;
    for (size_t i = 0; i < c.chunks.size(); ++i) {
      const Chunk& chunk = c.chunks[i];
      sequences_.push_back({.page_table = at,
                            .first_row = row,
                            .rows = chunk.rows,
                            .position = chunk.position,
                            .open_page = static_cast<int>(i)});
      row += chunk.rows;
      at += (chunk.position + chunk.rows + 63) / 64;
    }
    const auto tiles = hopper::plan_prefill(sequences_, kind_.heads / kind_.kv_heads);
    task_.tiles = device_copy(tiles);
    task_.tile_count = static_cast<int>(tiles.size());
  }
  void make_rows() {
    const auto rows = static_cast<size_t>(rows_), vectors = rows * kind_.heads;
    const int64_t bytes = hopper::decode_query_bytes(kind_.head_dim);
    auto* queries = device_array<uint8_t>(vectors * static_cast<size_t>(bytes));
    fill_queries<<<static_cast<unsigned>(vectors), 32>>>(queries, kind_.head_dim, bytes);
    task_.queries = queries;
    task_.fresh_bytes = hopper::prefill_fresh_bytes(kind_.head_dim);
    task_.fresh =
        device_array<uint8_t>(rows * static_cast<size_t>(2 * kind_.kv_heads * task_.fresh_bytes));
    task_.y = device_array<float>(vectors * static_cast<size_t>(kind_.head_dim));
  }

  DecodeKind kind_;
  hopper::PrefillTask task_;
  int rows_ = 0;
  double pairs_ = 0;  // of a query's position and one that it reads
  int32_t* table_ = nullptr;
  std::vector<hopper::PrefillSequence> sequences_;
};

float Bench::run_plain(const Case& c) const {
  cuda::AttentionTask t;
  const auto rows = static_cast<size_t>(rows_);
  const size_t width = static_cast<size_t>((kind_.heads + 2 * kind_.kv_heads) * kind_.head_dim);
  const size_t angles_count = 40000 * static_cast<size_t>(kind_.head_dim) / 2;
  auto *qkv = device_array<float>(rows * width), *angles = device_array<float>(angles_count);
  fill(qkv, rows * width, Fill::kFloat, 3);
  fill(angles, angles_count, Fill::kFloat, 4);
  std::vector<cuda::RowPlace> places;
  for (size_t i = 0; i < sequences_.size(); ++i) {
    const hopper::PrefillSequence& s = sequences_[i];
    for (int r = 0; r < c.chunks[i].rows; ++r)
      places.push_back({s.page_table, s.position + r, s.first_row, s.position,
                        s.position + s.rows - 1, s.open_page});
  }
  t.qkv = qkv, t.rope_cos = t.rope_sin = angles, t.rows = rows_;
  t.heads = kind_.heads, t.kv_heads = kind_.kv_heads, t.head_dim = kind_.head_dim;
  t.places = device_copy(places);
  t.cache = task_.cache, t.open = task_.open, t.has_open_page = task_.has_open_page;
  t.fresh = const_cast<uint8_t*>(task_.fresh), t.fresh_bytes = task_.fresh_bytes, t.y = task_.y;
  const float us = graph_microseconds(
      1, [&](int, cudaStream_t stream) { ATOM_REQUIRE(cuda::launch_attend(t, stream)); }, 1);
  for (const void* p : {static_cast<const void*>(qkv), static_cast<const void*>(angles),
                        static_cast<const void*>(t.places)})
    free_device(p);
  return us;
}

std::vector<Case> cases() {
  constexpr int kSizes[][2] = {{1, 1024}, {1, 4096}, {4, 4096}, {1, 8192}, {1, 16384}, {1, 32768}};
  std::vector<Case> all;
  const auto add = [&](const DecodeKind& kind) {
    for (const auto& [batch, tokens] : kSizes)
      all.push_back({std::to_string(batch) + "x" + std::to_string(tokens), kind,
                     std::vector<Chunk>(static_cast<size_t>(batch), {0, tokens}), batch, tokens});
    all.push_back({"512 at 16384", kind, {{16384, 512}}, 0, 0});
    std::vector<Chunk> mixed = {{100, 1500}, {0, 700}, {3000, 333}};
    for (int i = 0; i < 32; ++i) mixed.push_back({130 * i, 1});
    all.push_back({"mixed", kind, mixed, 0, 0});
  };
  struct Cache {
    int key_bits, value_bits;
    bool open_page;
  };
  constexpr Cache kCaches[] = {
      {16, 16, false}, {4, 4, false}, {4, 4, true}, {8, 4, true}, {8, 8, false}};
  for (const auto& [heads, kv_heads] : {std::pair{32, 32}, {32, 8}})
    for (const Cache& c : kCaches)
      add({heads, kv_heads, 128, c.key_bits, c.value_bits, c.open_page});
  for (const int dim : {64, 96, 256})
    for (const int bits : {16, 4}) add({32, 8, dim, bits, bits, false});
  return all;
}

// Lines "heads,kv_heads,head_dim,batch,tokens,backend,us".
void one_case(const Case& c, double half, bool plain) {
  const Bench bench(c);
  const double us = bench.run();
  std::printf("%-34s %10.1f us %6.1f TFLOPS %3.0f %%", c.name().c_str(), us,
              bench.flops() / us / 1e6, bench.flops() / us / kPeak * 1e8);
  if (half > 0)
    std::printf(" | f16 %10.1f us %6.1f TFLOPS, %3.0f %% of it", half, bench.flops() / half / 1e6,
                half / us * 100);
  if (plain && bench.flops() < 6e11) {
    const double slow = bench.run_plain(c);
    std::printf(" | plain kernel %12.1f us %6.1fx", slow, slow / us);
  }
  std::printf("\n");
}

}  // namespace
}  // namespace atom::bench

int main(int count, char** words) {
  using namespace atom::bench;
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const BenchWords told(count, words);
  cudaDeviceProp device;
  ATOM_REQUIRE(cudaGetDeviceProperties(&device, 0));
  std::printf("%s, %d multiprocessors; the least of %d; share of %.0f TFLOPS\n", device.name,
              device.multiProcessorCount, kReplays, kPeak / 1e12);
  for (const Case& c : cases()) {
    if (!told.wants(c.name())) continue;
    const DecodeKind& k = c.kind;
    one_case(c, told.half_time({k.heads, k.kv_heads, k.head_dim, c.batch, c.tokens}), told.plain);
  }
  return 0;
}
