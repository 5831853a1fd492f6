// Flat hash map from a pair of token ids to a 32-bit value, for the merges of BPE.
//
//   PairMap ranks(merge_count);
//   ranks.assign(a, b, rank);
//   if (ranks.find(a, b) != PairMap::kNone) ...
//
// Open addressing with linear probing, at most half full.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace atom::text {

class PairMap {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;

  explicit PairMap(size_t capacity = 0)
      : slots_(std::bit_ceil(2 * capacity + 2)), mask_(slots_.size() - 1) {}

  // At most `capacity` different pairs; ids >= 0; value != kNone. The last value of a pair counts.
  void assign(int32_t a, int32_t b, uint32_t value) {
    const uint64_t key = key_of(a, b);
    size_t at = hash(key) & mask_;
    while (slots_[at].value != kNone && slots_[at].key != key) at = (at + 1) & mask_;
    slots_[at] = {key, value};
  }

  uint32_t find(int32_t a, int32_t b) const {
    const uint64_t key = key_of(a, b);
    size_t at = hash(key) & mask_;
    while (slots_[at].value != kNone && slots_[at].key != key) at = (at + 1) & mask_;
    return slots_[at].value;
  }

 private:
  struct Slot {
    uint64_t key = 0;
    uint32_t value = kNone;
  };

  static uint64_t key_of(int32_t a, int32_t b) {
    return uint64_t{static_cast<uint32_t>(a)} << 32 | static_cast<uint32_t>(b);
  }
  static uint64_t hash(uint64_t key) {
    key *= 0x9E3779B97F4A7C15u;
    key ^= key >> 32;
    key *= 0xD6E8FEB86659FD93u;
    return key ^ key >> 29;
  }

  std::vector<Slot> slots_;
  size_t mask_;
};

}  // namespace atom::text
