// Times the kernel that turns, quantizes and stores K, V and queries (hopper_store.h) beside the plain one.
//   store_bench        microseconds, GB/s read and written
#include "backend/cuda/hopper_store.h"

#include "bench/cuda/decode_data.cuh"

namespace {

using namespace atom::bench;
using namespace atom::backend;

constexpr int kCopies = 8;  // of everything, so that many rows are more than the L2 holds

void run(const DecodeKind& kind, int rows) {
  const auto count = static_cast<size_t>(rows);
  const size_t width = static_cast<size_t>((kind.heads + 2 * kind.kv_heads) * kind.head_dim);
  std::vector<cuda::AttentionTask> tasks(kCopies);
  const int pages = (rows + 63) / 64;
  std::vector<int32_t> table;
  for (int i = 0; i < pages; ++i) table.push_back(pages - 1 - i);
  int32_t* on_device = device_copy(table);
  std::vector<cuda::RowPlace> places;
  for (int row = 0; row < rows; ++row) places.push_back({on_device, row, 0, 0, rows - 1, 0});
  cuda::RowPlace* where = device_copy(places);
  float* angles = device_array<float>(count * static_cast<size_t>(kind.head_dim));
  fill(angles, count * static_cast<size_t>(kind.head_dim), Fill::kFloat, 3);
  std::vector<void*> owned = {on_device, where, angles};
  for (cuda::AttentionTask& t : tasks) {
    t.rows = rows, t.heads = kind.heads, t.kv_heads = kind.kv_heads, t.head_dim = kind.head_dim;
    t.cache = kind.cache_view(), t.open = kind.open_view();
    t.has_open_page = kind.open_page ? 1 : 0;
    t.hadamard = 128;
    t.rope_cos = t.rope_sin = angles;
    t.places = where;
    t.fresh_bytes = kind.head_dim + 16;
    t.query_bytes = hopper::decode_query_bytes(kind.head_dim);
    float* qkv = device_array<float>(count * width);
    fill(qkv, count * width, Fill::kFloat, owned.size());
    t.qkv = qkv;
    t.cache.pages = device_array<uint8_t>(static_cast<size_t>(pages * t.cache.page_bytes));
    t.open.pages = device_array<uint8_t>(static_cast<size_t>(t.open.page_bytes));
    t.fresh = device_array<uint8_t>(count * static_cast<size_t>(2 * kind.kv_heads * t.fresh_bytes));
    t.queries = device_array<uint8_t>(count * static_cast<size_t>(kind.heads * t.query_bytes));
    for (void* p : {static_cast<void*>(qkv), static_cast<void*>(t.cache.pages),
                    static_cast<void*>(t.open.pages), static_cast<void*>(t.fresh),
                    static_cast<void*>(t.queries)})
      owned.push_back(p);
  }
  const auto at = [&](int i) -> const cuda::AttentionTask& {
    return tasks[static_cast<size_t>(i % kCopies)];
  };
  const float plain = graph_microseconds(
      4 * kCopies, [&](int i, cudaStream_t s) { ATOM_REQUIRE(launch_store_kv(at(i), s)); });
  const float ours = graph_microseconds(
      4 * kCopies, [&](int i, cudaStream_t s) { ATOM_REQUIRE(hopper::launch_store(at(i), s)); });
  const double stored = static_cast<double>(kind.cache_view().page_bytes) / 64 +
                        (kind.open_page ? 2.0 * kind.kv_heads * (kind.head_dim + 4) : 0);
  const double bytes = static_cast<double>(count) *
                       (static_cast<double>(width) * 4 + stored + 2.0 * kind.heads * kind.head_dim);
  std::printf("%-22s x %5d  %8.2f us  %5.0f GB/s | plain %8.2f us  %5.2fx\n", kind.name().c_str(),
              rows, ours, bytes / ours * 1e-3, plain, plain / ours);
  for (void* p : owned) free_device(p);
}

}  // namespace

int main() {
  for (const DecodeKind& kind : {DecodeKind{32, 32, 128, 4, 4, false},
                                 {32, 32, 128, 4, 4, true},
                                 {64, 8, 128, 4, 4, true},
                                 {32, 8, 128, 8, 8, false}})
    for (const int rows : {1, 16, 64, 1024, 4096}) run(kind, rows);
  return 0;
}
