// Attention: places of the step's rows, then store, attend, keep the open pages, quantize for the consumer. Where the
// device and the shape have them, sequences of one row go through the decode kernel (decode.cc), others through the prefill
// kernel (prefill.cc).
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/hopper_store.h"
#include "base/error.h"

namespace atom::backend::cuda {
namespace {

KvView kv_view(const format::KvLayout& layout, void* pages) {
  KvView view{.pages = static_cast<uint8_t*>(pages),
              .tokens = layout.tokens,
              .page_bytes = layout.page_bytes()};
  for (int side = 0; side < 2; ++side)
    view.side[side] = {.bits = layout.bits(side),
                       .offset = layout.head_offset(side, 0),
                       .head_bytes = layout.head_bytes(side),
                       .row_bytes = layout.row_bytes(side)};
  return view;
}

std::string plain_notice(const format::KvLayout& layout, std::string_view of) {
  return fmt::format("attention of {}, {} KV-cache, head_dim {}, {} tokens a page: plain kernel",
                     of, format::name(layout.kind), layout.head_dim, layout.tokens);
}

// Page tables in host memory, one after the other, of the pages that the step reads or writes.
struct HostTables {
  std::vector<int32_t> entries;
  std::vector<size_t> first;  // of each sequence; kOnDevice: its table is device memory
};
constexpr size_t kOnDevice = ~size_t{0};

HostTables host_tables(std::span<const SequenceStep> sequences, int page_tokens) {
  HostTables tables;
  for (const SequenceStep& s : sequences) {
    if (s.row_begin == s.row_end || is_device_memory(s.page_table)) {
      tables.first.push_back(kOnDevice);
      continue;
    }
    const int last = s.position + s.row_end - s.row_begin - 1;
    tables.first.push_back(tables.entries.size());
    tables.entries.insert(tables.entries.end(), s.page_table,
                          s.page_table + last / page_tokens + 1);
  }
  return tables;
}

}  // namespace

// The layers of a step share sequences and tables: what is on the device already stays there. While a step is captured,
// prepare() has brought everything up. The caller sends what this adds to staging_.
const RowPlace* CudaBackend::upload_places(std::span<const SequenceStep> sequences, int rows,
                                           int page_tokens) {
  if (capturing_) return places_.as<RowPlace>();
  const HostTables tables = host_tables(sequences, page_tokens);
  const size_t place_bytes = static_cast<size_t>(rows) * sizeof(RowPlace);
  const size_t table_bytes = tables.entries.size() * sizeof(int32_t);
  // Until it is uploaded, what was there does not count: growing loses it, and may fail.
  const std::vector<char> uploaded = std::exchange(step_.bytes, {});
  places_.reserve_more(place_bytes + table_bytes);
  auto* device_tables = reinterpret_cast<int32_t*>(places_.as<char>() + place_bytes);
  std::vector<char> bytes(place_bytes + table_bytes);
  std::vector<RowPlace> places(static_cast<size_t>(rows));
  step_.rows.assign(places.size(), {});
  step_.sequences.clear();
  step_.tokens = page_tokens;
  size_t covered = 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const SequenceStep& s = sequences[i];
    RowPlace place{
        .page_table = tables.first[i] == kOnDevice ? s.page_table : device_tables + tables.first[i],
        .position = s.position,
        .first_row = s.row_begin,
        .first_position = s.position,
        .last_position = s.position + s.row_end - s.row_begin - 1,
        .open_page = s.open_page};
    check(s.row_begin >= 0 && s.row_end <= rows, "a sequence's rows are those of the step");
    step_.sequences.push_back({.page_table = place.page_table,
                               .first_row = s.row_begin,
                               .rows = s.row_end - s.row_begin,
                               .position = s.position,
                               .open_page = s.open_page});
    for (int row = s.row_begin; row < s.row_end; ++row, ++place.position, ++covered) {
      places[static_cast<size_t>(row)] = place;
      step_.rows[static_cast<size_t>(row)] = {
          .context = s.row_end - s.row_begin == 1 ? place.position + 1 : 0,
          .page_table = place.page_table,
          .ids = tables.first[i] == kOnDevice ? nullptr : s.page_table,
          .open_page = s.open_page};
    }
  }
  check(covered == places.size(), "the sequences cover the rows of the step");
  std::memcpy(bytes.data(), places.data(), place_bytes);
  if (table_bytes > 0) std::memcpy(bytes.data() + place_bytes, tables.entries.data(), table_bytes);
  if (bytes != uploaded) {
    ++step_.number;
    staging_.add(places_.as<char>(), bytes.data(), bytes.size(), stream_);
  }
  step_.bytes = std::move(bytes);
  return places_.as<RowPlace>();
}

