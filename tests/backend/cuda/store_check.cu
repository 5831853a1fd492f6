// Compares the kernel of hopper_store.h with the plain one, byte by byte: pages, open pages or int8 rows, queries.
//   store_check        exit status 1 and the case when they differ
#include "backend/cuda/hopper_store.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "bench/cuda/decode_data.cuh"

namespace {

using namespace atom::bench;
using namespace atom::backend;

constexpr int kRows = 70,
              kPosition = 61;  // a chunk across the end of a page, its rows in pages 0 and 1

struct Case {
  DecodeKind kind;
  int hadamard;
  bool offset, queries, fresh;
  float clip;
};

// Rows of ordinary size, and some of what is not: zeros, NaN, infinities, subnormals, values beyond f16.
std::vector<float> make_rows(int width) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0, 1);
  std::vector<float> rows(static_cast<size_t>(kRows) * static_cast<size_t>(width));
  for (size_t i = 0; i < rows.size(); ++i) {
    const size_t row = i / static_cast<size_t>(width);
    const float scale[] = {1.0f, 3.0f, 1e-6f, 1e-40f, 1e5f, 1e30f, 0.0f};
    rows[i] = normal(random) * scale[row % 7];
    if (row == 10 && i % 97 == 0) rows[i] = NAN;
    if (row == 11 && i % 89 == 0) rows[i] = i % 2 == 0 ? kInfinity : -kInfinity;
    if (row == 12) rows[i] = 0.75f;
  }
  return rows;
}

struct Memory {
  cuda::AttentionTask task;
  size_t pages, open, fresh, queries;  // bytes

