// The producer warps' work on pages of codes (hopper_prefill_feed.cuh).
#pragma once

#include "backend/cuda/hopper_half.cuh"
#include "backend/cuda/hopper_prefill_feed.cuh"

namespace atom::backend::cuda::hopper::prefill {

inline constexpr uint32_t kNan = 0x7e007e00u;

__device__ inline bool is_finite(uint32_t params) {
  return (params & 0x7c00u) != 0x7c00u && (params & 0x7c000000u) != 0x7c000000u;
}

// lo + step * code of pairs of codes, rounded once.
struct Scale {
  __half2 lo, step;
  __device__ explicit Scale(uint32_t params) {
    const uint32_t low = __byte_perm(params, 0, 0x1010), high = __byte_perm(params, 0, 0x3232);
    lo = *reinterpret_cast<const __half2*>(&low);
    step = *reinterpret_cast<const __half2*>(&high);
  }
  // x: codes n as f16 of `unit` * n + 1024, exact up to n = 255; unit 1 or 16.
  template <int kUnit>
  __device__ uint32_t operator()(uint32_t x) const {
    __half2 n = *reinterpret_cast<const __half2*>(&x);
    if constexpr (kUnit == 1)
      n = __hadd2(n, __float2half2_rn(-1024.0f));
    else
      n = __hfma2(n, __float2half2_rn(1.0f / 16), __float2half2_rn(-64.0f));
    n = __hfma2(n, step, lo);
    return *reinterpret_cast<const uint32_t*>(&n);
  }
};

// Eight nibbles, in the order 0 4 1 5 2 6 3 7.
__device__ inline uint4 widen_nibbles(uint32_t w, const Scale& scale) {
  const uint32_t v = w >> 8;
  return {scale.operator()<1>(masked_or<0x000f000fu>(w, 0x64006400u)),
          scale.operator()<16>(masked_or<0x00f000f0u>(w, 0x64006400u)),
          scale.operator()<1>(masked_or<0x000f000fu>(v, 0x64006400u)),
          scale.operator()<16>(masked_or<0x00f000f0u>(v, 0x64006400u))};
}
// Eight bytes, in their order or in that of nibbles.
template <bool kAsNibbles>
__device__ inline uint4 widen_bytes(uint32_t a, uint32_t b, const Scale& scale) {
  constexpr uint32_t kHigh = 0x64646464u;
  if constexpr (kAsNibbles) {
    const uint32_t low = __byte_perm(a, b, 0x5140), high = __byte_perm(a, b, 0x7362);
    a = low, b = high;
  }
  return {scale.operator()<1>(__byte_perm(a, kHigh, 0x4140)),
          scale.operator()<1>(__byte_perm(a, kHigh, 0x4342)),
          scale.operator()<1>(__byte_perm(b, kHigh, 0x4140)),
          scale.operator()<1>(__byte_perm(b, kHigh, 0x4342))};
}

template <class C>
class CodeFeed {
 public:
  __device__ CodeFeed(const PrefillTask& t, int head, Shared<C>& shared)
      : t_(t),
        tile_(shared.tile),
        head_(head),
        thread_(static_cast<int>(threadIdx.x) % kGroupThreads),
        token_(thread_ / 2),
        table_(shared.tile.page_table),
        last_(shared.tile.last_position),
        units_(shared.tile),
        slots_(shared),
        shared_(shared) {}

  __device__ void run() {
    if (units_.cache > 0) next_id_ = table_[0];
    begin<0>(0);
    if constexpr (C::kAhead == 3) begin<1>(0), begin<0>(1);
    static_assert(C::kAhead == 1 || C::kAhead == 3);
    for (int unit = 0; unit < units_.all; ++unit) {
      fill<0>(unit);
      fill<1>(unit);
    }
  }

 private:
  template <int kSide>
  static constexpr int kStored = kSide == 0 ? C::kKeyBits : C::kValueBits;  // bits
  struct Row {
    const uint8_t *codes, *params;
  };

  __device__ bool is_stored(int unit) const {  // this thread's token
    return position(unit) <= last_;
  }
  __device__ int position(int unit) const {
    const int page = unit < units_.cache ? unit : tile_.part[unit - units_.cache].page;
    return page * kPrefillTokens + token_;
  }
  __device__ Row row_of(const KvView& kv, int64_t page, int side) const {
    const KvSide& of = kv.side[side];
    const uint8_t* base = kv.pages + page * kv.page_bytes + of.offset + head_ * of.head_bytes;
    return {base + token_ * of.row_bytes, base + kPrefillTokens * of.row_bytes + 4 * token_};
  }
  __device__ Row own_row(int unit, int side) const {
    const int ahead = position(unit) - tile_.first_position;
    if (ahead < 0) return row_of(t_.open, tile_.open_page, side);
    const int64_t vector = (int64_t{tile_.first_row + ahead} * 2 + side) * t_.kv_heads + head_;
    const uint8_t* codes = t_.fresh + vector * t_.fresh_bytes;
    return {codes, codes + C::kDim};
  }

