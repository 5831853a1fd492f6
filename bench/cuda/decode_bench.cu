// Times the decode kernel of Hopper over paged KV-caches: microseconds in CUDA graphs of launches over pools that
// together exceed the L2 cache several times (one a "layer", all with the same shuffled page table). Pages, queries and
// results count as bytes.
//   decode_bench [FILE.csv] [plain] [FILTER...]
//
// FILE.csv is what bench/baselines/sdpa_decode.py writes: each line then has the ratio to the best f16 time. plain:
// also the plain kernel. FILTER is a part of a line's name, such as "int4 64/8".
#include <chrono>
#include <random>

#include "bench/cuda/decode_data.cuh"
#include "bench/cuda/half_times.cuh"

namespace atom::bench {
namespace {

constexpr double kReadBandwidth = 4.67e12;  // of an H200, bytes a second
constexpr size_t kPoolBytes = size_t{2400} << 20;
constexpr size_t kRotatedBytes = 200'000'000;  // of pages, several times the L2 cache
constexpr int kSplit = 16;                     // units of a cut that does not depend on the batch

int multiprocessors = 0;

// Random words; every 16 bits also are a finite f16 of at most 2 in size, so that any of them may be {lo, step}.
__global__ void fill_pools(uint32_t* words, size_t count) {
  for (size_t i = blockIdx.x * blockDim.x + threadIdx.x; i < count;
       i += size_t{gridDim.x} * blockDim.x)
    words[i] = static_cast<uint32_t>(random_at(1, i)) & 0xbfffbfffu;
}

struct Case {
  std::string label;
  DecodeKind kind;
  std::vector<int> contexts;
  std::string name() const { return kind.name() + " " + label; }
};

class Bench {
 public:
  Bench(const Case& c, uint8_t* pools) : case_(c), task_(c.kind.task()) {
    for (const int context : c.contexts) pages_ += static_cast<size_t>(context + 63) / 64;
    pool_bytes_ = pages_ * static_cast<size_t>(task_.cache.page_bytes);
    const size_t open_bytes =
        c.kind.open_page ? c.contexts.size() * static_cast<size_t>(task_.open.page_bytes) : 0;
    copies_ = static_cast<int>(
        std::max<size_t>(1, std::min<size_t>({64, (kPoolBytes - open_bytes) / pool_bytes_,
                                              kRotatedBytes / pool_bytes_ + 1})));
    task_.cache.pages = pools;
    task_.open.pages = pools + static_cast<size_t>(copies_) * pool_bytes_;
    make_tables();
    make_queries();
  }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;
  ~Bench() {
    for (const void* p : {static_cast<const void*>(table_), static_cast<const void*>(task_.queries),
                          static_cast<const void*>(task_.y)})
      free_device(p);
  }

  // Microseconds a launch, and of the host's plan.
  struct Times {
    float launch;
    double plan;
  };
  Times run(int split, bool overlap) const {
    const hopper::DecodePlanShape shape = case_.kind.shape(multiprocessors, split);
    const DevicePlan on_device(rows_, shape, case_.kind.head_dim);
    std::vector<hopper::DecodeRun> host(
        static_cast<size_t>(on_device.layout.bytes) / sizeof(hopper::DecodeRun) + 1);
    double spent = INFINITY;
    for (int i = 0; i < 9; ++i) {
      const auto start = std::chrono::steady_clock::now();
      hopper::plan_decode(rows_, shape, on_device.layout, host.data());
      const std::chrono::duration<double, std::micro> time =
          std::chrono::steady_clock::now() - start;
      spent = std::min(spent, time.count());
    }
    hopper::DecodeTask task = task_;
    on_device.set(task);
    const auto launch = [&](int i, cudaStream_t stream) {
      hopper::DecodeTask layer = task;
      layer.cache.pages += static_cast<size_t>(i % copies_) * pool_bytes_;
      layer.overlap = overlap && i > 0 ? 1 : 0;
      ATOM_REQUIRE(hopper::launch_decode(layer, stream));
    };
    return {graph_microseconds(std::max(copies_, 8), launch, 9), spent};
  }

