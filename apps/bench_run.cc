#include "bench_run.h"

#include <algorithm>

#include "console.h"
#include "machine.h"

namespace atom::app {
namespace {

constexpr size_t kLeastRotated = size_t{256} << 20;

}  // namespace

std::string BenchRun::or_default(const std::string& text, const char* on_a_gpu,
                                 const char* elsewhere) const {
  if (!text.empty()) return text;
  return on_gpu() ? on_a_gpu : elsewhere;
}

void BenchRun::measure_ceilings() {
  show("measure   the ceilings of the device");
  ceilings_ = backend().ceilings();
}

size_t BenchRun::rotated(std::optional<int> mebibytes) {
  if (mebibytes) return static_cast<size_t>(*mebibytes) << 20;
  if (backend().name() == "reference") return 0;
  return std::max(4 * ceilings_.cache_bytes, kLeastRotated);
}

void BenchRun::show(const std::string& line) {
  check_interrupted();
  line_ = line;
  console().progress(line_);
}

timing::RoundOptions BenchRun::round_options(double burst) {
  return {.rounds = options_.rounds,
          .burst = burst,
          .load = options_.sustained.value_or(0),
          .between = between()};
}

void BenchRun::finish() {
  console().end_progress();
  runtime_.show_fallbacks();
}

void BenchRun::require_memory(double bytes, const std::string& what,
                              const std::string& less) const {
  const size_t of_device = backend().available_memory();
  const int64_t available =
      of_device > 0 ? static_cast<int64_t>(of_device) : app::available_memory().value_or(INT64_MAX);
  if (bytes <= static_cast<double>(available)) return;
  fail("{} needs at least {} of memory, but {} are free; {} need less", what,
       human_bytes(static_cast<int64_t>(bytes)), human_bytes(available), less);
}

Json BenchRun::json(Json more) const {
  Json out = {{"backend", runtime_.backend().description()},
              {"ceilings", ceilings_json(ceilings_)},
              {"method", options_.method},
              {"rounds", options_.rounds},
              {"sustained", options_.sustained.value_or(0)}};
  for (auto& [key, value] : more.items()) out[key] = std::move(value);
  out["peak_rss"] = peak_rss();
  return out;
}

}  // namespace atom::app
