// The loads of a warp of the decode kernel: bulk copies from the pages of its segments into a ring of its own in
// shared memory, as many units ahead of the sums as the ring has stages. K and V of a unit have a barrier each.
#pragma once

#include "backend/cuda/hopper.cuh"
#include "backend/cuda/hopper_decode.h"
#include "backend/cuda/hopper_decode_math.cuh"

namespace atom::backend::cuda::hopper::decode {

inline constexpr int kLanes = 32;

constexpr int round_up(int x, int to) { return (x + to - 1) / to * to; }

// A kernel: head_dim, bits of K and of V, whether there are open pages, columns of a lane that hold query heads (1: one
// head a KV head).
template <int kHeadDim, int kBitsOfKeys, int kBitsOfValues, bool kOpenPage, int kLaneColumns>
struct Config {
  static constexpr int kDim = kHeadDim, kColumns = kLaneColumns;
  static constexpr int kKeyBits = kBitsOfKeys, kValueBits = kBitsOfValues;
  static constexpr bool kOpen = kOpenPage;
  static constexpr int kHeads = kColumns == 1 ? 1 : kDecodeColumns;
  static constexpr int kKeyRow = kDim * kKeyBits / 8, kValueRow = kDim * kValueBits / 8;
  static constexpr int kKeyParams = kKeyBits < 16 ? 4 : 0;  // bytes a token
  static constexpr int kValueParams = kValueBits < 16 ? 4 : 0;
  static constexpr int kTokens = decode_unit_tokens(kKeyBits, kValueBits, kDim);
  static constexpr int kOpenTokens = decode_open_tokens(kDim);
  static constexpr int kUnitsPerPage = kDecodeTokens / kTokens;
  static constexpr int kKeyBytes = kTokens * (kKeyRow + kKeyParams);
  static constexpr int kValueBytes = kTokens * (kValueRow + kValueParams);
  // One is enough for nearly all of the bandwidth; with more the first units all come late, since copies in flight
  // share it.
  static constexpr int kStages = kKeyBytes <= 2304 ? 2 : 1;
  static constexpr int kQueryBytes = static_cast<int>(decode_query_bytes(kDim));
  // Of K, V, the queries and the DecodeSegment of the segment that begins with the unit. K and V begin at multiples of
  // 128 bytes, as in the pages: the copies write whole lines (64 where shared memory is too scarce).
  static constexpr int kAlign = kDim > 128 && kKeyBits == 16 ? 64 : 128;
  static constexpr int kValuesAt = round_up(kKeyBytes, kAlign);
  static constexpr int kQueriesAt = kValuesAt + round_up(kValueBytes, 16);
  static constexpr int kHeaderAt = kQueriesAt + kHeads * kQueryBytes;
  static constexpr int kStage =
      round_up(kHeaderAt + static_cast<int>(sizeof(DecodeSegment)), kAlign);
  static constexpr int kRing = kStage * kStages;
  static constexpr int kSlotFloats =
      kHeads * (kDim + 4);  // of a partial result: sums, shift, mass, two unused
  static constexpr int kMergesAtHand = kDim > 128 ? 4 : 16;  // in shared memory
  static constexpr int64_t kPieceFloats = decode_piece_floats(kDim);
  static_assert(!kOpen || kOpenTokens * (kDim + 4) <= kKeyBytes, "K of an open unit fits a stage");
  static_assert(!kOpen || kOpenTokens * (kDim + 4) <= kValueBytes, "and so does V");
  static_assert(kSlotFloats * 4 <= kRing,
                "the partial result of a warp's last segment fits its ring");
};

// Query heads of a pass, and where the first stands among all of the step.
struct Heads {
  int count;
  int kv_head;
  int64_t first;  // row * heads + head
};
__device__ inline Heads heads_of(const DecodeTask& t, int row, int head) {
  const int kv_head = t.passes == 1 ? head : head / t.passes;
  const int skipped = (head - kv_head * t.passes) * kDecodeColumns;
  return {min(t.group - skipped, kDecodeColumns), kv_head,
          int64_t{row} * t.heads + kv_head * t.group + skipped};
}

// Where a unit lies: part `part` of a page.
struct Source {
  const uint8_t* keys = nullptr;  // of the page and head; null: no unit is left
  int64_t values_at = 0;          // from there to V, where K and V have different bits
  int part = 0;
  bool open = false;                 // in an open page
  const uint8_t* queries = nullptr;  // of the segment that begins here
  uint32_t query_bytes = 0;          // 0: none does
};

template <class C>
class Feed {
 public:
  // The words of a segment are in the lanes; those of the next one are loaded a segment ahead.
  __device__ Feed(const DecodeTask& task, int warp) : t_(task), lane_(threadIdx.x % kLanes) {
    policy_ = evict_first_policy();
    ahead_ = word_of(warp);
  }
  __device__ void begin() {
    words_ = ahead_;
    const int row = field(0), head = field(1), open_page = field(6), next = field(11);
    unit_ = field(2);
    end_ = unit_ + field(3);
    cache_units_ = field(4);
    table_ = reinterpret_cast<const int32_t*>(static_cast<uint32_t>(field(8)) |
                                              static_cast<uint64_t>(static_cast<uint32_t>(field(9)))
                                                  << 32);
    more_ = next >= 0;
    if (more_) ahead_ = word_of(next);
    const Heads heads = heads_of(t_, row, head);
    queries_ = t_.queries + heads.first * C::kQueryBytes;
    query_bytes_ = static_cast<uint32_t>(heads.count * C::kQueryBytes);
    const KvSide(&cache)[2] = t_.cache.side;
    pages_ = t_.cache.pages + heads.kv_head * cache[0].head_bytes;
    if constexpr (C::kKeyBits != C::kValueBits)
      values_at_ = cache[1].offset + heads.kv_head * (cache[1].head_bytes - cache[0].head_bytes);
    if (C::kOpen)
      open_ = t_.open.pages + open_page * t_.open.page_bytes +
              heads.kv_head * t_.open.side[0].head_bytes;
    const int first_page = unit_ / C::kUnitsPerPage;
    page_ = 0;
    part_ = unit_ % C::kUnitsPerPage;
    table_ += first_page;
    pages_left_ = (min(end_, cache_units_) + C::kUnitsPerPage - 1) / C::kUnitsPerPage - first_page;
    load_window();
  }

