// The loads of a warp of the decode kernel: bulk copies from the pages of its segments into a ring of its own in
// shared memory, as many units ahead of the sums as the ring has stages. K and V of a unit have a barrier each.
#pragma once

#include "backend/cuda/hopper.cuh"
#include "backend/cuda/hopper_decode.h"
#include "backend/cuda/hopper_decode_math.cuh"

namespace atom::backend::cuda::hopper::decode {

inline constexpr int kLanes = 32;

// A segment is the part of a warp's run in one row and head. What its sums need to know, in words: row, head, first unit,
// unit behind the last, cache_units of the row, tokens of the last unit, where the result goes, and what else.
inline constexpr int kHeaderWords = 8;
inline constexpr int kWhole = -1;  // place: y; otherwise a slot of the block
inline constexpr int kPiece = -2;  // place: a piece, `what` says which
inline constexpr int kMore = 256;  // added to the tokens of the last unit: the run goes on

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
  static constexpr int kQueryBytes = static_cast<int>(decode_query_bytes(kDim));
  // Of K, V, the queries and the Segment that begins with the unit. K and V begin at multiples of
  // 128 bytes, as in the pages: the copies write whole lines (64 where shared memory is too scarce).
  static constexpr int kAlign = kDim > 128 && kKeyBits == 16 ? 64 : 128;
  static constexpr int kValuesAt = round_up(kKeyBytes, kAlign);
  static constexpr int kQueriesAt = kValuesAt + round_up(kValueBytes, 16);
  static constexpr int kHeaderAt = kQueriesAt + kHeads * kQueryBytes;
  static constexpr int kStage = round_up(kHeaderAt + kHeaderWords * 4, kAlign);
  static constexpr int kSlotFloats =
      kHeads * (kDim + 4);  // of a partial result: sums, shift, mass, two unused
  static constexpr int kMergesAtHand = kDim > 128 ? 6 : 16;  // in shared memory
  // One is enough for nearly all of the bandwidth. Two let more be on its way while the kernel before ends.
  static constexpr bool kTwoFit =
      kDecodeWarps * (2 * kStage + kSlotFloats * 4 + 32) + 1024 <= 227 * 1024;
  static constexpr int kStages = kTwoFit ? 2 : 1;
  // Copies in flight share the bandwidth, so the first units of a warp all come late: a run of fewer units starts with
  // one copy, and the next when that is there.
  static constexpr int kDeepUnits = 4;
  static constexpr int kRing = kStage * kStages;
  // Of a row's last unit only the tokens that there are. Elsewhere units have fewer bytes, and longer code costs as much.
  static constexpr bool kCopiesFilled = kKeyBits == 8 && kValueBits == 8;
  static constexpr int64_t kPieceFloats = decode_piece_floats(kDim);
  static_assert(!kOpen || kOpenTokens * (kDim + 4) <= kKeyBytes, "K of an open unit fits a stage");
  static_assert(!kOpen || kOpenTokens * (kDim + 4) <= kValueBytes, "and so does V");
  static_assert(kSlotFloats * 4 <= kRing,
                "the partial result of a warp's last segment fits its ring");
};

// A call: what stands in a branch that is hardly ever taken must not be worked out ahead of it.
static __device__ __noinline__ int quotient(int x, int by) { return x / by; }

// Query heads of a pass, and where the first stands among all of the step.
struct Heads {
  int count;
  int kv_head;
  int64_t first;  // row * heads + head
};
__device__ inline Heads heads_of(const DecodeTask& t, int row, int head) {
  const int kv_head = t.passes == 1 ? head : quotient(head, t.passes);
  const int skipped = (head - kv_head * t.passes) * kDecodeColumns;
  return {min(t.group - skipped, kDecodeColumns), kv_head,
          int64_t{row} * t.heads + kv_head * t.group + skipped};
}

