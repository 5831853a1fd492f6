// The producer warps of the prefill kernel: K and V of the pages of a tile, as f16, into a ring of slots in shared memory.
// A slot holds 64 tokens of K or of V as panels of 64 dims (hopper_half.cuh), head_dim 96 as one and a half; the products leave out
// the rest.
//
// Codes: each thread has half of one token's row. It copies codes and {lo, step} to memory of its own a few slots ahead,
// then makes f16(lo + step * code) of them, with one rounding. From nibbles eight dims come in the order 0 4 1 5 2 6 3 7, those
// of an open page beside them too; queries and sums follow.
#pragma once

#include "backend/cuda/hopper.cuh"
#include "backend/cuda/hopper_decode_math.cuh"
#include "backend/cuda/hopper_prefill.h"
#include "backend/cuda/hopper_warp.cuh"

namespace atom::backend::cuda::hopper::prefill {

using decode::high_halves;
using decode::low_halves;

inline constexpr int kLanes = 32, kGroupThreads = 128;  // of a warpgroup
inline constexpr int kConsumers = 2;                    // warpgroups; one more produces
inline constexpr int kThreads = (kConsumers + 1) * kGroupThreads;
inline constexpr int kPanelDims = 64, kPanelRow = 128, kPanelBytes = kPrefillTokens * kPanelRow;

// A kernel: head_dim, bits of K and of V, whether there are open pages.
template <int kHeadDim, int kBitsOfKeys, int kBitsOfValues, bool kOpenPage>
struct Config {
  static constexpr int kDim = kHeadDim, kPanels = (kDim + kPanelDims - 1) / kPanelDims;
  static constexpr int kRest = kDim % kPanelDims;  // dims of a last panel that is not whole
  static_assert(kRest == 0 || kDim == 96);
  // With V, and a thread's sums of each.
  static constexpr int kProducts = kRest == 0 ? kPanels : 1, kSums = kDim / kProducts / 2;
  static constexpr int kKeyBits = kBitsOfKeys, kValueBits = kBitsOfValues;
  static constexpr bool kOpen = kOpenPage, kCodes = kKeyBits < 16;
  static constexpr int kSlotBytes = kPanels * kPanelBytes;
  // Four at least: a consumer that leaves out a page holds the V before it.
  static constexpr int kSlots = kDim > 128 ? 4 : kDim > 64 ? 6 : 8;
  // Slots whose copies are under way; f16 is copied to the slots themselves, of which two stay for the consumers.
  static constexpr int kAhead = kDim > 128 ? (kCodes ? 1 : 2) : 3;
  static constexpr int kBuffers = kCodes ? kAhead + 1 : 1;
  // Of a thread's codes, 16 bytes each.
  static constexpr int kChunks = !kCodes                              ? 1
                                 : kOpen || kKeyBits + kValueBits > 8 ? kDim / 32
                                                                      : kPanels;
  // With head_dim 256 the products read the queries from shared memory: registers are scarce.
  static constexpr bool kQueriesInRegisters = kDim <= 128;
  static_assert(kSlots - (kCodes ? 0 : kAhead) >= 2);
};

template <class C>
struct Shared {
  alignas(1024) uint8_t slots[C::kSlots][C::kSlotBytes];
  uint8_t queries[kConsumers][C::kSlotBytes];  // of a part: 64 rows, in panels
  uint4 codes[C::kBuffers][C::kChunks][kGroupThreads];
  uint32_t params[C::kBuffers][2][kGroupThreads];  // of the slot's side, and beside K those of V
  uint64_t full[C::kSlots], empty[C::kSlots];
  PrefillTile tile;
};

// Slots are filled in the order of halves: 2 unit + side.
template <class C>
struct Place {
  uint32_t slot, phase;
  __device__ explicit Place(int half)
      : slot(static_cast<uint32_t>(half) % C::kSlots),
        phase(static_cast<uint32_t>(half) / C::kSlots & 1) {}
};

// The pages that a tile's parts read, in order: those of the cache, then with open pages the parts' own in int8.
template <class C>
struct Units {
  int cache, all;
  __device__ explicit Units(const PrefillTile& tile)
      : cache(tile.part[1].page + (C::kOpen ? 0 : 1)),
        all(tile.part[1].page + 1 + (C::kOpen && tile.part[0].page != tile.part[1].page)) {}
};

__device__ inline uint32_t swizzled(int row, int chunk) {  // 16-byte chunk of a panel's row
  return static_cast<uint32_t>(row * kPanelRow + ((chunk ^ (row & 7)) << 4));
}

// What both feeds do with slots.
template <class C>
class Slots {
 public:
  __device__ explicit Slots(Shared<C>& shared)
      : slots_(shared.slots[0]),
        full_(shared_address(shared.full)),
        empty_(shared_address(shared.empty)) {}
  __device__ uint8_t* begin(int half) const {  // free now
    const Place<C> place(half);
    if (half >= C::kSlots) barrier_wait(empty_ + 8 * place.slot, place.phase ^ 1);
    return slots_ + place.slot * C::kSlotBytes;
  }
  __device__ void end(int half) const {  // this thread's part is written
    copy_engine_fence();
    __syncwarp();
    warp_arrive(full_ + 8 * Place<C>(half).slot);
  }

