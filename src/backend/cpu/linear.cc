// Cuts a linear into tasks of some rows times some panels.
#include <algorithm>

#include "backend/cpu/activation.h"
#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/packed_linear.h"
#include "base/error.h"

namespace atom::backend::cpu {
namespace {

// Rows of a task: their part of x (kFloatSpan of f32 each) and the partial sums stay in L2.
constexpr int kTaskRows = 96;
constexpr int kTaskColumns = 512;       // outputs of a task with many rows
constexpr int64_t kLeastWork = 200000;  // multiply-adds of a task that is worth a thread

struct Piece {
  int expert;
  int row_begin, row_end;
};

// The rows of each expert (or of the one dense weight) in runs of at most kTaskRows.
std::vector<Piece> cut_rows(const LinearArgs& args, int tile) {
  std::vector<Piece> pieces;
  int begin = 0;
  for (int e = 0; e < static_cast<int>(args.weights.size()); ++e) {
    const int end = args.row_ends == nullptr ? args.x.rows : args.row_ends[e];
    const int parts = (end - begin + kTaskRows - 1) / kTaskRows;
    if (parts > 0) {
      const int even = (end - begin + parts - 1) / parts;
      const int rows = (even + tile - 1) / tile * tile;
      for (; begin < end; begin += rows) pieces.push_back({e, begin, std::min(begin + rows, end)});
    }
    begin = end;
  }
  return pieces;
}

// Panels per task, so that every worker gets several tasks but none too small.
int panels_per_task(const std::vector<Piece>& pieces, const CpuLinear& linear, int columns,
                    int threads) {
  int64_t rows = 0;
  int most_rows = 0;
  for (const Piece& piece : pieces) {
    rows += piece.row_end - piece.row_begin;
    most_rows = std::max(most_rows, piece.row_end - piece.row_begin);
  }
  const int64_t work = rows * linear.n() * linear.k();
  const int64_t tasks =
      threads == 1 ? 1 : std::clamp<int64_t>(work / kLeastWork, 1, int64_t{4} * threads);
  const auto pieces_count = static_cast<int64_t>(pieces.size());
  const int64_t parts = (tasks + pieces_count - 1) / pieces_count;  // of each piece
  const auto panels = static_cast<int>((linear.panels() + parts - 1) / parts);
  return most_rows > 16 ? std::min(panels, kTaskColumns / columns) : panels;
}

}  // namespace

void CpuBackend::linear(const LinearArgs& args) {
  check(args.y_f16 == nullptr, "cpu gives rows in f32");
  check(args.row_ends != nullptr || args.weights.size() == 1, "a dense linear has one weight");
  const std::vector<Piece> pieces = cut_rows(args, kernels_.row_tile);
  if (pieces.empty()) return;
  const auto weight = [&](int expert) -> const CpuLinear& {
    return static_cast<const CpuLinear&>(*args.weights[static_cast<size_t>(expert)]);
  };
  const CpuLinear& first = weight(0);
  for (size_t e = 0; e < args.weights.size(); ++e) {
    const CpuLinear& linear = weight(static_cast<int>(e));
    check(linear.input() == args.x.spec->segments && linear.n() == first.n(),
          "a linear's weight was packed for another input");
    if (!linear.notice().empty()) notices_.insert(linear.notice());
  }

  const int step = panels_per_task(pieces, first, kernels_.panel_columns, executor_.threads());
  const int steps = (first.panels() + step - 1) / step;
  const Input x = input_of(args.x);
  const auto task = [&](int64_t i) {
    const Piece& piece = pieces[static_cast<size_t>(i / steps)];
    const CpuLinear& linear = weight(piece.expert);
    LinearTask t;
    t.x = x;
    t.w[0] = linear.segment(0);
    t.w[1] = linear.segment(1);
    t.bias = linear.bias();
    t.row_index = args.row_ends == nullptr ? nullptr : args.row_index;
    t.row_begin = piece.row_begin;
    t.row_end = piece.row_end;
    t.panel_begin = static_cast<int>(i % steps) * step;
    t.panel_end = std::min(t.panel_begin + step, linear.panels());
    t.n = linear.n();
    t.y = args.y;
    t.add = args.then == Then::kAdd;
    return t;
  };
  const auto count = static_cast<int64_t>(pieces.size()) * steps;
  size_t scratch_bytes = 0;
  for (int64_t i = 0; i < count; i += steps)
    scratch_bytes = std::max(scratch_bytes, kernels_.linear_scratch(task(i)));
  run(count, scratch_bytes,
      [&](int64_t i, std::byte* scratch) { kernels_.linear(task(i), scratch); });
}

}  // namespace atom::backend::cpu
