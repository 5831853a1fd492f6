#include "quantizer/progress.h"

#include <sys/resource.h>

#include <utility>

namespace atom::quantizer {

int64_t peak_rss() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return int64_t{usage.ru_maxrss} * 1024;
}

Meter::Meter(int layers, std::function<void(const Progress&)> sink) : sink_(std::move(sink)) {
  progress_.layers = layers;
}

double Meter::seconds() const {
  return std::chrono::duration<double>(Clock::now() - start_).count();
}

void Meter::phase(const std::string& name) {
  if (progress_.phase == "search") searched_ += seconds() - search_began_;
  if (name == "search") search_began_ = seconds();
  progress_.phase = name;
  progress_.module.clear();
  progress_.error = -1;
}

void Meter::begin(int layer, double before, double share) {
  progress_.layer = layer;
  before_ = before;
  pass_ = share;
  share_ = 0;
}

void Meter::share(double done) {
  share_ = done;
  tell(progress_.error);
}

void Meter::tell(double error) {
  progress_.seconds = seconds();
  if (error >= 0) progress_.error = error;
  progress_.peak_rss = peak_rss();
  const double calibrated = calibrates_ ? progress_.layers : 0;
  const double in_layer = progress_.layer + before_ + share_ * pass_;
  const double total = calibrated + kSolveShare * progress_.layers;
  const double done =
      progress_.phase == "calibrate" ? in_layer : calibrated + kSolveShare * in_layer;
  const bool known = done > 0 && progress_.phase != "search";
  progress_.eta_seconds = known ? (progress_.seconds - searched_) * (total - done) / done : -1;
  if (sink_) sink_(progress_);
}

}  // namespace atom::quantizer
