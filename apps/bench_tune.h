// atom bench ops --tune: the fastest kernel plans of linears, into a file.
#pragma once

#include <optional>
#include <string>

#include "bench_words.h"

namespace atom::app {

struct TuneOptions {
  const BenchOptions& bench;
  std::string file;           // that is written
  std::string presets, rows;  // lists; "": the default
  std::optional<int> rotate;  // MiB
};
// UsageError: the backend has nothing to tune.
void tune_linears(const TuneOptions& options);

}  // namespace atom::app
