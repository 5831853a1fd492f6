// Plans that were tuned, by linear (bench ops --tune) or in a step (bench step --tune): what is reported, and the file.
#pragma once

#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "timing/tuning.h"

namespace atom::app {

struct TunedRow {
  std::string shape, preset;
  timing::TunedLinear tuned;
};
Json tuned_json(const std::vector<TunedRow>& rows);
// `times`: what the column of microseconds has.
void print_tuned(const std::vector<TunedRow>& rows, const backend::Backend& backend,
                 const std::string& times, const std::string& file);
void write_plans(AtomicFile& file, const backend::LinearTuner& tuner);

}  // namespace atom::app
