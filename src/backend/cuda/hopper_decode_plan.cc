#include "backend/cuda/hopper_decode_plan.h"

#include <algorithm>
#include <limits>

namespace atom::backend::cuda::hopper {
namespace {

// What a merge across blocks costs, and by how much of a block's share its end may move to avoid one. Measured on an
// H200: 2 us against a stream of about 4.5 TB/s, which reads 8 KiB units at 4 per ns and thousand.
constexpr double kCrossingUnits = 8;
constexpr double kMostMoved = 0.03;
constexpr double kFewestBlocks = 0.94;  // of those that there are, when that saves merges

// All units of a step in the order of rows, heads and positions, and where blocks and warps begin in it.
class Planner {
 public:
  Planner(std::span<const DecodeRow> rows, const DecodePlanShape& shape)
      : rows_(rows), shape_(shape), begins_(rows.size() + 1, 0) {
    for (size_t r = 0; r < rows.size(); ++r) {
      units_.push_back(decode_units(rows[r].context, shape));
      begins_[r + 1] = begins_[r] + int64_t{units_[r].all()} * shape.heads;
    }
  }

  DecodePlan plan() {
    const int64_t total = begins_.back();
    if (total == 0) return {};
    choose_blocks(total);
    plan_.blocks = static_cast<int>(ends_.size());
    const auto warps = static_cast<size_t>(plan_.blocks) * kDecodeWarps;
    plan_.segments.reserve(2 * warps + rows_.size() * static_cast<size_t>(shape_.heads));
    plan_.segments.resize(warps);
    int64_t begin = 0;
    for (int block = 0; block < plan_.blocks; begin = ends_[static_cast<size_t>(block++)])
      add_block(block, begin, ends_[static_cast<size_t>(block)]);
    return std::move(plan_);
  }

 private:
  // A place in the order.
  struct Place {
    size_t row = 0;
    int head = 0, unit = 0;
    int64_t begin = 0;  // of its row and head
    int units = 0;      // of its row and head
  };
  // Places are asked for in order, nearly, so that the search begins where the last one ended.
  Place place_of(int64_t at) {
    if (at < begins_[row_]) row_ = 0;
    while (begins_[row_ + 1] <= at) ++row_;
    Place p{.row = row_};
    p.units = units_[p.row].all();
    const auto inside = static_cast<uint32_t>(at - begins_[p.row]);  // a row has fewer than 2^31
    p.head = static_cast<int>(inside / static_cast<uint32_t>(p.units));
    p.unit = static_cast<int>(inside) - p.head * p.units;
    p.begin = at - p.unit;
    return p;
  }

  // The nearest place to cut at. Fast: a sequence's end within reach; otherwise the first multiple of `split`.
  int64_t cut(int64_t at, int64_t total, double reach) {
    if (at <= 0 || at >= total) return std::clamp<int64_t>(at, 0, total);
    const Place p = place_of(at);
    if (p.unit == 0) return at;
    if (shape_.split > 0)
      return std::min<int64_t>(at + (shape_.split - p.unit % shape_.split) % shape_.split,
                               p.begin + p.units);
    if (p.unit <= reach && p.unit <= p.units - p.unit) return p.begin;
    return p.units - p.unit <= reach ? p.begin + p.units : at;
  }

  void choose_blocks(int64_t total) {
    const int most = static_cast<int>(std::min<int64_t>(shape_.blocks, total));
    const int fewest =
        shape_.split > 0 ? most : std::max(1, static_cast<int>(most * kFewestBlocks));
    double least = std::numeric_limits<double>::infinity();
    for (int blocks = most; blocks >= fewest; --blocks) {
      std::vector<int64_t> ends;
      int64_t begin = 0, longest = 0;
      bool crossing = false;
      for (int b = 1; b <= blocks; ++b) {
        const int64_t end =
            cut(total * b / blocks, total, kMostMoved * static_cast<double>(total) / blocks);
        if (end <= begin) continue;
        crossing = crossing || (end < total && place_of(end).unit != 0);
        longest = std::max(longest, end - begin);
        ends.push_back(begin = end);
      }
      // A block alone reads 1.1 times as fast as with all others at work.
      const double cost =
          std::max(static_cast<double>(total) / shape_.blocks * 1.1, static_cast<double>(longest)) +
          (crossing ? kCrossingUnits : 0);
      if (cost >= least) continue;
      least = cost;
      ends_ = std::move(ends);
      if (!crossing && longest * blocks <= total) break;  // nothing is better
    }
  }

  void add_block(int block, int64_t begin, int64_t end) {
    first_merge_ = plan_.merges.size();
    int64_t from = begin;
    for (int warp = 0; warp < kDecodeWarps; ++warp) {
      // No idle warp stands between others.
      int64_t to = end - begin <= kDecodeWarps ? std::min(end, begin + warp + 1)
                                               : begin + (end - begin) * (warp + 1) / kDecodeWarps;
      if (shape_.split > 0) to = std::min(end, cut(to, begins_.back(), 0));
      if (to > from) add_warp(block, warp, from, to);
      from = std::max(from, to);
    }
    plan_.merge_ends.push_back(static_cast<int32_t>(plan_.merges.size()));
  }

