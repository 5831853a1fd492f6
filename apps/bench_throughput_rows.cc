#include "bench_throughput_rows.h"

#include <fmt/format.h>

#include <algorithm>

namespace atom::app {
namespace {

const ThroughputRow* find_row(const std::vector<ThroughputRow>& rows, const char* format,
                              const ThroughputRow& like) {
  const auto found = std::find_if(rows.begin(), rows.end(), [&](const ThroughputRow& row) {
    return row.ran() && row.format == format && row.rule == like.rule;
  });
  return found == rows.end() ? nullptr : &*found;
}
// How many times the tokens a second of `format`; 0: it has no row, or none ended.
struct Times {
  double value = 0;
  bool is_void = false;  // the baseline is
};
Times times(const std::vector<ThroughputRow>& rows, const char* format, const ThroughputRow& row) {
  const ThroughputRow* base = find_row(rows, format, row);
  if (base == nullptr || base->run.tokens_per_second() <= 0) return {};
  return {row.run.tokens_per_second() / base->run.tokens_per_second(), base->is_void()};
}

Json or_null(double value) { return value > 0 ? Json(value) : Json(nullptr); }

Json row_json(const std::vector<ThroughputRow>& rows, const ThroughputRow& row) {
  Json out = {{"format", row.format},
              {"kv", row.kv},
              {"batch_rule", row.rule},
              {"batch", row.batch.sequences},
              {"weight_bytes", row.use.weights},
              {"pages", row.batch.pages},
              {"page_bytes", row.use.page},
              {"open_page_bytes", row.use.open_page},
              {"bytes", row.batch.bytes}};
  if (!row.ran()) return out;
  const timing::Throughput& t = row.run;
  out.update({{"seconds", t.seconds},
              {"steps", t.steps},
              {"prompt_tokens", t.prompt_tokens},
              {"generated_tokens", t.generated_tokens},
              {"preemptions", t.preemptions},
              {"running", t.running},
              {"tokens_per_second", t.tokens_per_second()},
              {"generated_per_second", t.generated_per_second()},
              {"ms_per_token", 1e3 * t.seconds_per_token()},
              {"decode_step_ms", or_null(1e3 * t.decode_seconds)},
              {"decode_sequences", t.decode_sequences},
              {"decode_positions", t.decode_positions},
              {"floor_ms", or_null(1e3 * row.floor)},
              {"time_over_floor", or_null(row.over_floor())},
              {"scheduling_share", t.schedule_seconds / t.seconds},
              {"sampling_share", t.sample_seconds / t.seconds},
              {"times_f16", or_null(times(rows, "f16", row).value)},
              {"times_f16_void", times(rows, "f16", row).is_void},
              {"times_w8a8", or_null(times(rows, "w8a8", row).value)},
              {"times_w8a8_void", times(rows, "w8a8", row).is_void},
              {"void", row.is_void()}});
  return out;
}

std::vector<std::string> row_cells(const std::vector<ThroughputRow>& rows,
                                   const ThroughputRow& row) {
  const auto known = [](double value, const char* format) {
    return value > 0 ? fmt::format(fmt::runtime(format), value) : "-";
  };
  const auto ratio = [&](const char* format) {  // in brackets where the baseline is void
    const Times all = times(rows, format, row);
    return all.is_void ? fmt::format("({:.2f})", all.value) : known(all.value, "{:.2f}");
  };
  const timing::Throughput& t = row.run;
  std::vector<std::string> cells = {row.format, row.kv, row.rule, human_bytes(row.use.weights)};
  if (!row.ran()) {
    cells.emplace_back("does not fit");
    cells.resize(14);
    return cells;
  }
  const std::vector<std::string> more = {std::to_string(row.batch.sequences),
                                         human_bytes(row.batch.bytes - row.use.weights),
                                         fmt::format("{:.0f}", t.tokens_per_second()),
                                         fmt::format("{:.2f}", 1e3 * t.seconds_per_token()),
                                         known(1e3 * t.decode_seconds, "{:.2f}"),
                                         known(row.over_floor(), "{:.2f}"),
                                         ratio("f16"),
                                         ratio("w8a8"),
                                         fmt::format("{:.1f}%", 100 * t.host_share()),
                                         row.is_void() ? "void" : ""};
  cells.insert(cells.end(), more.begin(), more.end());
  return cells;
}

}  // namespace

Json throughput_json(const std::vector<ThroughputRow>& rows) {
  Json out = Json::array();
  for (const ThroughputRow& row : rows) out.push_back(row_json(rows, row));
  return out;
}

Table throughput_table(const std::vector<ThroughputRow>& rows) {
  Table table = {
      .header = {"format", "KV-cache", "batch by", "weights", "batch", "cache", "tokens/s",
                 "ms/token", "step ms", "step/floor", "x f16", "x w8a8", "host", ""},
      .rows = {},
      .left = {0, 1, 2, 13}};
  for (const ThroughputRow& row : rows) table.rows.push_back(row_cells(rows, row));
  return table;
}

}  // namespace atom::app
