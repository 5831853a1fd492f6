#include "backend/cuda/hopper_decode_plan.h"

#include <algorithm>
#include <limits>
#include <vector>

namespace atom::backend::cuda::hopper {
namespace {

// The work of a row and head, in eighths of a unit.
constexpr int kUnitCost = 8;
constexpr int kStartCost = 4;  // measured: 0.2 to 0.5 us, a unit takes a warp 2 us

// What a merge across blocks costs, and by how much of a block's share its end may move to avoid one. Measured on an
// H200: 2 us against a stream of about 4.5 TB/s, which reads 8 KiB units at 4 per ns and thousand.
constexpr double kCrossingUnits = 8;
constexpr double kStraddlingUnits =
    1;  // a block with parts of two rows and heads that others have parts of
constexpr double kMostMoved = 0.03;
constexpr double kFewestBlocks = 0.94;  // of those that there are, when that saves merges

constexpr int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

// A step's rows one after the other, each with its heads, each with its units.
struct RowPart {
  int64_t cost = 0, unit = 0;  // before the row
  int64_t head_cost = 0;       // of one head
  int units = 0;               // of one head
};
struct Place {
  size_t row = 0;
  int head = 0, unit = 0;
  int64_t head_cost = 0, head_unit = 0;  // before the head
  int64_t at() const { return head_unit + unit; }
};

class Planner {
 public:
  Planner(std::span<const DecodeRow> rows, const DecodePlanShape& shape,
          const DecodePlanLayout& layout, void* plan)
      : shape_(shape),
        layout_(layout),
        runs_(static_cast<DecodeRun*>(plan)),
        block_merges_(
            reinterpret_cast<DecodeMerges*>(static_cast<char*>(plan) + layout.block_merges)),
        merges_(reinterpret_cast<DecodeMerge*>(static_cast<char*>(plan) + layout.merges)) {
    while (kDecodeTokens >> page_shift_ > shape.unit_tokens) ++page_shift_;
    parts_.reserve(rows.size() + 1);
    ids_.reserve(rows.size());
    parts_.emplace_back();
    for (size_t i = 0; i < rows.size(); ++i)
      if (rows[i].context > 0) add_row(static_cast<int>(i), rows[i]);
  }

  int64_t plan() {
    if (total_units() > 0) choose_blocks();
    Place begin;
    for (int block = 0; block < shape_.blocks; ++block) {
      DecodeMerges& merges = block_merges_[block] = {.begin = merge_count_};
      const auto at = static_cast<size_t>(block);
      if (at < ends_.size())
        add_block(block, begin, ends_[at]);
      else
        std::fill_n(runs_ + block * kDecodeWarps, kDecodeWarps, DecodeRun{});
      if (at < ends_.size()) begin = ends_[at];
      merges.count = merge_count_ - merges.begin;
      if (merges.count > 0 && merges_[merges.begin].end_piece > 0)
        merges.finished = shape_.split > 0 ? merges.count : 1;
    }
    return layout_.merges + merge_count_ * static_cast<int64_t>(sizeof(DecodeMerge));
  }

 private:
  int64_t total_cost() const { return parts_.back().cost; }
  int64_t total_units() const { return parts_.back().unit; }
  size_t rows() const { return parts_.size() - 1; }

  void add_row(int index, const DecodeRow& row) {
    const DecodeUnits units = decode_units(row.context, shape_);
    const auto record = shape_.blocks * kDecodeWarps + static_cast<int>(rows());
    DecodeRun& r = runs_[record] = {.row = index,
                                    .cache_units = units.cache,
                                    .units = units.all(),
                                    .open_page = row.open_page,
                                    .page_table = row.page_table,
                                    .record = record,
                                    .first_piece = piece_count_};
    r.tail = units.open > 0 ? row.context - units.cache * shape_.unit_tokens -
                                  (units.open - 1) * shape_.open_tokens
                            : row.context - (units.cache - 1) * shape_.unit_tokens;
    ids_.push_back(row.ids);
    set_ids(r, 0, row.ids);
    if (shape_.split > 0) piece_count_ += shape_.heads * pieces_of(units.all());
    RowPart& part = parts_.back();
    part.units = units.all();
    part.head_cost = int64_t{kUnitCost} * part.units + kStartCost;
    parts_.push_back({.cost = part.cost + shape_.heads * part.head_cost,
                      .unit = part.unit + int64_t{shape_.heads} * part.units});
  }
  int pieces_of(int units) const { return (units + shape_.split - 1) / shape_.split; }

