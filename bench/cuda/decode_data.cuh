// A decoding step's cache and plan on the device, for the check and the benchmark of the decode kernel.
#pragma once

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "backend/cuda/hopper_decode_plan.h"
#include "backend/cuda/tasks.h"
#include "bench/cuda/device.cuh"

namespace atom::bench {

namespace cuda = backend::cuda;
namespace hopper = backend::cuda::hopper;

template <typename T>
T* device_copy(const std::vector<T>& from) {
  T* to = device_array<T>(from.size());
  ATOM_REQUIRE(cudaMemcpy(to, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice));
  return to;
}
inline void free_device(const void* memory) { ATOM_REQUIRE(cudaFree(const_cast<void*>(memory))); }

// Heads and KV-cache of a model.
struct DecodeKind {
  int heads, kv_heads, head_dim, key_bits, value_bits;
  bool open_page;

  std::string name() const {
    char text[80];
    std::snprintf(text, sizeof text, "%s%s %d/%d d%d", cache(), open_page ? "+open" : "", heads,
                  kv_heads, head_dim);
    return text;
  }
  const char* cache() const {
    if (key_bits != value_bits) return "k8v4";
    return key_bits == 16 ? "f16" : key_bits == 8 ? "int8" : "int4";
  }
  // Pages of these bits (format::KvLayout).
  cuda::KvView view(int bits_of_keys, int bits_of_values) const {
    cuda::KvView kv;
    kv.tokens = hopper::kDecodeTokens;
    for (int side = 0; side < 2; ++side) {
      cuda::KvSide& s = kv.side[side];
      s.bits = side == 0 ? bits_of_keys : bits_of_values;
      s.row_bytes = int64_t{head_dim} * s.bits / 8;
      s.head_bytes = kv.tokens * (s.row_bytes + (s.bits < 16 ? 4 : 0));
      s.offset = kv.page_bytes;
      kv.page_bytes += kv_heads * s.head_bytes;
    }
    return kv;
  }
  cuda::KvView cache_view() const { return view(key_bits, value_bits); }
  cuda::KvView open_view() const { return view(8, 8); }

  // Without pages, queries, plan and result.
  hopper::DecodeTask task() const {
    hopper::DecodeTask t;
    t.heads = heads;
    t.kv_heads = kv_heads;
    t.head_dim = head_dim;
    t.group = heads / kv_heads;
    t.passes = hopper::decode_passes(heads, kv_heads);
    t.cache = cache_view();
    t.has_open_page = open_page ? 1 : 0;
    t.open = open_view();
    return t;
  }
  hopper::DecodePlanShape shape(int blocks, int split) const {
    return {.heads = kv_heads * hopper::decode_passes(heads, kv_heads),
            .unit_tokens = hopper::decode_unit_tokens(key_bits, value_bits, head_dim),
            .open_tokens = hopper::decode_open_tokens(head_dim),
            .open_page = open_page,
            .blocks = blocks,
            .split = split};
  }
};

// Every kind of cache at every head_dim that has a kernel, with these heads and KV heads.
inline std::vector<DecodeKind> decode_kinds(const std::vector<std::pair<int, int>>& heads) {
  struct Cache {
    int key_bits, value_bits;
    bool open_page;
  };
  const Cache caches[] = {{4, 4, false}, {4, 4, true},  {8, 4, false},
                          {8, 4, true},  {8, 8, false}, {16, 16, false}};
  std::vector<DecodeKind> kinds;
  for (const int dim : {128, 64, 96, 256})
    for (const Cache& c : caches)
      for (const auto& [all, kv] : heads)
        kinds.push_back({all, kv, dim, c.key_bits, c.value_bits, c.open_page});
  return kinds;
}

// A plan and its scratch memory on the device; set() points a task to it.
struct DevicePlan {
  static constexpr size_t kGuard = 64;  // floats behind the pieces that nobody may write
  hopper::DecodePlanLayout layout;
  uint8_t* plan;
  size_t piece_floats;
  float* pieces;

  DevicePlan(const std::vector<hopper::DecodeRow>& rows, const hopper::DecodePlanShape& shape,
             int head_dim)
      : layout(layout_of(rows, shape)),
        piece_floats(static_cast<size_t>(layout.pieces * hopper::decode_piece_floats(head_dim))),
        pieces(device_array<float>(piece_floats + kGuard)) {
    plan = device_array<uint8_t>(static_cast<size_t>(layout.bytes));
    fill(rows, shape);
    ATOM_REQUIRE(cudaMemset(pieces, 0xff, (piece_floats + kGuard) * sizeof(float)));
  }
  DevicePlan(const DevicePlan&) = delete;
  DevicePlan& operator=(const DevicePlan&) = delete;
  ~DevicePlan() {
    free_device(plan);
    free_device(pieces);
  }
  // Another plan in the same memory.
  void fill(const std::vector<hopper::DecodeRow>& rows,
            const hopper::DecodePlanShape& shape) const {
    std::vector<hopper::DecodeRun> host(
        static_cast<size_t>(layout.bytes) / sizeof(hopper::DecodeRun) + 1);
    const auto bytes = static_cast<size_t>(hopper::plan_decode(rows, shape, layout, host.data()));
    ATOM_REQUIRE(cudaMemcpy(plan, host.data(), bytes, cudaMemcpyHostToDevice));
  }
  static hopper::DecodePlanLayout layout_of(const std::vector<hopper::DecodeRow>& rows,
                                            const hopper::DecodePlanShape& shape) {
    int64_t units = 0;
    for (const hopper::DecodeRow& row : rows)
      units += hopper::decode_units(row.context, shape).all();
    return hopper::decode_plan_layout(shape,
                                      {.rows = static_cast<int>(rows.size()), .units = units});
  }
  void set(hopper::DecodeTask& task) const {
    layout.set(plan, &task);
    task.pieces = pieces;
  }
};

}  // namespace atom::bench