// Where a unit lies: part `part` of a page.
struct Source {
  const uint8_t* keys = nullptr;  // of the page and head; null: no unit is left
  int64_t values_at = 0;          // from there to V, where K and V have different bits
  int part = 0;
  int tokens = 0;                    // that it has, where only they are copied; 0: all
  bool open = false;                 // in an open page
  const uint8_t* queries = nullptr;  // of the segment that begins here
  uint32_t query_bytes = 0;          // 0: none does
  int header = 0;                    // of the segment, a word a lane
};

template <class C>
class Feed {
 public:
  // The words of a record are in the lanes; those of the next segment's are loaded a segment ahead.
  __device__ Feed(const DecodeTask& task, int warp)
      : t_(task), lane_(threadIdx.x % kLanes), warp_(warp) {
    policy_ = evict_first_policy();
    ahead_ = word_of(static_cast<int>(blockIdx.x) * kDecodeWarps + warp);
  }
  __device__ void begin() {
    words_ = ahead_;
    head_ = field(1);
    left_ = field(3);
    begin_segment(field(2));
    deferred_ = known_ != 0;
    if (!deferred_) load_window();
  }
  __device__ int run_units() const { return end_ - unit_ + left_; }
  // After the first copies, which need not wait for it.
  __device__ void begun() {
    if (deferred_) load_window();
  }

  // Whether the next unit is the last of its row, which holds the newest token.
  __device__ bool at_newest() const { return unit_ == newest_; }
  __device__ bool done() const { return unit_ == end_; }

