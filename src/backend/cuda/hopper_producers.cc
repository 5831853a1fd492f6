#include "backend/cuda/hopper_producers.h"

#include <algorithm>

namespace atom::backend::cuda::hopper {
namespace {

constexpr int kMostTiles = 128;          // of a block that takes one a team of 8 threads
constexpr int kMostShared = 226 * 1024;  // of a block, without what it declares
constexpr int kMultiprocessorShared = 227 * 1024;
constexpr int kDeclaredShared = 2048;  // of a block, rounded up: what it declares, and the system's
constexpr int kFewRows = 128;          // fewer blocks than multiprocessors: only latency counts

bool can_scale(const InputSegment& s) {
  if (s.size == 0 || s.group == 0 || s.groups == 1) return true;
  return s.group == 16 || s.group == 32 || s.group == 64 || s.group == 128;
}

int waiting_bytes(const RowCut& cut) {
  return cut.count() * kTile * static_cast<int>(sizeof(float));
}

bool is_aligned(const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; }

}  // namespace

RowCut row_cut(const InputView& y) {
  RowCut cut;
  for (int i = 0; i < 2; ++i) {
    const InputSegment& s = y.at[i];
    cut.tiles[i] = (s.size + kTile - 1) / kTile;
    const bool wide = s.scaling == Scaling::kNvfp4 || (s.groups == 1 && s.size > kTile);
    cut.wide[i] = s.size > 0 && s.group != 0 && wide ? 1 : 0;
  }
  return cut;
}

bool can_produce(const ProduceTask& t) {
  const InputSegment(&at)[2] = t.y.at;
  if (at[0].size % 4 != 0 || at[1].size % 4 != 0) return false;
  if (!can_scale(at[0]) || !can_scale(at[1])) return false;
  for (const void* data : {static_cast<const void*>(t.x), static_cast<const void*>(t.x_f16),
                           static_cast<const void*>(t.gain), static_cast<const void*>(t.plain),
                           static_cast<const void*>(t.order), static_cast<const void*>(t.y.data)})
    if (!is_aligned(data)) return false;
  const RowCut cut = row_cut(t.y);
  if (t.source != Source::kGate) return cut.count() <= kMostTiles;
  return t.order == nullptr && (!cut.any_wide() || waiting_bytes(cut) <= kMostShared);
}

bool can_produce_half(const ProduceTask& t, int multiprocessors) {
  const InputSegment& s = t.y.at[0];
  if (s.size == 0 || s.group != 0 || t.y.at[1].size != 0 || t.y.rows > kFewRows) return false;
  if (t.source != Source::kGate) return true;
  return s.size % kTile == 0 && few_gate_blocks(t.y, true, multiprocessors) > 0;
}

bool can_be_quick(const ProduceTask& t) {
  if (t.plain != nullptr || !can_produce(t)) return false;
  if (t.x_f16 != nullptr && (t.silu_offsets == nullptr || !is_aligned(t.silu_offsets)))
    return false;
  for (const InputSegment& s : t.y.at) {
    if (s.size == 0) continue;
    if (s.size % kTile != 0 || s.group == 0 || s.scaling > Scaling::kInt4Signed) return false;
    if (s.groups != 1 && s.group != kTile) return false;
  }
  constexpr int kMostKept = 2 * kTile;  // wait in shared memory
  if (t.y.at[1].size > kMostKept) return false;
  return t.source != Source::kGate || quick_gate_plan(t.y, t.x_f16 != nullptr ? 2 : 4).blocks > 0;
}

// 24 warps of a multiprocessor, for two rows at once where rows that wait have room twice, so that one half works while
// the other waits for a row's scale, and rows are enough. The halves are two blocks, or, of f16, crews of one block that
// share the table of silu.
GatePlan quick_gate_plan(const InputView& y, int value_bytes) {
  constexpr int kThreads = 768;
  const bool in_f16 = value_bytes == 2;
  const int ahead = 32 * value_bytes;  // bytes of a thread: 16 values of gate and of up
  const RowCut cut = row_cut(y);
  const int waiting = (cut.any_wide() ? waiting_bytes(cut) : 0) + 4 * y.at[1].size;
  for (const int rows : {2, 1}) {
    if (rows > 1 && y.rows <= kFewRows) continue;
    const int blocks = in_f16 ? 1 : rows, crews = rows / blocks, threads = kThreads / blocks;
    const int bytes = (in_f16 ? kSiluOffsets : 0) + threads * ahead + crews * waiting;
    const int declared = kDeclaredShared + (crews - 1) * 1024;
    if (blocks * (bytes + declared) <= kMultiprocessorShared)
      return {blocks, crews, threads, bytes};
  }
  return {};
}

// As many as there are multiprocessors for; where a row has one scale and its blocks would have to wait for each other in
// turns, none.
int few_gate_blocks(const InputView& y, bool meets, int multiprocessors) {
  constexpr int kMostBlocks = 8, kMostThreads = 512, kMostWarps = 64;  // the last of a cluster
  const RowCut cut = row_cut(y);
  const auto threads = [&](int blocks) { return (cut.count() + blocks - 1) / blocks * 8; };
  int blocks = kMostBlocks;
  while (blocks > 1 && (y.rows * blocks > multiprocessors || threads(blocks) < 32)) blocks /= 2;
  while (blocks < kMostBlocks && threads(blocks) > kMostThreads) blocks *= 2;
  if (threads(blocks) > kMostThreads || y.rows > multiprocessors) return 0;
  if ((threads(blocks) + 31) / 32 * blocks > kMostWarps) return 0;
  // A lone block has nobody to send to, and st.async needs a cluster.
  return meets && (blocks == 1 || y.rows * blocks > multiprocessors) ? 0 : blocks;
}

// As many blocks as shared memory and registers hold, up to four, and as many threads a multiprocessor as registers
// allow; teams of 8 take turns of equal number.
int gate_threads(const InputView& y) {
  constexpr int kTeam = 8, kWarp = 32, kMostBlocks = 4;
  const RowCut cut = row_cut(y);
  const int tiles = cut.count();
  int blocks = 1;
  if (y.rows > kFewRows) {
    const int bytes = (cut.any_wide() ? waiting_bytes(cut) : 0) + kDeclaredShared;
    blocks = std::clamp(kMultiprocessorShared / bytes, 1, kMostBlocks);
  }
  const int most_teams = kGateThreads / blocks / kTeam;
  const int turns = (tiles + most_teams - 1) / most_teams;
  const int threads = (tiles + turns - 1) / turns * kTeam;
  return (threads + kWarp - 1) / kWarp * kWarp;
}

}  // namespace atom::backend::cuda::hopper