  explicit Memory(const Case& c) {
    const DecodeKind& kind = c.kind;
    task.rows = kRows;
    task.heads = kind.heads, task.kv_heads = kind.kv_heads, task.head_dim = kind.head_dim;
    task.hadamard = c.hadamard, task.kv_clip = c.clip;
    task.cache = kind.cache_view(), task.open = kind.open_view();
    task.has_open_page = kind.open_page ? 1 : 0;
    task.fresh_bytes = kind.head_dim + 16;
    task.query_bytes = hopper::decode_query_bytes(kind.head_dim);
    pages = 3 * static_cast<size_t>(task.cache.page_bytes);
    open = static_cast<size_t>(kRows) * static_cast<size_t>(task.open.page_bytes);
    fresh = static_cast<size_t>(kRows * 2 * kind.kv_heads) * static_cast<size_t>(task.fresh_bytes);
    queries = static_cast<size_t>(kRows * kind.heads) * static_cast<size_t>(task.query_bytes);
    task.cache.pages = device_array<uint8_t>(pages);
    task.open.pages = device_array<uint8_t>(open);
    if (c.fresh) task.fresh = device_array<uint8_t>(fresh);
    if (c.queries) task.queries = device_array<uint8_t>(queries);
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() {
    for (const void* p : {task.cache.pages, task.open.pages, task.fresh, task.queries})
      free_device(p);
  }
};

bool equal(const char* what, const uint8_t* a, const uint8_t* b, size_t bytes) {
  const std::vector<uint8_t> x = host_copy(a, bytes), y = host_copy(b, bytes);
  for (size_t i = 0; i < bytes; ++i)
    if (x[i] != y[i]) {
      std::printf("  %s: byte %zu is %d, not %d\n", what, i, y[i], x[i]);
      return false;
    }
  return true;
}

// The sums of a query's values may differ by roundings: kDim additions, each of at most 2^-24 of a partial sum below kDim * 16.
bool equal_queries(const cuda::AttentionTask& a, const cuda::AttentionTask& b, size_t bytes) {
  std::vector<uint8_t> x = host_copy(a.queries, bytes), y = host_copy(b.queries, bytes);
  const double most = std::pow(a.head_dim, 2) * 16 * 0x1p-24;
  for (size_t at = 2 * static_cast<size_t>(a.head_dim) + 4; at < bytes;
       at += static_cast<size_t>(a.query_bytes)) {
    float sums[2];
    std::memcpy(&sums[0], &x[at], 4);
    std::memcpy(&sums[1], &y[at], 4);
    if (!(std::fabs(sums[0] - sums[1]) <= most)) {
      std::printf("  queries: a sum is %g, not %g\n", sums[1], sums[0]);
      return false;
    }
    std::memset(&x[at], 0, 4);
    std::memset(&y[at], 0, 4);
  }
  if (x != y) std::printf("  queries differ\n");
  return x == y;
}

bool check(const Case& c) {
  const DecodeKind& kind = c.kind;
  const int width = (kind.heads + 2 * kind.kv_heads) * kind.head_dim;
  Memory plain(c), ours(c);
  float* qkv = device_copy(make_rows(width));
  std::vector<float> angles(static_cast<size_t>((kPosition + kRows) * kind.head_dim));
  for (size_t i = 0; i < angles.size(); ++i) angles[i] = std::sin(0.37f * static_cast<float>(i));
  float *cosines = device_copy(angles), *sines = device_copy(angles);
  float* offset = c.offset ? device_copy(angles) : nullptr;
  int32_t* table = device_copy(std::vector<int32_t>{2, 0, 1});
  std::vector<cuda::RowPlace> places;
  for (int row = 0; row < kRows; ++row)
    places.push_back({table, kPosition + row, 0, kPosition, kPosition + kRows - 1, row});
  cuda::RowPlace* where = device_copy(places);
  for (Memory* m : {&plain, &ours}) {
    m->task.qkv = qkv, m->task.key_offset = offset, m->task.places = where;
    m->task.rope_cos = cosines, m->task.rope_sin = sines + kind.head_dim / 2;
  }
  bool good = hopper::can_store(ours.task);
  ATOM_REQUIRE(launch_store_kv(plain.task, nullptr));
  ATOM_REQUIRE(hopper::launch_store(ours.task, nullptr));
  ATOM_REQUIRE(cudaDeviceSynchronize());
  good = equal("pages", plain.task.cache.pages, ours.task.cache.pages, plain.pages) && good;
  good = equal("open pages", plain.task.open.pages, ours.task.open.pages, plain.open) && good;
  if (c.fresh) good = equal("int8 rows", plain.task.fresh, ours.task.fresh, plain.fresh) && good;
  if (c.queries) good = equal_queries(plain.task, ours.task, plain.queries) && good;
  for (const void* p : {static_cast<const void*>(qkv), static_cast<const void*>(cosines),
                        static_cast<const void*>(sines), static_cast<const void*>(offset),
                        static_cast<const void*>(table), static_cast<const void*>(where)})
    free_device(p);
  return good;
}

// Every row has an open page of its own here, so that no two write one place.
void add_cases(std::vector<Case>& cases) {
  for (const DecodeKind& kind : decode_kinds({{4, 4}, {8, 2}, {12, 1}}))
    for (const int hadamard : {0, 16, 64, 128})
      for (const bool fresh : {false, true}) {
        if (fresh && !kind.open_page) continue;
        cases.push_back({kind, hadamard, hadamard == 64, true, fresh, 0.95f});
        cases.push_back({kind, hadamard, hadamard != 64, false, fresh, 1.0f});
      }
}

}  // namespace

int main() {
  std::vector<Case> cases;
  add_cases(cases);
  int failures = 0;
  for (const Case& c : cases) {
    if (check(c)) continue;
    ++failures;
    std::printf("FAILED %s, hadamard %d, %s offset, %s queries\n", c.kind.name().c_str(),
                c.hadamard, c.offset ? "an" : "no", c.queries ? "with" : "without");
  }
  std::printf("%zu cases, %d failures\n", cases.size(), failures);
  return failures == 0 ? 0 : 1;
}