  void set_ids(DecodeRun& run, int unit, const int32_t* ids) const {
    if (ids == nullptr) return;
    const int page = unit >> page_shift_;
    const int left = ((run.cache_units - 1) >> page_shift_) + 1 - page;
    if (left >= 4) {
      std::copy_n(ids + page, 4, run.ids);
      return;
    }
    for (int i = 0; i < 4; ++i) run.ids[i] = i < left ? ids[page + i] : -1;
  }

  void to_row(Place& p, size_t row) const {
    p = {.row = row, .head_cost = parts_[row].cost, .head_unit = parts_[row].unit};
  }
  void skip_heads(Place& p, int64_t heads) const {
    const RowPart& part = parts_[p.row];
    p.head += static_cast<int>(heads);
    p.unit = 0;
    p.head_cost += heads * part.head_cost;
    p.head_unit += heads * part.units;
    if (p.head == shape_.heads) to_row(p, p.row + 1);
  }
  // To the unit next to `cost`, which is not before the head.
  void go_to(Place& p, int64_t cost) const {
    size_t row = p.row;
    while (row < rows() && cost >= parts_[row + 1].cost) ++row;
    if (row > p.row) to_row(p, row);
    if (row == rows()) return;
    const RowPart& part = parts_[row];
    const int64_t heads = cost - p.head_cost < part.head_cost
                              ? 0
                              : static_cast<int64_t>(static_cast<uint64_t>(cost - p.head_cost) /
                                                     static_cast<uint64_t>(part.head_cost));
    if (heads > 0) skip_heads(p, heads);
    const int64_t inside = cost - p.head_cost - kStartCost + kUnitCost / 2;
    set_unit(p, static_cast<int>(static_cast<uint32_t>(std::max<int64_t>(inside, 0)) / kUnitCost));
  }
  void set_unit(Place& p, int unit) const {
    if (unit >= parts_[p.row].units)
      skip_heads(p, 1);
    else
      p.unit = unit;
  }
  // The unit `units` further on.
  void step(Place& p, int64_t units) const {
    while (p.row < rows() && p.unit + units >= parts_[p.row].units) {
      units -= parts_[p.row].units - p.unit;
      skip_heads(p, 1);
    }
    if (p.row < rows()) p.unit += static_cast<int>(units);
  }
  // Where a row may be cut. Fast: anywhere, at its end where that is within reach.
  void cut(Place& p, int reach) const {
    if (p.unit == 0) return;
    const int units = parts_[p.row].units;
    if (shape_.split > 0)
      set_unit(p, pieces_of(p.unit) * shape_.split);
    else if (p.unit <= reach && p.unit <= units - p.unit)
      p.unit = 0;
    else if (units - p.unit <= reach)
      skip_heads(p, 1);
  }

  // Ends of `blocks` equal shares, and what they cost.
  double share_out(int blocks, double least, std::vector<Place>* ends) const {
    const int64_t share = total_cost() / blocks, more = total_cost() % blocks;
    const auto reach = static_cast<int>(kMostMoved * static_cast<double>(total_units()) / blocks);
    // A block alone reads 1.1 times as fast as with all others at work.
    double cost = static_cast<double>(total_units()) / shape_.blocks * 1.1, penalty = 0;
    int64_t target = 0, rest = 0;
    Place begin;
    for (int b = 1; b <= blocks && begin.row < rows() && cost + penalty < least; ++b) {
      target += share;
      if ((rest += more) >= blocks) ++target, rest -= blocks;
      Place end = begin;
      if (b == blocks)
        to_row(end, rows());
      else if (target >= end.head_cost)
        go_to(end, target), cut(end, reach);
      if (end.at() <= begin.at()) continue;
      cost = std::max(cost, static_cast<double>(end.at() - begin.at()));
      if (end.unit != 0)
        penalty =
            std::max(penalty, kCrossingUnits + (begin.unit != 0 && end.head_unit > begin.head_unit
                                                    ? kStraddlingUnits
                                                    : 0));
      ends->push_back(begin = end);
    }
    return cost + penalty;
  }