  // Whether the next unit is the last of its segment, which may hold the newest token.
  __device__ bool at_last() const { return unit_ == end_ - 1; }
  __device__ bool done() const { return unit_ == end_; }

  // The next unit. When it begins a segment, that goes to `header`.
  __device__ Source next(uint32_t header) {
    if (done()) return {};
    Source source = C::kOpen && unit_ >= cache_units_ ? open_unit() : cache_unit();
    if (query_bytes_ > 0) {
      source.queries = queries_;
      source.query_bytes = query_bytes_;
      query_bytes_ = 0;
      if (lane_ < static_cast<int>(sizeof(DecodeSegment) / 4))
        store_word(header + 4 * lane_, static_cast<uint32_t>(words_));
    }
    if (++unit_ == end_ && more_) begin();
    return source;
  }

  __device__ void copy_keys(uint32_t to, const Source& source, uint32_t barrier) const {
    copy_side<C::kKeyRow, C::kKeyParams>(to, source, source.keys, source.query_bytes, barrier);
  }
  __device__ void copy_values(uint32_t to, const Source& source, uint32_t barrier) const {
    // From K to V of a head in its page: where both have the same bits, the same for every head.
    const int64_t ahead = C::kOpen && source.open        ? t_.open.side[1].offset
                          : C::kKeyBits == C::kValueBits ? t_.cache.side[1].offset
                                                         : source.values_at;
    copy_side<C::kValueRow, C::kValueParams>(to, source, source.keys + ahead, 0, barrier);
  }
  // copy_keys expects them too.
  __device__ void copy_queries(uint32_t to, const Source& source, uint32_t barrier) const {
    if (lane_ == 0 && source.query_bytes > 0)
      copy_bulk(to, source.queries, source.query_bytes, barrier, policy_);
  }

 private:
  __device__ int word_of(int segment) const {
    const auto* words = reinterpret_cast<const int*>(t_.segments + segment);
    return __ldg(words + lane_ % (sizeof(DecodeSegment) / 4));
  }
  __device__ int field(int i) const { return __shfl_sync(~0u, words_, i); }

  // Ids of the next 32 pages, one a lane.
  __device__ void load_window() {
    window_ = lane_ < pages_left_ ? __ldg(table_ + lane_) : 0;
    table_ += kLanes;
    pages_left_ -= kLanes;
  }

  // Codes and params of the unit, from a side's `page`; an open page's are int8. The barrier expects `more` bytes too.
  template <int kRow, int kParams>
  __device__ void copy_side(uint32_t to, const Source& source, const uint8_t* page, uint32_t more,
                            uint32_t barrier) const {
    if (lane_ != 0) return;
    if (C::kOpen && source.open)
      copy_unit<C::kOpenTokens, C::kDim, 4>(to, source.part, page, more, barrier);
    else
      copy_unit<C::kTokens, kRow, kParams>(to, source.part, page, more, barrier);
  }
  template <int kTokens, int kRow, int kParams>
  __device__ void copy_unit(uint32_t to, int part, const uint8_t* page, uint32_t more,
                            uint32_t barrier) const {
    constexpr int kCodes = kTokens * kRow, kScalars = kTokens * kParams;
    constexpr bool kApart = kParams > 0 && kTokens < kDecodeTokens;
    const uint8_t* codes = page + part * kCodes;
    barrier_expect(barrier, kCodes + kScalars + more);
    copy_bulk(to, codes, kApart ? kCodes : kCodes + kScalars, barrier, policy_);
    if constexpr (kApart)
      copy_bulk(to + kCodes, page + kDecodeTokens * kRow + part * kScalars, kScalars, barrier,
                policy_);
  }

  __device__ Source cache_unit() {
    int id = page_ < 4 ? field(12 + page_) : -1;
    if (id < 0) id = __shfl_sync(~0u, window_, page_ % kLanes);
    Source source;
    source.keys = pages_ + id * t_.cache.page_bytes;
    source.values_at = values_at_;  // of this segment: begin() may be called before the copy
    if constexpr (C::kUnitsPerPage > 1) {
      source.part = part_;
      if (++part_ < C::kUnitsPerPage) return source;
      part_ = 0;
    }
    if (++page_ % kLanes == 0) load_window();
    return source;
  }

  __device__ Source open_unit() const {
    Source source;
    source.open = true;
    source.keys = open_;
    source.part = unit_ - cache_units_;
    return source;
  }

  const DecodeTask& t_;
  int lane_;
  uint64_t policy_;
  int words_ = 0, ahead_;
  const uint8_t *pages_, *open_ = nullptr, *queries_;
  int64_t values_at_ = 0;
  uint32_t query_bytes_ = 0;  // until they are on their way
  const int32_t* table_;
  int unit_ = 0, end_ = 0, cache_units_;
  bool more_ = false;
  int page_, part_, pages_left_;  // page_: within the segment
  int window_;
};

}  // namespace atom::backend::cuda::hopper::decode
