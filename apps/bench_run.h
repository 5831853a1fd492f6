// What the verbs of `atom bench` share while they run: the device and its ceilings, a line of progress that looks for an
// interrupt, the memory that there is, and how their reports begin.
//
//   BenchRun run(options);
//   run.measure_ceilings();
//   run.show("time      llama-7b ...");      // again after every burst, by round_options().between
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "bench_words.h"
#include "session.h"
#include "timing/rounds.h"

namespace atom::app {

class BenchRun {
 public:
  explicit BenchRun(const BenchOptions& options) : options_(options), runtime_(options.common) {}

  backend::Backend& backend() const { return runtime_.backend(); }
  bool on_gpu() const { return backend().name() == "cuda"; }
  // `text`, or a default where it is empty.
  std::string or_default(const std::string& text, const char* on_a_gpu,
                         const char* elsewhere) const;

  void measure_ceilings();
  const backend::Ceilings& ceilings() const { return ceilings_; }
  // Bytes of weights or caches to go through: --rotate, or what exceeds the device's caches.
  size_t rotated(std::optional<int> mebibytes);

  void show(const std::string& line);  // throws Interrupted
  std::function<void()> between() {
    return [this] { show(line_); };
  }
  timing::RoundOptions round_options(double burst);  // seconds
  void finish();                                     // the line of progress; notices of the backend

  // Error: less is free. `what` needs it, `less` says which options shrink it.
  void require_memory(double bytes, const std::string& what, const std::string& less) const;

  // backend, ceilings, method, rounds, sustained, then `more`, peak_rss
  Json json(Json more) const;

 private:
  const BenchOptions& options_;
  mutable Runtime runtime_;
  backend::Ceilings ceilings_;
  std::string line_;
};

}  // namespace atom::app