  void choose_blocks() {
    const int most = static_cast<int>(std::min<int64_t>(shape_.blocks, total_units()));
    const int fewest =
        shape_.split > 0 ? most : std::max(1, static_cast<int>(most * kFewestBlocks));
    int longest = 0;
    for (const RowPart& part : parts_) longest = std::max(longest, part.units);
    // A head longer than any block's share is cut anyhow: then as many blocks to each head, or all.
    const auto heads = static_cast<int>(rows()) * shape_.heads;
    if (longest > 1.1 * static_cast<double>(total_units()) / fewest) {
      if (most % heads != 0 && most - most % heads >= fewest) try_blocks(most - most % heads);
      try_blocks(most);
      return;
    }
    for (int blocks = most; blocks >= fewest; --blocks) try_blocks(blocks);
  }

  void try_blocks(int blocks) {
    other_ends_.clear();
    other_ends_.reserve(static_cast<size_t>(blocks));
    const double cost = share_out(blocks, least_, &other_ends_);
    if (cost >= least_) return;
    least_ = cost;
    std::swap(ends_, other_ends_);
  }

  void add_block(int block, const Place& begin, const Place& end) {
    first_merge_ = merge_count_;
    if (shape_.split == 0 && end.at() <= begin.head_unit + parts_[begin.row].units) {
      add_block_of_one(block, begin, static_cast<int>(end.at() - begin.at()));
      return;
    }
    const int64_t cost_begin = cost_of(begin), cost = cost_of(end) - cost_begin;
    const bool few = end.at() - begin.at() <= kDecodeWarps;
    Place from = begin;
    for (int warp = 0; warp < kDecodeWarps; ++warp) {
      Place to = from;
      const int64_t target = cost_begin + cost * (warp + 1) / kDecodeWarps;
      if (!few && target > to.head_cost) go_to(to, target);
      if (to.at() <= from.at() && from.at() < end.at())
        step(to = from, 1);  // none between others is idle
      if (shape_.split > 0) cut(to, 0);
      if (to.at() >= end.at() || (warp == kDecodeWarps - 1 && !few)) to = end;
      DecodeRun& run = runs_[block * kDecodeWarps + warp];
      if (from.at() == end.at()) {
        run = {};
        continue;
      }
      run = record_of(from);
      run.head = from.head;
      run.unit = from.unit;
      run.count = static_cast<int>(to.at() - from.at());
      if (from.unit > 0) set_ids(run, from.unit, ids_[from.row]);
      add_parts(block, warp, from, to);
      from = to;
    }
  }
  // `count` units of one head.
  void add_block_of_one(int block, const Place& begin, int count) {
    const DecodeRun& record = record_of(begin);
    const int32_t* ids = ids_[begin.row];
    DecodeRun* runs = runs_ + block * kDecodeWarps;
    const int warps = std::min(count, kDecodeWarps), size = std::max(count, kDecodeWarps);
    for (int warp = 0; warp < warps; ++warp) {
      const int from = size * warp / kDecodeWarps, to = size * (warp + 1) / kDecodeWarps;
      DecodeRun& run = runs[warp] = record;
      run.head = begin.head;
      run.unit = begin.unit + from;
      run.count = to - from;
      if (run.unit > 0) set_ids(run, run.unit, ids);
    }
    std::fill(runs + warps, runs + kDecodeWarps, DecodeRun{});
    if (warps == 1 && count == record.units) return;
    add_part(block, begin, 1);
    DecodeMerge& merge = merges_[merge_count_ - 1];
    merge.warps = warps;
    merge.last_slot = 2 * warps - 1;
  }
  int64_t cost_of(const Place& p) const {
    return p.head_cost + (p.unit > 0 ? kStartCost + int64_t{kUnitCost} * p.unit : 0);
  }

  // Of a warp's segments only the first and the last can be parts of a row and head; with `split` any.
  void add_parts(int block, int warp, const Place& from, const Place& to) {
    if (shape_.split > 0) {
      for (Place p = from; p.at() < to.at(); skip_heads(p, 1))
        if (parts_[p.row].units > shape_.split && ends_in(block, p)) add_part(block, p, 0);
      return;
    }
    const bool one = to.head_unit == from.head_unit ||
                     (to.unit == 0 && to.head_unit == from.head_unit + parts_[from.row].units);
    if (from.unit > 0 || to.head_unit == from.head_unit)
      add_part(block, from, 2 * warp + (one ? 1 : 0));
    if (!one && to.unit > 0) {
      Place last = to;
      last.unit = 0;
      add_part(block, last, 2 * warp + 1);
    }
  }