  // Of the 16-byte chunks of a row, this thread's i-th: the two threads of a row write four chunks of a panel apart from each other.
  // A last half panel of nibbles is one chunk, of which each thread has eight bytes, of bytes one chunk for each.
  template <int kBits>
  __device__ int chunk(int i) const {
    const int part = thread_ % 2;
    const bool in_rest = C::kRest > 0 && i >= C::kDim / kPanelDims * 2;
    if (kBits == 4 || in_rest) return 2 * i + part;
    return i / 2 * 4 + 2 * part + i % 2;
  }
  template <int kBits>
  static constexpr int kOwn = C::kDim / 32 * kBits / 8;  // chunks
  template <int kBits>
  static constexpr bool kHasHalf = C::kDim / 32 * kBits % 8 != 0;

  // Starts the copies of a half.
  template <int kSide>
  __device__ void begin(int unit) {
    if (unit < units_.all) {
      if (kSide == 0) {
        id_ = next_id_;
        if (unit + 1 < units_.cache) next_id_ = table_[unit + 1];
      }
      if (is_stored(unit)) {
        if (!C::kOpen || unit < units_.cache)
          copy<kSide, kStored<kSide>>(unit, row_of(t_.cache, id_, kSide),
                                      row_of(t_.cache, id_, 1).params);
        else
          copy<kSide, 8>(unit, own_row(unit, kSide), own_row(unit, 1).params);
      }
    }
    copies_commit();
  }
  template <int kSide, int kBits>
  __device__ void copy(int unit, const Row& row, const uint8_t* value_params) {
    const int buffer = (2 * unit + kSide) % C::kBuffers;
#pragma unroll
    for (int i = 0; i < kOwn<kBits>; ++i)
      copy_quad(shared_address(&shared_.codes[buffer][i][thread_]),
                row.codes + 16 * chunk<kBits>(i));
    if constexpr (kHasHalf<kBits>)
      copy_pair(shared_address(&shared_.codes[buffer][kOwn<kBits>][thread_]),
                row.codes + 32 * kOwn<kBits> + 8 * (thread_ % 2));
    copy_word(shared_address(&shared_.params[buffer][0][thread_]), row.params);
    if (kSide == 0) copy_word(shared_address(&shared_.params[buffer][1][thread_]), value_params);
  }

  template <int kSide>
  __device__ void fill(int unit) {
    begin<(kSide + C::kAhead) % 2>(unit + (kSide + C::kAhead) / 2);
    copies_wait_but<C::kAhead>();
    const int half = 2 * unit + kSide;
    uint8_t* to = slots_.begin(half);
    if (!C::kOpen || unit < units_.cache)
      widen<kSide, kStored<kSide>>(unit, to);
    else
      widen<kSide, 8>(unit, to);
    slots_.end(half);
  }

  // Tokens that are not stored are zero. A V that is not finite becomes zero beside a K of NaN: 0 times NaN would spoil
  // rows that do not read it.
  template <int kSide>
  __device__ uint32_t params(int unit, int buffer) const {
    if (!is_stored(unit)) return 0;
    const uint32_t own = shared_.params[buffer][0][thread_];
    if (kSide == 0) return is_finite(shared_.params[buffer][1][thread_]) ? own : kNan;
    return is_finite(own) ? own : 0;
  }
  template <int kSide, int kBits>
  __device__ void widen(int unit, uint8_t* to) const {
    const int buffer = (2 * unit + kSide) % C::kBuffers;
    const Scale scale(params<kSide>(unit, buffer));
    const auto put = [&](int eight, const uint4& halves) {
      *reinterpret_cast<uint4*>(to + eight / 8 * kPanelBytes + swizzled(token_, eight % 8)) =
          halves;
    };
    constexpr int kTogether = C::kDim > 128 ? 2 : 4;  // more need more registers than there are
#pragma unroll kTogether
    for (int i = 0; i < kOwn<kBits>; ++i) {
      const uint4 codes = shared_.codes[buffer][i][thread_];
      const uint32_t w[4] = {codes.x, codes.y, codes.z, codes.w};
      constexpr int kParts = kBits == 4 ? 4 : 2;  // eight dims each
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        const int eight = kParts * chunk<kBits>(i) + part;
        if constexpr (kBits == 4)
          put(eight, widen_nibbles(w[part], scale));
        else
          put(eight, widen_bytes<kStored<kSide> == 4>(w[2 * part], w[2 * part + 1], scale));
      }
    }
    if constexpr (kHasHalf<kBits>) {
      const uint2 codes =
          *reinterpret_cast<const uint2*>(&shared_.codes[buffer][kOwn<kBits>][thread_]);
      const int eight = 8 * kOwn<kBits> + 2 * (thread_ % 2);
      put(eight, widen_nibbles(codes.x, scale));
      put(eight + 1, widen_nibbles(codes.y, scale));
    }
  }

  const PrefillTask& t_;
  const PrefillTile& tile_;  // in shared memory
  int head_, thread_, token_;
  const int32_t* table_;
  int last_;  // position that is stored
  Units<C> units_;
  Slots<C> slots_;
  Shared<C>& shared_;
  int id_ = 0, next_id_ = 0;
};

}  // namespace atom::backend::cuda::hopper::prefill
