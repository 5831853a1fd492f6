// How many codes of the activations are saturated (format::saturated_codes): counted in a sample of the steps.
//
//   SaturationProbe probe(model, 256);
//   forward.count_saturated(probe.begin_step(rows));   // null in 255 of 256 steps
//   ...                                                // the step; not recorded if probe.looks()
//   probe.end_step();                                  // waits for the device after a step that it looked at
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "model/forward.h"
#include "model/weights.h"

namespace atom::engine {

// Of one site, both segments together. `sampled`: integer codes of the steps that were looked at, 0 where inputs are in
// floating point.
struct SiteCodes {
  int64_t saturated = 0, sampled = 0;
};
using Saturation = std::vector<std::array<SiteCodes, model::kSites>>;  // by layer, model::SiteIndex

class SaturationProbe {
 public:
  // Looks at the first of every `period` steps; 0: at none.
  SaturationProbe(const model::Model& model, int period);

  // For model::Forward::count_saturated().
  uint64_t* begin_step(int rows);
  bool looks() const { return rows_ > 0; }  // at the step that has begun
  void end_step();
  // Since the start; null: no step was looked at, or no input has codes.
  std::shared_ptr<const Saturation> totals() const { return totals_; }

 private:
  const model::Model& model_;
  const int period_;
  int64_t steps_ = 0;
  int rows_ = 0;                  // of the step that is looked at
  Saturation codes_of_row_;       // `sampled` of a step of one row
  std::vector<uint64_t> counts_;  // [layers, kSites] of one step
  backend::Buffer device_counts_;
  std::shared_ptr<const Saturation> totals_;
};

}  // namespace atom::engine
