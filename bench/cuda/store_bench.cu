// Times the kernel that turns, quantizes and stores K, V and queries (hopper_store.h) beside the plain one.
// Rows in f32 and in f16.
//   store_bench        microseconds, GB/s read and written, the share of a copy of as many bytes
#include "backend/cuda/hopper_store.h"

#include "bench/cuda/decode_data.cuh"

namespace {

using namespace atom::bench;
using namespace atom::backend;

constexpr int kCopies = 8;  // of everything, so that many rows are more than the L2 holds

// Of so many bytes from device to device, rotating as the rows do.
float time_copy(size_t bytes) {
  const size_t step = (bytes + 255) / 256 * 256;
  auto* from = device_array<uint8_t>(kCopies * step);
  auto* to = device_array<uint8_t>(kCopies * step);
  const float us = graph_microseconds(4 * kCopies, [&](int i, cudaStream_t s) {
    const size_t at = static_cast<size_t>(i % kCopies) * step;
    ATOM_REQUIRE(cudaMemcpyAsync(to + at, from + at, bytes, cudaMemcpyDeviceToDevice, s));
  });
  free_device(from), free_device(to);
  return us;
}

void run(const DecodeKind& kind, int rows, bool from_f16) {
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
    void* qkv = device_array<uint8_t>(count * width * (from_f16 ? 2 : 4));
    fill(qkv, count * width, from_f16 ? Fill::kHalf : Fill::kFloat, owned.size());
    t.qkv = from_f16 ? nullptr : static_cast<const float*>(qkv);
    t.qkv_f16 = from_f16 ? static_cast<const uint16_t*>(qkv) : nullptr;
    t.cache.pages = device_array<uint8_t>(static_cast<size_t>(pages * t.cache.page_bytes));
    t.open.pages = device_array<uint8_t>(static_cast<size_t>(t.open.page_bytes));
    t.fresh = device_array<uint8_t>(count * static_cast<size_t>(2 * kind.kv_heads * t.fresh_bytes));
    t.queries = device_array<uint8_t>(count * static_cast<size_t>(kind.heads * t.query_bytes));
    for (void* p : {qkv, static_cast<void*>(t.cache.pages), static_cast<void*>(t.open.pages),
                    static_cast<void*>(t.fresh), static_cast<void*>(t.queries)})
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
  const double bytes =
      static_cast<double>(count) *
      (static_cast<double>(width) * (from_f16 ? 2 : 4) + stored + 2.0 * kind.heads * kind.head_dim);
  const float copy = time_copy(static_cast<size_t>(bytes / 2));
  std::printf(
      "%-22s %s x %5d  %8.2f us  %5.0f GB/s  %4.0f %% of copy (%.2f us) | plain %8.2f us  %5.2fx\n",
      kind.name().c_str(), from_f16 ? "f16" : "f32", rows, ours, bytes / ours * 1e-3,
      100.0 * copy / ours, copy, plain, plain / ours);
  for (void* p : owned) free_device(p);
}

}  // namespace

int main() {
  for (const DecodeKind& kind : {DecodeKind{32, 32, 128, 4, 4, false},
                                 {32, 32, 128, 4, 4, true},
                                 {64, 8, 128, 4, 4, true},
                                 {32, 8, 128, 8, 8, false},
                                 {32, 32, 96, 4, 4, false}})
    for (const bool from_f16 : {false, true})
      for (const int rows : {1, 16, 64, 1024, 4096}) run(kind, rows, from_f16);
  return 0;
}
