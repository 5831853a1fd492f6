// Compares the kernel of hopper_store.h with the plain one, byte by byte: pages, open pages or int8 rows, queries; rows in
// f32 and f16. And the arithmetic of its codes with the definition, for all steps and widths.
//   store_check [tiny] [FILTER]        exit status 1 and the case when they differ; FILTER: a part of a kind's name, such as
//   d96; tiny: every seventh case and no definitions, for compute-sanitizer
#include "backend/cuda/hopper_store.h"
#include "backend/cuda/hopper_store_codes.cuh"

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
  bool from_f16 = false;
};

// Rows of ordinary size, and some of what is not: zeros, NaN, infinities, subnormals, values beyond f16 and, turned and
// transformed, on both sides of kMostQuery.
std::vector<float> make_rows(int width) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0, 1);
  std::vector<float> rows(static_cast<size_t>(kRows) * static_cast<size_t>(width));
  for (size_t i = 0; i < rows.size(); ++i) {
    const size_t row = i / static_cast<size_t>(width);
    const float scale[] = {1.0f, 3.0f, 1e-6f, 1e-40f, 1e5f, 1e30f, 2e34f, 0.0f};
    rows[i] = normal(random) * scale[row % 8];
    if (row == 10 && i % 97 == 0) rows[i] = NAN;
    if (row == 11 && i % 89 == 0) rows[i] = i % 2 == 0 ? kInfinity : -kInfinity;
    if (row == 12) rows[i] = 0.75f;
    if (row == 13) rows[i] = i % 3 == 0 ? 65504.0f : -65504.0f;  // the ends of f16
    if (row == 14) rows[i] = normal(random) * 1e-6f;             // subnormal there
  }
  return rows;
}

uint16_t to_f16(float x) { return __half_as_ushort(__float2half(x)); }

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

// Angles and tables of a case, for every Memory.
struct Places {
  float *cosines, *sines, *offset;
  int32_t* table;
  cuda::RowPlace* where;

  explicit Places(const Case& c) {
    std::vector<float> angles(static_cast<size_t>((kPosition + kRows) * c.kind.head_dim));
    for (size_t i = 0; i < angles.size(); ++i) angles[i] = std::sin(0.37f * static_cast<float>(i));
    cosines = device_copy(angles), sines = device_copy(angles);
    offset = c.offset ? device_copy(angles) : nullptr;
    table = device_copy(std::vector<int32_t>{2, 0, 1});
    std::vector<cuda::RowPlace> places;
    for (int row = 0; row < kRows; ++row)
      places.push_back({table, kPosition + row, 0, kPosition, kPosition + kRows - 1, row});
    where = device_copy(places);
  }
  Places(const Places&) = delete;
  Places& operator=(const Places&) = delete;
  ~Places() {
    for (const void* p : {static_cast<const void*>(cosines), static_cast<const void*>(sines),
                          static_cast<const void*>(offset), static_cast<const void*>(table),
                          static_cast<const void*>(where)})
      free_device(p);
  }
  void set(cuda::AttentionTask* task) const {
    task->key_offset = offset, task->places = where;
    task->rope_cos = cosines, task->rope_sin = sines + task->head_dim / 2;
  }
};

bool same(const Case& c, const Memory& a, const Memory& b, bool sums_too) {
  bool good = equal("pages", a.task.cache.pages, b.task.cache.pages, a.pages);
  good = equal("open pages", a.task.open.pages, b.task.open.pages, a.open) && good;
  if (c.fresh) good = equal("int8 rows", a.task.fresh, b.task.fresh, a.fresh) && good;
  if (c.queries && sums_too)
    good = equal("queries", a.task.queries, b.task.queries, a.queries) && good;
  else if (c.queries)
    good = equal_queries(a.task, b.task, a.queries) && good;
  return good;
}

