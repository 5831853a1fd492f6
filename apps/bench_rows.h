// The lines of `atom bench ops`.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "console.h"
#include "timing/rounds.h"

namespace atom::app {

struct BaselineUs {
  std::string name;
  double us = 0;
};

struct OpRow {
  std::string operation, shape, format;
  int rows = 0;
  std::string context;  // of attention
  timing::Timing time;
  double bytes = 0, products = 0, roofline = 0;  // roofline: share of it, 0: not known
  std::vector<BaselineUs>
      baselines;  // the first kinds are those that times_baseline() compares with

  // How many times as fast as the fastest baseline in 16 (or 32) bits; 0: there is none.
  double times_baseline() const;
};

Json rows_json(const std::vector<OpRow>& rows);
Table rows_table(const std::vector<OpRow>& rows);

}  // namespace atom::app