bool CudaBackend::is_decoding(std::span<const SequenceStep> sequences) {
  return std::all_of(sequences.begin(), sequences.end(),
                     [](const SequenceStep& s) { return s.row_end - s.row_begin <= 1; });
}

void CudaBackend::reserve_fresh(int64_t vector_bytes, AttentionTask* task) {
  fresh_.reserve(static_cast<size_t>(vector_bytes) * 2 * static_cast<size_t>(task->rows) *
                 static_cast<size_t>(task->kv_heads));
  task->fresh_bytes = vector_bytes;
  task->fresh = fresh_.as<uint8_t>();
}

void CudaBackend::store_kv(const AttentionTask& task) {
  const bool hopper = is_hopper() && hopper::can_store(task);
  require(hopper ? hopper::launch_store(task, stream_) : launch_store_kv(task, stream_),
          "storing K and V");
}

// Sequences of one row go through the decode kernel, others through the prefill kernel; a step may have both.
bool CudaBackend::attend_on_hopper(const AttentionArgs& args, AttentionTask task) {
  if (!is_hopper()) return false;
  if (args.window > 0) {
    note(fmt::format("attention with a sliding window of {} positions: plain kernel", args.window));
    return false;
  }
  const auto rows_of = [](const SequenceStep& s) { return s.row_end - s.row_begin; };
  const auto& all = args.sequences;
  const bool one = std::any_of(all.begin(), all.end(), [&](auto& s) { return rows_of(s) == 1; });
  const bool several = !is_decoding(all);
  const bool decodes = hopper::can_decode(decode_task(task));
  if (several ? !hopper::can_prefill(prefill_task(task)) : !decodes) {
    note(plain_notice(args.layout, several ? "a prompt" : "a decoding step"));
    return false;
  }
  task.query_bytes = hopper::decode_query_bytes(task.head_dim);
  queries_.reserve(static_cast<size_t>(task.query_bytes) * static_cast<size_t>(task.rows) *
                   static_cast<size_t>(task.heads));
  task.queries = queries_.as<uint8_t>();
  task.single_rows_apart = several && one && decodes ? 1 : 0;
  if (several && args.layout.open_page)
    reserve_fresh(hopper::prefill_fresh_bytes(task.head_dim), &task);
  store_kv(task);
  if (one && decodes) decode(task);
  if (several) prefill(task);
  return true;
}

void CudaBackend::attention(const AttentionArgs& args) {
  const format::KvLayout& layout = args.layout;
  check(layout.head_dim % 2 == 0 && args.heads % layout.kv_heads == 0,
        "attention: heads is a multiple of kv_heads and head_dim is even");
  if (args.rows == 0) return;
  check((args.qkv != nullptr) != (args.qkv_f16 != nullptr),
        "attention: exactly one of qkv and qkv_f16 is given");
  AttentionTask task{.qkv = args.qkv,
                     .qkv_f16 = args.qkv_f16,
                     .rows = args.rows,
                     .heads = args.heads,
                     .kv_heads = layout.kv_heads,
                     .head_dim = layout.head_dim,
                     .rope_cos = args.rope_cos,
                     .rope_sin = args.rope_sin,
                     .hadamard = args.hadamard,
                     .key_offset = args.key_offset,
                     .kv_clip = args.kv_clip,
                     .window = args.window,
                     .cache = kv_view(layout, args.pages),
                     .has_open_page = layout.open_page ? 1 : 0,
                     .open = kv_view(layout.of_open_page(), args.open_pages),
                     .y = rows_scratch(args.rows, args.heads * layout.head_dim)};
  try {
    task.places = upload_places(args.sequences, args.rows, layout.tokens);
    staging_.send(stream_);
  } catch (...) {
    forget_step();
    throw;
  }
  if (attend_on_hopper(args, task)) return quantize_rows(task.y, args.y);
  if (layout.open_page) reserve_fresh(int64_t{layout.head_dim} + 4, &task);
  const size_t shared = attend_shared_bytes(task);
  if (shared > device_.most_shared)
    fail(
        "cuda: attention with {} query heads a KV head and head_dim {} needs {} bytes of shared "
        "memory, {} has {}",
        args.heads / layout.kv_heads, layout.head_dim, shared, device_.name, device_.most_shared);
  store_kv(task);
  require(launch_attend(task, stream_), "attention");
  if (layout.open_page) require(launch_keep_open_pages(task, stream_), "keeping open pages");
  quantize_rows(task.y, args.y);
}

}  // namespace atom::backend::cuda
