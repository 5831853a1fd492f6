#include "quantize_run.h"

#include <algorithm>

#include "console.h"
#include "machine.h"

namespace atom::app {
namespace {

std::string progress_line(const std::string& label, const quantizer::Progress& progress) {
  const double done =
      progress.layers > 0 ? static_cast<double>(progress.layer) / progress.layers : 0;
  std::string line =
      fmt::format("{:<9} {} layer {}/{}  {:<9}", label, progress_bar(done),
                  std::min(progress.layer + 1, progress.layers), progress.layers, progress.phase);
  std::string module = progress.module;
  const std::string prefix = fmt::format("model.layers.{}.", progress.layer);
  if (module.rfind(prefix, 0) == 0) module.erase(0, prefix.size());
  line += fmt::format("  {:<16}", module);
  if (progress.error >= 0) line += fmt::format("  error {:.2e}", progress.error);
  line += fmt::format("  {} elapsed", human_seconds(progress.seconds));
  if (progress.eta_seconds >= 0)
    line += fmt::format(", {} left", human_seconds(progress.eta_seconds));
  return line + fmt::format("  {}", human_bytes(progress.peak_rss));
}

}  // namespace

quantizer::QuantizeReport run_quantize(const QuantizeJob& job, Runtime& runtime) {
  const auto progress = [&](const quantizer::Progress& state) {
    check_interrupted();
    console().progress(progress_line(job.label, state));
  };
  const quantizer::QuantizeReport report =
      quantizer::quantize({.input = job.input,
                           .output = job.output,
                           .recipe = job.recipe,
                           .calibration = job.calibration->ids,
                           .calibration_name = job.calibration->name,
                           .calibration_sha256 = job.calibration->sha256,
                           .samples = job.samples,
                           .sequence = job.sequence,
                           .seed = job.seed,
                           .orders = job.orders,
                           .journal = job.journal,
                           .resume = job.resume,
                           .progress = progress},
                          runtime.backend(), runtime.executor());
  console().end_progress();
  return report;
}

void require_memory(int samples, int sequence, const model::ModelConfig& config) {
  const int64_t bytes = int64_t{samples} * sequence * config.hidden * int64_t{sizeof(float)};
  const std::optional<int64_t> available = available_memory();
  if (available && bytes > *available)
    fail(
        "--samples: {} windows of {} tokens need {} of memory for calibration, but {} are "
        "available",
        samples, sequence, human_bytes(bytes), human_bytes(*available));
}

}  // namespace atom::app