  __device__ Source next() {  // unit
    if (done()) return {};
    Source source = C::kOpen && unit_ >= cache_units_ ? open_unit() : cache_unit();
    if (C::kCopiesFilled && at_newest()) source.tokens = tail_;
    if (query_bytes_ > 0) {
      source.queries = queries_;
      source.query_bytes = query_bytes_;
      query_bytes_ = 0;
      source.header = header_;
    }
    if (++unit_ == end_ && left_ > 0) next_segment();
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
  // The segment that begins with the unit, if one does, to C::kHeaderAt and C::kQueriesAt of `stage`; copy_keys expects the
  // bytes.
  __device__ void copy_segment(uint32_t stage, const Source& source, uint32_t barrier) const {
    if (source.query_bytes > 0 && lane_ < kHeaderWords)
      store_word(stage + C::kHeaderAt + 4 * lane_, static_cast<uint32_t>(source.header));
    if (lane_ == 0 && source.query_bytes > 0)
      copy_bulk(stage + C::kQueriesAt, source.queries, source.query_bytes, barrier, policy_);
  }

 private:
  __device__ int word_of(int record) const {
    const auto* words = reinterpret_cast<const int*>(t_.runs + record);
    return __ldg(words + lane_ % (sizeof(DecodeRun) / 4));
  }
  __device__ int field(int i) const { return __shfl_sync(~0u, words_, i); }

  __device__ void next_segment() {
    const int unit = end_ < field(5) ? end_ : 0;
    if (unit == 0 && ++head_ == t_.kv_heads * t_.passes) head_ = 0;
    words_ = ahead_;
    begin_segment(unit);
    load_window();
    deferred_ = false;
  }
  // Of head_ and the row of the record in words_, from `unit` on.
  __device__ void begin_segment(int unit) {
    const int row = field(0), open_page = field(7), units = field(5);
    cache_units_ = field(4);
    table_ = reinterpret_cast<const int32_t*>(static_cast<uint32_t>(field(8)) |
                                              static_cast<uint64_t>(static_cast<uint32_t>(field(9)))
                                                  << 32);
    int count = min(left_, units - unit);
    if (t_.split > 0) count = min(count, (quotient(unit, t_.split) + 1) * t_.split - unit);
    unit_ = unit;
    end_ = unit + count;
    left_ -= count;
    const bool at_end = end_ == units;
    newest_ = at_end ? units - 1 : -1;
    if constexpr (C::kCopiesFilled) tail_ = field(6);
    if (left_ > 0)
      ahead_ = word_of(field(10) + (at_end && head_ + 1 == t_.kv_heads * t_.passes ? 1 : 0));
    set_header(row, units, at_end ? field(6) : kDecodeTokens);
    const Heads heads = heads_of(t_, row, head_);
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
    known_ = unit == field(2) && field(12) >= 0 ? 4 : 0;
    part_ = unit_ % C::kUnitsPerPage;
    table_ += first_page;
    pages_left_ = (min(end_, cache_units_) + C::kUnitsPerPage - 1) / C::kUnitsPerPage - first_page;
  }

  __device__ void set_header(int row, int units, int tail) {
    const bool whole = unit_ == 0 && end_ == units, more = left_ > 0;
    int piece = 0;
    if (t_.split > 0)
      piece =
          field(11) + head_ * quotient(units + t_.split - 1, t_.split) + quotient(unit_, t_.split);
    const int slot = 2 * warp_ + (more ? 0 : 1);
    header_ = row;
    if (lane_ == 1) header_ = head_;
    if (lane_ == 2) header_ = unit_;
    if (lane_ == 3) header_ = end_;
    if (lane_ == 4) header_ = cache_units_;
    if (lane_ == 5) header_ = tail + (more ? kMore : 0);
    if (lane_ == 6) header_ = whole ? kWhole : t_.split > 0 ? kPiece : slot;
    if (lane_ == 7) header_ = piece;
  }

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
      copy_unit<C::kOpenTokens, C::kDim, 4>(to, source, page, more, barrier);
    else
      copy_unit<C::kTokens, kRow, kParams>(to, source, page, more, barrier);
  }
  template <int kTokens, int kRow, int kParams>
  __device__ void copy_unit(uint32_t to, const Source& source, const uint8_t* page, uint32_t more,
                            uint32_t barrier) const {
    constexpr int kCodes = kTokens * kRow, kScalars = kTokens * kParams;
    constexpr bool kApart = kParams > 0 && kTokens < kDecodeTokens;
    const int part = source.part;
    const uint8_t* codes = page + part * kCodes;
    if (C::kCopiesFilled &&
        source.tokens > 0) {  // what lies behind them stays as it is: no sum looks at it
      const auto filled = static_cast<uint32_t>(source.tokens);
      const uint32_t scalars = (filled * kParams + 15) / 16 * 16;
      barrier_expect(barrier, filled * kRow + scalars + more);
      copy_bulk(to, codes, filled * kRow, barrier, policy_);
      if constexpr (kParams > 0)
        copy_bulk(to + kCodes, page + kDecodeTokens * kRow + part * kScalars, scalars, barrier,
                  policy_);
      return;
    }
    barrier_expect(barrier, kCodes + kScalars + more);
    copy_bulk(to, codes, kApart ? kCodes : kCodes + kScalars, barrier, policy_);
    if constexpr (kApart)
      copy_bulk(to + kCodes, page + kDecodeTokens * kRow + part * kScalars, kScalars, barrier,
                policy_);
  }

  __device__ Source cache_unit() {
    int id;
    if (page_ < known_)
      id = field(12 + page_);
    else
      id = __shfl_sync(~0u, window_, page_ % kLanes);
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
  int lane_, warp_;
  uint64_t policy_;
  int words_ = 0, ahead_;  // of records
  int head_, left_;        // left_: units of the run behind the segment
  int header_;
  const uint8_t *pages_, *open_ = nullptr, *queries_;
  int64_t values_at_ = 0;
  uint32_t query_bytes_ = 0;  // until they are on their way
  const int32_t* table_;
  int unit_ = 0, end_ = 0, newest_, cache_units_;
  int tail_;                      // tokens of the newest
  int page_, part_, pages_left_;  // page_: within the segment
  int known_;                     // pages whose ids are in the record
  int window_;
  bool deferred_ = false;  // the first
};

}  // namespace atom::backend::cuda::hopper::decode