  // The same by the plain kernel.
  float run_plain() const {
    cuda::AttentionTask t;
    const DecodeKind& k = case_.kind;
    const size_t rows = case_.contexts.size();
    const int longest = *std::max_element(case_.contexts.begin(), case_.contexts.end());
    const size_t width = static_cast<size_t>((k.heads + 2 * k.kv_heads) * k.head_dim);
    auto* qkv = device_array<float>(rows * width);
    auto* angles = device_array<float>(static_cast<size_t>(longest) * k.head_dim / 2);
    fill(qkv, rows * width, Fill::kFloat, 3);
    fill(angles, static_cast<size_t>(longest) * k.head_dim / 2, Fill::kFloat, 4);
    t.fresh_bytes = k.head_dim + 4;
    auto* fresh = device_array<uint8_t>(rows * 2 * k.kv_heads * t.fresh_bytes);
    std::vector<cuda::RowPlace> places;
    for (size_t r = 0; r < rows; ++r) {
      const int row = static_cast<int>(r), position = case_.contexts[r] - 1;
      places.push_back({rows_[r].page_table, position, row, position, position, row});
    }
    t.qkv = qkv, t.rope_cos = t.rope_sin = angles, t.fresh = fresh;
    t.rows = static_cast<int>(rows), t.heads = k.heads, t.kv_heads = k.kv_heads;
    t.head_dim = k.head_dim;
    t.places = device_copy(places);
    t.cache = task_.cache, t.open = task_.open, t.has_open_page = task_.has_open_page;
    t.y = task_.y;
    const float us = graph_microseconds(
        2, [&](int, cudaStream_t stream) { ATOM_REQUIRE(cuda::launch_attend(t, stream)); }, 1);
    for (const void* p : {static_cast<const void*>(qkv), static_cast<const void*>(angles),
                          static_cast<const void*>(fresh), static_cast<const void*>(t.places)})
      free_device(p);
    return us;
  }
  double bytes() const { return bytes_; }

 private:
  void make_tables() {
    ids_.resize(pages_);
    for (size_t i = 0; i < pages_; ++i) ids_[i] = static_cast<int32_t>(i);
    std::mt19937 random(1);
    std::shuffle(ids_.begin(), ids_.end(), random);
    table_ = device_copy(ids_);
    size_t at = 0;
    for (size_t r = 0; r < case_.contexts.size(); ++r) {
      const int context = case_.contexts[r];
      const size_t pages = static_cast<size_t>(context + 63) / 64;
      rows_.push_back({.context = context,
                       .page_table = table_ + at,
                       .ids = ids_.data() + at,
                       .open_page = static_cast<int>(r)});
      bytes_ += static_cast<double>(pages - (case_.kind.open_page ? 1 : 0)) *
                static_cast<double>(task_.cache.page_bytes);
      if (case_.kind.open_page)  // read 32 tokens at a time
        bytes_ += ((context - 1) % 64 + 32) / 32 * 0.5 * static_cast<double>(task_.open.page_bytes);
      at += pages;
    }
  }

  void make_queries() {
    const int dim = case_.kind.head_dim;
    const auto record = static_cast<size_t>(hopper::decode_query_bytes(dim));
    const size_t vectors = case_.contexts.size() * static_cast<size_t>(case_.kind.heads);
    std::vector<uint8_t> queries(vectors * record);
    for (size_t i = 0; i < vectors; ++i) {
      for (int d = 0; d < dim; ++d) {
        const __half value = __float2half(normal_at(5, i * static_cast<size_t>(dim) + d));
        std::memcpy(queries.data() + i * record + 2 * d, &value, 2);
      }
      const float scalars[2] = {0.01f, 0.5f};
      std::memcpy(queries.data() + i * record + 2 * dim, scalars, sizeof scalars);
    }
    task_.queries = device_copy(queries);
    task_.y = device_array<float>(vectors * static_cast<size_t>(dim));
    bytes_ += static_cast<double>(vectors) * static_cast<double>(record + 4u * dim);
  }