 private:
  uint8_t* slots_;
  uint32_t full_, empty_;
};

// f16 pages.
template <class C>
class HalfFeed {
 public:
  __device__ HalfFeed(const PrefillTask& t, int head, Shared<C>& shared)
      : t_(t),
        head_(head),
        table_(shared.tile.page_table),
        last_(shared.tile.last_position),
        units_(shared.tile),
        slots_(shared) {}

  __device__ void run() {
    int next = table_[0];
    for (int unit = 0; unit < units_.all; ++unit) {
      const uint8_t* page = t_.cache.pages + next * t_.cache.page_bytes;
      if (unit + 1 < units_.all) next = table_[unit + 1];
#pragma unroll
      for (int side = 0; side < 2; ++side) {
        const KvSide& of = t_.cache.side[side];
        const int half = 2 * unit + side;
        copy(slots_.begin(half), page + of.offset + head_ * of.head_bytes,
             last_ - unit * kPrefillTokens);
        copies_commit();
        if (half < C::kAhead) continue;
        copies_wait_but<C::kAhead>();
        slots_.end(half - C::kAhead);
      }
    }
    copies_wait_but<0>();
    for (int half = max(2 * units_.all - C::kAhead, 0); half < 2 * units_.all; ++half)
      slots_.end(half);
  }

 private:
  // Rows behind `last` are zero: what the page holds there may be NaN, and NaN times a weight of 0 is NaN.
  __device__ void copy(uint8_t* to, const uint8_t* from, int last) const {
    const int thread = static_cast<int>(threadIdx.x) % kGroupThreads;
    const auto copy_chunk = [&](int row, int panel, int chunk) {
      uint8_t* at = to + panel * kPanelBytes + swizzled(row, chunk);
      if (row <= last)
        copy_quad(shared_address(at), from + row * 2 * C::kDim + panel * kPanelRow + chunk * 16);
      else
        *reinterpret_cast<uint4*>(at) = uint4{0, 0, 0, 0};
    };
#pragma unroll
    for (int i = 0; i < C::kDim / kPanelDims * 4; ++i)
      copy_chunk(thread / 8 + i % 4 * 16, i / 4, thread % 8);
#pragma unroll
    for (int i = 0; i < C::kRest / 16; ++i)
      copy_chunk(thread / 4 + i * 32, C::kPanels - 1, thread % 4);
  }

  const PrefillTask& t_;
  int head_;
  const int32_t* table_;
  int last_;  // position that is stored
  Units<C> units_;
  Slots<C> slots_;
};

}  // namespace atom::backend::cuda::hopper::prefill
