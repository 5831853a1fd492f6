// What conversions say while they work and when they are done.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace atom::convert {

struct ConvertProgress {
  uint64_t done = 0, total = 0;  // bytes of the output's tensors
  std::string tensor;
};

struct ConvertReport {
  int64_t tensors = 0;
  uint64_t bytes = 0;               // of the output's tensors
  std::vector<std::string> as_f16;  // tensors whose rows are no blocks of Q8_0
};

}  // namespace atom::convert
