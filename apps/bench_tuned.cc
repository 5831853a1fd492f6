#include "bench_tuned.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "console.h"

namespace atom::app {
namespace {

double us(const timing::Timing& time) { return 1e6 * time.best; }

Json row_json(const TunedRow& row) {
  const timing::TunedLinear& t = row.tuned;
  return {{"shape", row.shape},
          {"preset", row.preset},
          {"linear", t.name},
          {"n", t.n},
          {"k", t.k},
          {"rows", t.rows},
          {"choices", t.choices},
          {"before", t.before},
          {"before_us", us(t.before_time)},
          {"after", t.after},
          {"after_us", us(t.after_time)}};
}

std::vector<std::string> row_cells(const TunedRow& row) {
  const timing::TunedLinear& t = row.tuned;
  const bool kept = t.before == t.after;
  return {row.shape,
          row.preset,
          t.name,
          std::to_string(t.n),
          std::to_string(t.k),
          std::to_string(t.rows),
          std::to_string(t.choices),
          t.before,
          fmt::format("{:.2f}", us(t.before_time)),
          kept ? "kept" : t.after,
          kept ? "" : fmt::format("{:.2f}", us(t.after_time)),
          kept ? "" : fmt::format("{:.3f}", us(t.before_time) / us(t.after_time))};
}

}  // namespace

Json tuned_json(const std::vector<TunedRow>& rows) {
  Json linears = Json::array();
  for (const TunedRow& row : rows) linears.push_back(row_json(row));
  return linears;
}

void print_tuned(const std::vector<TunedRow>& rows, const backend::Backend& backend,
                 const std::string& times, const std::string& file) {
  print_heading("plans of linears");
  const auto changed = std::count_if(rows.begin(), rows.end(), [](const TunedRow& row) {
    return row.tuned.before != row.tuned.after;
  });
  print_facts({{"backend", backend.description()},
               {"times", times},
               {"changed", fmt::format("{} of {}", changed, rows.size())},
               {"written", file}});
  Table table = {.header = {"shape", "preset", "linear", "n", "k", "rows", "choices", "before",
                            "us", "after", "us", "x before"},
                 .rows = {},
                 .left = {0, 1, 2, 7, 9}};
  for (const TunedRow& row : rows) table.rows.push_back(row_cells(row));
  print_table(table);
}

void write_plans(AtomicFile& file, const backend::LinearTuner& tuner) {
  const std::string text = tuner.file();
  file.write(std::as_bytes(std::span(text)));
  file.commit();
}

}  // namespace atom::app
