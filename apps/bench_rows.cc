#include "bench_rows.h"

#include <fmt/format.h>

#include <algorithm>

namespace atom::app {
namespace {

Json row_json(const OpRow& row) {
  Json baselines = Json::object();
  for (const BaselineUs& one : row.baselines) baselines[one.name] = one.us;
  return {
      {"operation", row.operation},
      {"shape", row.shape},
      {"format", row.format},
      {"rows", row.rows},
      {"context", row.context.empty() ? Json(nullptr) : Json(row.context)},
      {"us", 1e6 * row.time.best},
      {"median_us", 1e6 * row.time.median},
      {"spread", row.time.spread},
      {"bytes", row.bytes},
      {"bytes_per_second", row.bytes / row.time.best},
      {"operations_per_second", row.products / row.time.best},
      {"roofline", row.roofline > 0 ? Json(row.roofline) : Json(nullptr)},
      {"baselines_us", baselines},
      {"times_baseline", row.times_baseline() > 0 ? Json(row.times_baseline()) : Json(nullptr)}};
}

std::vector<std::string> row_cells(const OpRow& row) {
  std::string baselines;
  for (const BaselineUs& one : row.baselines)
    baselines += fmt::format("{}{} {:.2f}", baselines.empty() ? "" : ", ", one.name, one.us);
  return {row.operation,
          row.shape,
          row.format,
          std::to_string(row.rows),
          row.context,
          fmt::format("{:.2f}", 1e6 * row.time.best),
          fmt::format("{:.1f}%", 100 * row.time.spread),
          fmt::format("{:.0f}", row.bytes / row.time.best / 1e9),
          row.products > 0 ? fmt::format("{:.2f}", row.products / row.time.best / 1e12) : "-",
          row.roofline > 0 ? fmt::format("{:.0f}%", 100 * row.roofline) : "-",
          row.times_baseline() > 0 ? fmt::format("{:.2f}", row.times_baseline()) : "-",
          baselines};
}

}  // namespace

double OpRow::times_baseline() const {
  double least = 0;
  for (const BaselineUs& one : baselines)
    if (one.name.find("int8") == std::string::npos && one.name.find("fp8") == std::string::npos)
      least = least == 0 ? one.us : std::min(least, one.us);
  return least / (1e6 * time.best);
}

Json rows_json(const std::vector<OpRow>& rows) {
  Json out = Json::array();
  for (const OpRow& row : rows) out.push_back(row_json(row));
  return out;
}

Table rows_table(const std::vector<OpRow>& rows) {
  Table table = {.header = {"operation", "shape", "format", "rows", "context", "us", "spread",
                            "GB/s", "TFLOPS", "roofline", "x baseline", "baselines, us"},
                 .rows = {},
                 .left = {0, 1, 2, 11}};
  for (const OpRow& row : rows) table.rows.push_back(row_cells(row));
  return table;
}

}  // namespace atom::app