  // A part, in a slot, of the head of `p`, and who adds it to the others.
  void add_part(int block, const Place& p, int slot) {
    const int32_t row = record_of(p).row;
    if (merge_count_ == first_merge_ || merges_[merge_count_ - 1].row != row ||
        merges_[merge_count_ - 1].head != p.head)
      begin_merge(block, p, row);
    DecodeMerge& merge = merges_[merge_count_ - 1];
    if (shape_.split > 0) return;
    if (merge.warps++ == 0) merge.first_warp = slot / 2;
    merge.last_slot = slot;
  }

  bool ends_in(int block, const Place& p) const {
    return p.head_unit + parts_[p.row].units <= ends_[static_cast<size_t>(block)].at();
  }

  void begin_merge(int block, const Place& p, int32_t row) {
    DecodeMerge& merge = merges_[merge_count_++] = {.row = row, .head = p.head};
    if (shape_.split > 0) {
      const int pieces = pieces_of(parts_[p.row].units);
      merge.first_piece = record_of(p).first_piece + p.head * pieces;
      merge.end_piece = merge.first_piece + pieces;
      return;
    }
    const bool begins = block == 0 || ends_[static_cast<size_t>(block) - 1].at() <= p.head_unit;
    if (begins && ends_in(block, p)) return;
    if (begins) shared_piece_ = piece_count_;
    merge.piece = piece_count_++;
    if (!ends_in(block, p)) return;
    merge.first_piece = shared_piece_;
    merge.end_piece = piece_count_;
  }
  const DecodeRun& record_of(const Place& p) const {
    return runs_[shape_.blocks * kDecodeWarps + static_cast<int>(p.row)];
  }

  DecodePlanShape shape_;
  int page_shift_ = 0;  // of a unit to its page
  const DecodePlanLayout& layout_;
  DecodeRun* runs_;
  DecodeMerges* block_merges_;
  DecodeMerge* merges_;
  std::vector<RowPart> parts_;  // one more than rows
  std::vector<const int32_t*> ids_;
  double least_ = std::numeric_limits<double>::infinity();  // cost of ends_
  std::vector<Place> ends_, other_ends_;                    // of blocks
  int merge_count_ = 0, first_merge_ = 0;                   // of the block
  int piece_count_ = 0;
  int shared_piece_ = 0;  // the first of the row and head that reaches into the next block
};

}  // namespace

DecodeUnits decode_units(int context, const DecodePlanShape& shape) {
  const auto parts = [](int tokens, int size) { return (tokens + size - 1) / size; };
  if (context <= 0) return {};
  if (!shape.open_page) return {.cache = parts(context, shape.unit_tokens)};
  const int own = (context - 1) % kDecodeTokens + 1;
  return {.cache = (context - own) / shape.unit_tokens, .open = parts(own, shape.open_tokens)};
}

DecodePlanLayout decode_plan_layout(const DecodePlanShape& shape, const DecodePlanLimits& limits) {
  DecodePlanLayout layout{.blocks = shape.blocks, .split = shape.split, .rows = limits.rows};
  const int64_t runs = int64_t{shape.blocks} * kDecodeWarps + limits.rows;
  // A head that is not whole in one warp ends or begins a warp's run.
  const int64_t merges = shape.split > 0 ? int64_t{limits.rows} * shape.heads
                                         : int64_t{shape.blocks} * (kDecodeWarps + 1);
  layout.block_merges = runs * static_cast<int64_t>(sizeof(DecodeRun));
  layout.merges =
      round_up(layout.block_merges + shape.blocks * static_cast<int64_t>(sizeof(DecodeMerges)), 64);
  layout.bytes = layout.merges + merges * static_cast<int64_t>(sizeof(DecodeMerge));
  layout.pieces = shape.split > 0 ? shape.heads * (limits.units / shape.split + limits.rows)
                                  : 2 * int64_t{shape.blocks};
  return layout;
}

void DecodePlanLayout::set(const void* plan, DecodeTask* task) const {
  const auto* at = static_cast<const char*>(plan);
  task->blocks = blocks;
  task->split = split;
  task->runs = reinterpret_cast<const DecodeRun*>(at);
  task->block_merges = reinterpret_cast<const DecodeMerges*>(at + block_merges);
  task->merges = reinterpret_cast<const DecodeMerge*>(at + merges);
}

int64_t plan_decode(std::span<const DecodeRow> rows, const DecodePlanShape& shape,
                    const DecodePlanLayout& layout, void* plan) {
  return Planner(rows, shape, layout, plan).plan();
}

}  // namespace atom::backend::cuda::hopper
