// Cuts attention into tasks: some positions of one sequence times one KV head.
#include <algorithm>
#include <cstring>

#include "backend/cpu/activation.h"
#include "backend/cpu/cpu_backend.h"
#include "base/error.h"

namespace atom::backend::cpu {
namespace {

constexpr int kTaskQueries = 96;  // positions times query heads of a KV head

AttentionTask describe(const AttentionArgs& args) {
  const format::KvLayout& layout = args.layout;
  AttentionTask t;
  t.qkv = args.qkv;
  t.heads = args.heads;
  t.kv_heads = layout.kv_heads;
  t.head_dim = layout.head_dim;
  t.page_tokens = layout.tokens;
  t.page_bytes = layout.page_bytes();
  for (int side = 0; side < 2; ++side)
    t.sides[side] = {.bits = layout.bits(side),
                     .offset = layout.head_offset(side, 0),
                     .head_bytes = layout.head_bytes(side),
                     .row_bytes = layout.row_bytes(side),
                     .param_bytes = layout.param_bytes(side)};
  t.pages = static_cast<uint8_t*>(args.pages);
  t.rope_cos = args.rope_cos;
  t.rope_sin = args.rope_sin;
  t.hadamard = args.hadamard;
  t.key_offset = args.key_offset;
  t.kv_clip = args.kv_clip;
  t.window = args.window;
  return t;
}

uint8_t* open_page(const AttentionArgs& args, const SequenceStep& sequence) {
  return static_cast<uint8_t*>(args.open_pages) +
         sequence.open_page * args.layout.of_open_page().page_bytes();
}

// Bytes of a row of both sides in int8 (AttentionTask::fresh).
int64_t fresh_bytes(const format::KvLayout& layout) {
  return int64_t{2} * layout.kv_heads * (layout.head_dim + 4);
}

// The rows of the sequence's last page go from the step to the open page.
void keep_open_page(const AttentionArgs& args, const SequenceStep& sequence, const uint8_t* fresh) {
  const format::KvLayout open = args.layout.of_open_page();
  const int rows = sequence.row_end - sequence.row_begin;
  const int last = sequence.position + rows - 1;
  uint8_t* page = open_page(args, sequence);
  for (int p = std::max(sequence.position, last - last % open.tokens); p <= last; ++p) {
    const uint8_t* from =
        fresh + (sequence.row_begin + p - sequence.position) * fresh_bytes(args.layout);
    for (int side = 0; side < 2; ++side)
      for (int head = 0; head < open.kv_heads; ++head, from += open.head_dim + 4) {
        std::memcpy(page + open.row_offset(side, head, p % open.tokens), from,
                    static_cast<size_t>(open.head_dim));
        std::memcpy(page + open.param_offset(side, head, p % open.tokens), from + open.head_dim, 4);
      }
  }
}

// The step's rows in runs of at most `rows` positions of one sequence.
std::vector<AttentionTask> cut_sequences(const AttentionArgs& args, int rows, uint8_t* fresh) {
  std::vector<AttentionTask> tasks;
  AttentionTask t = describe(args);
  t.fresh = fresh;
  t.open_head_bytes = args.layout.of_open_page().head_bytes(0);  // of either side
  for (const SequenceStep& sequence : args.sequences) {
    t.page_table = sequence.page_table;
    t.first_row = sequence.row_begin;
    t.first_position = sequence.position;
    if (args.layout.open_page) t.open_page = open_page(args, sequence);
    for (int begin = sequence.row_begin; begin < sequence.row_end; begin += rows) {
      t.row_begin = begin;
      t.row_end = std::min(begin + rows, sequence.row_end);
      t.position = sequence.position + begin - sequence.row_begin;
      tasks.push_back(t);
    }
  }
  return tasks;
}

}  // namespace

void CpuBackend::attention(const AttentionArgs& args) {
  check(args.qkv_f16 == nullptr, "cpu takes rows in f32");
  const format::KvLayout& layout = args.layout;
  check(layout.head_dim % 2 == 0 && args.heads % layout.kv_heads == 0,
        "attention: heads is a multiple of kv_heads and head_dim is even");
  const int width = args.heads * layout.head_dim;
  attended_.reserve(static_cast<size_t>(args.rows) * static_cast<size_t>(width) * sizeof(float));

  const int sharing = args.heads / layout.kv_heads;
  if (layout.open_page) fresh_rows_.reserve(static_cast<size_t>(args.rows * fresh_bytes(layout)));
  std::vector<AttentionTask> tasks =
      cut_sequences(args, std::max(1, kTaskQueries / sharing), fresh_rows_.as<uint8_t>());
  if (tasks.empty()) return;
  size_t scratch_bytes = 0;
  int64_t stored = 0;
  for (AttentionTask& t : tasks) {
    t.out = attended_.as<float>();
    scratch_bytes = std::max(scratch_bytes, kernels_.attention_scratch(t));
    stored += int64_t{t.row_end - t.row_begin} * layout.kv_heads * layout.head_dim;
  }

  // All of a step is stored before any of it is attended to.
  const auto count = static_cast<int64_t>(tasks.size());
  const auto store = [&](int64_t i, std::byte* scratch) {
    kernels_.store_kv(tasks[static_cast<size_t>(i)], scratch);
  };
  constexpr int64_t kLeastWork = 16384;
  if (stored > kLeastWork)
    run(count, scratch_bytes, store);
  else
    run(1, scratch_bytes, [&](int64_t, std::byte* scratch) {
      for (int64_t i = 0; i < count; ++i) store(i, scratch);
    });

  // Late positions read most, so they come first.
  std::stable_sort(tasks.begin(), tasks.end(), [](const AttentionTask& a, const AttentionTask& b) {
    return a.position > b.position;
  });
  run(count * layout.kv_heads, scratch_bytes, [&](int64_t i, std::byte* scratch) {
    AttentionTask t = tasks[static_cast<size_t>(i / layout.kv_heads)];
    t.kv_head = static_cast<int>(i % layout.kv_heads);
    kernels_.attention(t, scratch);
  });
  for (const SequenceStep& sequence : args.sequences)
    if (layout.open_page && sequence.row_end > sequence.row_begin)
      keep_open_page(args, sequence, fresh_rows_.as<uint8_t>());

  const Input y = input_of(args.y);
  for_rows(args.rows, width, kernels_.row_scratch(y), [&](int row, std::byte* scratch) {
    kernels_.quantize_row(y, row, attended_.as<float>() + int64_t{row} * width, scratch);
  });
}

}  // namespace atom::backend::cpu