  void add_warp(int block, int warp, int64_t from, int64_t to) {
    auto at = static_cast<size_t>(block) * kDecodeWarps + static_cast<size_t>(warp);
    for (bool first = true; from < to; first = false) {
      const Place p = place_of(from);
      int64_t end = std::min(to, p.begin + p.units);
      if (shape_.split > 0)
        end = std::min<int64_t>(end, p.begin + (p.unit / shape_.split + 1) * shape_.split);
      DecodeSegment segment = segment_of(p, static_cast<int>(end - from));
      if (segment.count < p.units) add_to_merge(block, p, 2 * warp + (end == to ? 1 : 0), &segment);
      if (!first) {
        plan_.segments[at].next = static_cast<int32_t>(plan_.segments.size());
        at = plan_.segments.size();
        plan_.segments.emplace_back();
      }
      plan_.segments[at] = segment;
      from = end;
    }
  }

  DecodeSegment segment_of(const Place& p, int count) const {
    const DecodeRow& row = rows_[p.row];
    const DecodeUnits& units = units_[p.row];
    DecodeSegment s{.row = static_cast<int32_t>(p.row),
                    .head = p.head,
                    .unit = p.unit,
                    .count = count,
                    .cache_units = units.cache,
                    .open_page = row.open_page,
                    .page_table = row.page_table};
    const int last = p.unit + count - 1;  // unit
    const bool open = last >= units.cache;
    const int size = open ? shape_.open_tokens : shape_.unit_tokens;
    const int begin =
        open ? units.cache * shape_.unit_tokens + (last - units.cache) * size : last * size;
    s.tail = std::min(size, row.context - begin);
    const int per_page = kDecodeTokens / shape_.unit_tokens, page = p.unit / per_page;
    const int pages = (units.cache + per_page - 1) / per_page;
    for (int i = 0; i < 4 && row.ids != nullptr && page + i < pages; ++i)
      s.ids[i] = row.ids[page + i];
    return s;
  }

  // Sets where a part of a row and head goes, and who adds it to the others.
  void add_to_merge(int block, const Place& p, int slot, DecodeSegment* segment) {
    if (plan_.merges.size() == first_merge_ || plan_.merges.back().row != segment->row ||
        plan_.merges.back().head != segment->head)
      begin_merge(block, p);
    DecodeMerge& merge = plan_.merges.back();
    if (shape_.split > 0) {
      segment->place = kDecodePiece;
      segment->piece = merge.first_piece + p.unit / shape_.split;
      return;
    }
    segment->place = slot;
    if (merge.warps++ == 0) merge.first_warp = slot / 2;
    merge.last_slot = slot;
  }

  void begin_merge(int block, const Place& p) {
    const auto block_of = [this](int64_t at) {
      return static_cast<int>(std::upper_bound(ends_.begin(), ends_.end(), at) - ends_.begin());
    };
    const int first = block_of(p.begin), last = block_of(p.begin + p.units - 1);
    DecodeMerge merge{
        .row = static_cast<int32_t>(p.row), .head = p.head, .arrivals = last - first + 1};
    if (last > first || shape_.split > 0) {
      const int pieces =
          shape_.split > 0 ? (p.units + shape_.split - 1) / shape_.split : last - first + 1;
      if (block == first) {
        shared_ = {plan_.pieces, plan_.counters};
        plan_.pieces += pieces;
        plan_.counters += last > first ? 1 : 0;
      }
      merge.first_piece = shared_.piece;
      merge.end_piece = shared_.piece + pieces;
      merge.counter = shared_.counter;
      if (shape_.split == 0) merge.piece = shared_.piece + block - first;
    }
    plan_.merges.push_back(merge);
  }

  // Of the sequence that reaches into the next block.
  struct SharedAt {
    int piece = 0, counter = 0;
  };

  std::span<const DecodeRow> rows_;
  DecodePlanShape shape_;
  std::vector<DecodeUnits> units_;
  std::vector<int64_t> begins_;  // of rows
  size_t row_ = 0;               // place_of's last
  std::vector<int64_t> ends_;    // of blocks
  size_t first_merge_ = 0;       // of the block
  SharedAt shared_;
  DecodePlan plan_;
};

}  // namespace

DecodeUnits decode_units(int context, const DecodePlanShape& shape) {
  const auto parts = [](int tokens, int size) { return (tokens + size - 1) / size; };
  if (context <= 0) return {};
  if (!shape.open_page) return {.cache = parts(context, shape.unit_tokens)};
  const int own = (context - 1) % kDecodeTokens + 1;
  return {.cache = (context - own) / shape.unit_tokens, .open = parts(own, shape.open_tokens)};
}

DecodePlan plan_decode(std::span<const DecodeRow> rows, const DecodePlanShape& shape) {
  return Planner(rows, shape).plan();
}

}  // namespace atom::backend::cuda::hopper
