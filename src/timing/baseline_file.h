// Times of other programs, to stand beside ours: what the scripts of bench/baselines write. On every line the numbers of a
// shape, the name of what was timed, and microseconds: "32,32,16,1024,cudnn,101.5".
//
//   const Baselines baselines = parse_baselines(text, "sdpa.csv");
//   baselines.least({heads, kv_heads, batch, context});   // microseconds, {"cudnn", 101.5}
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace atom::timing {

struct BaselineTime {
  std::vector<int> shape;
  std::string name;
  double us = 0;
};

struct Baselines {
  std::vector<BaselineTime> times;

  // The fastest of that shape; `name` "": whatever its name.
  std::optional<BaselineTime> least(const std::vector<int>& shape,
                                    std::string_view name = "") const;
};

// Error naming the source and the line: no number of microseconds, or none of a shape.
Baselines parse_baselines(std::string_view text, std::string_view source);

}  // namespace atom::timing