// Ours against the plain kernel; with rows in f16, all of both against the plain kernel from the same values in f32.
bool check(const Case& c) {
  const Places places(c);
  std::vector<float> rows = make_rows((c.kind.heads + 2 * c.kind.kv_heads) * c.kind.head_dim);
  std::vector<uint16_t> halves;
  if (c.from_f16)
    for (float& x : rows) {
      halves.push_back(to_f16(x));
      x = __half2float(__ushort_as_half(halves.back()));
    }
  float* qkv = device_copy(rows);
  uint16_t* qkv_f16 = c.from_f16 ? device_copy(halves) : nullptr;
  Memory plain(c), ours(c), plain_of_f16(c), of_f16(c);
  for (Memory* m : {&plain, &ours, &plain_of_f16, &of_f16}) {
    places.set(&m->task);
    const bool half = m == &plain_of_f16 || m == &of_f16;
    m->task.qkv = half ? nullptr : qkv, m->task.qkv_f16 = half ? qkv_f16 : nullptr;
  }
  bool good = hopper::can_store(ours.task);
  ATOM_REQUIRE(launch_store_kv(plain.task, nullptr));
  ATOM_REQUIRE(hopper::launch_store(ours.task, nullptr));
  if (c.from_f16) {
    ATOM_REQUIRE(launch_store_kv(plain_of_f16.task, nullptr));
    ATOM_REQUIRE(hopper::launch_store(of_f16.task, nullptr));
  }
  ATOM_REQUIRE(cudaDeviceSynchronize());
  good = same(c, plain, ours, false) && good;
  if (c.from_f16) {
    good = same(c, plain, plain_of_f16, true) && good;
    good = same(c, ours, of_f16, true) && good;
  }
  free_device(qkv), free_device(qkv_f16);
  return good;
}

// wrong[0]: reciprocals of steps, wrong[1]: parameters that are not the definition's. All finite steps; as widths all
// positive floats.
__global__ void codes_kernel(uint32_t* wrong) {
  const uint64_t threads = uint64_t{gridDim.x} * blockDim.x;
  for (uint64_t i = blockIdx.x * uint64_t{blockDim.x} + threadIdx.x; i <= 0x7f800000u;
       i += threads) {
    if (i > 0 && i < 0x7c00) {
      const float step = __half2float(__ushort_as_half(static_cast<uint16_t>(i)));
      if (hopper::quick_reciprocal(step) != 1.0f / step) atomicAdd(wrong, 1u);
    }
    const float width = __uint_as_float(static_cast<uint32_t>(i));
    for (const float high : {15.0f, 255.0f})
      for (const float clip : {1.0f, 0.95f}) {
        const cuda::KvParams a = hopper::quick_params(0, width, true, high, clip),
                             b = cuda::kv_params(0, width, true, high, clip);
        if (a.lo != b.lo || a.step != b.step) atomicAdd(wrong + 1, 1u);
      }
  }
}
bool check_codes() {
  auto* wrong = device_array<uint32_t>(2);
  codes_kernel<<<2048, 256>>>(wrong);
  ATOM_REQUIRE(cudaGetLastError());
  const std::vector<uint32_t> counts = host_copy(wrong, 2);
  std::printf("%u reciprocals and %u parameters differ\n", counts[0], counts[1]);
  free_device(wrong);
  return counts[0] == 0 && counts[1] == 0;
}

// Every row has an open page of its own here, so that no two write one place.
void add_cases(std::vector<Case>& cases) {
  for (const DecodeKind& kind : decode_kinds({{4, 4}, {8, 2}, {12, 1}, {3, 3}}))
    for (const int hadamard : {0, 16, 64, 128})
      for (const bool fresh : {false, true}) {
        if (fresh && !kind.open_page) continue;
        for (const bool from_f16 : {false, true}) {
          cases.push_back({kind, hadamard, hadamard == 64, true, fresh, 0.95f, from_f16});
          cases.push_back({kind, hadamard, hadamard != 64, false, fresh, 1.0f, from_f16});
        }
      }
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<Case> all;
  add_cases(all);
  const bool tiny = argc > 1 && std::strcmp(argv[1], "tiny") == 0;
  const char* filter = argc > 1 + tiny ? argv[1 + tiny] : nullptr;
  int cases = 0, failures = tiny || check_codes() ? 0 : 1;
  for (size_t i = 0; i < all.size(); i += tiny ? 7 : 1) {
    const Case& c = all[i];
    if (filter != nullptr && c.kind.name().find(filter) == std::string::npos) continue;
    ++cases;
    if (check(c)) continue;
    ++failures;
    std::printf("FAILED %s, hadamard %d, %s offset, %s queries, from %s\n", c.kind.name().c_str(),
                c.hadamard, c.offset ? "an" : "no", c.queries ? "with" : "without",
                c.from_f16 ? "f16" : "f32");
  }
  std::printf("store_check: %d cases, %d failures\n", cases, failures);
  return failures == 0 ? 0 : 1;
}