  Case case_;
  hopper::DecodeTask task_;
  size_t pages_ = 0, pool_bytes_ = 0;
  int copies_ = 1;
  double bytes_ = 0;
  int32_t* table_ = nullptr;
  std::vector<int32_t> ids_;
  std::vector<hopper::DecodeRow> rows_;
};

std::vector<Case> cases() {
  struct Cache {
    int key_bits, value_bits;
    bool open_page;
  };
  constexpr Cache kCaches[] = {{4, 4, false}, {4, 4, true}, {8, 4, true}, {8, 8, false}};
  constexpr int kHeads[][2] = {{32, 32}, {32, 8}, {64, 8}};
  constexpr int kEven[][2] = {{1, 4096},  {1, 32768},  {8, 1024},  {16, 1024},
                              {64, 1024}, {128, 1024}, {16, 4096}, {64, 4096}};
  std::vector<Case> all;
  std::mt19937 random(7);
  for (const Cache& c : kCaches)
    for (const auto& [heads, kv_heads] : kHeads) {
      const DecodeKind kind{heads, kv_heads, 128, c.key_bits, c.value_bits, c.open_page};
      for (const auto& [batch, context] : kEven)
        all.push_back({std::to_string(batch) + "x" + std::to_string(context), kind,
                       std::vector<int>(static_cast<size_t>(batch), context)});
      std::vector<int> ragged;
      for (int i = 0; i < 64; ++i) ragged.push_back(1 + static_cast<int>(random() % 4096));
      all.push_back({"64xU(1..4096)", kind, ragged});
    }
  for (const Cache& c : kCaches)
    all.push_back({"64x1024",
                   {32, 32, 96, c.key_bits, c.value_bits, c.open_page},
                   std::vector<int>(64, 1024)});
  return all;
}

// Lines "heads,kv_heads,batch,context,backend,us".
void one_case(const Case& c, uint8_t* pools, double half, bool plain) {
  const Bench bench(c, pools);
  const double bytes = bench.bytes();
  const Bench::Times alone = bench.run(0, false), chained = bench.run(0, true);
  const Bench::Times split = bench.run(kSplit, true);
  std::printf("%-34s %7.1f MB  %8.2f us %5.0f GB/s %3.0f %% | alone %8.2f us | split %8.2f us |",
              c.name().c_str(), bytes / 1e6, chained.launch, bytes / chained.launch / 1e3,
              bytes / chained.launch / kReadBandwidth * 1e8, alone.launch, split.launch);
  if (half > 0) std::printf(" f16 %8.2f us %5.2fx |", half, half / chained.launch);
  std::printf(" plan %5.1f us", chained.plan);
  if (plain) {
    const float us = bench.run_plain();
    std::printf(" | plain kernel %9.2f us %5.1fx", us, us / chained.launch);
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
  multiprocessors = device.multiProcessorCount;
  std::printf(
      "%s, %d multiprocessors; graphs of dependent launches, share of %.2f TB/s; alone: without "
      "dependence; split %d: independent of the batch\n",
      device.name, multiprocessors, kReadBandwidth / 1e12, kSplit);
  auto* pools = device_array<uint8_t>(kPoolBytes);
  fill_pools<<<multiprocessors * 8, 256>>>(reinterpret_cast<uint32_t*>(pools), kPoolBytes / 4);
  ATOM_REQUIRE(cudaDeviceSynchronize());
  for (const Case& c : cases()) {
    if (!told.wants(c.name())) continue;
    std::vector<int> shape;  // with one length for all; the file is of head_dim 128
    if (c.kind.head_dim == 128 && c.contexts == std::vector<int>(c.contexts.size(), c.contexts[0]))
      shape = {c.kind.heads, c.kind.kv_heads, static_cast<int>(c.contexts.size()), c.contexts[0]};
    one_case(c, pools, told.half_time(shape), told.plain);
  }
  return 0;
}
