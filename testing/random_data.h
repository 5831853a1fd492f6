// Seeded data for tests.
//
//   Random random(7);
//   const std::vector<float> x = normal_values(random, 3 * 128, 0.5);
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/random.h"

namespace atom::testing {

// Normal values of the given standard deviation.
inline std::vector<float> normal_values(Random& random, size_t count, double deviation = 1) {
  std::vector<float> values(count);
  for (float& v : values) v = static_cast<float>(deviation * random.normal());
  return values;
}

// Uniform integer in [low, high].
inline int between(Random& random, int low, int high) {
  return low + static_cast<int>(random.below(static_cast<uint64_t>(high - low + 1)));
}

// 2^e with e uniform in [low, high].
inline float power_of_two(Random& random, int low, int high) {
  const int e = between(random, low, high);
  return e >= 0 ? static_cast<float>(int64_t{1} << e) : 1.0f / static_cast<float>(int64_t{1} << -e);
}

// A permutation of 0 .. count - 1 (Fisher, Yates).
inline std::vector<int32_t> permutation(Random& random, int count) {
  std::vector<int32_t> order(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) order[i] = i;
  for (int i = count - 1; i > 0; --i) std::swap(order[i], order[between(random, 0, i)]);
  return order;
}

}  // namespace atom::testing
