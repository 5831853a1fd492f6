// A linear layer is a list of K-segments over one shared, ordered input; each segment has its own
// format.
//
//   w4a4, 128 kept channels:  {int4.g128 x int4.g128, k - 128}, {int8 x int8, 128}
#pragma once

#include <array>
#include <cstdint>

#include "format/format.h"

namespace atom::format {

struct Segment {
  Format format;
  int32_t size = 0;  // channels

  bool operator==(const Segment&) const = default;
};

// [normal][kept]; an absent segment has size 0. Used for an input and for a weight alike.
struct Segments {
  std::array<Segment, 2> at{};

  int k() const { return at[0].size + at[1].size; }
  bool operator==(const Segments&) const = default;
};

inline Segments whole(Format format, int k) { return {{Segment{format, k}, Segment{}}}; }

inline int groups(const Segments& s) {
  return groups(s.at[0].format, s.at[0].size) + groups(s.at[1].format, s.at[1].size);
}

}  // namespace atom::format
