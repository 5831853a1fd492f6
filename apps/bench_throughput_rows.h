// The lines of `atom bench throughput`.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "console.h"
#include "timing/throughput.h"

namespace atom::app {

// What others are held against, f16 and w8a8, has to be near what the device allows.
constexpr double kMostOverFloor = 1.15;

struct ThroughputRow {
  std::string format, kv, rule;
  timing::MemoryUse use;
  timing::Batch batch;  // no sequences: it does not fit, nothing was run
  timing::Throughput run;
  double floor = 0;  // seconds of a step without a prompt; 0: not known

  bool ran() const { return batch.sequences > 0; }
  double over_floor() const {
    return floor > 0 && run.decode_seconds > 0 ? run.decode_seconds / floor : 0;
  }
  // As a baseline: too far from its floor, or nobody knows how far.
  bool is_void() const {
    return ran() && (format == "f16" || format == "w8a8") &&
           !(over_floor() > 0 && over_floor() <= kMostOverFloor);
  }
};

Json throughput_json(const std::vector<ThroughputRow>& rows);
Table throughput_table(const std::vector<ThroughputRow>& rows);

}  // namespace atom::app
