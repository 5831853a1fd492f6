// The Walsh-Hadamard transform in Sylvester order, normalized: orthogonal and its own inverse. The definition of
// docs/formats.md; faster backends must give the same bits.
//
//   block_hadamard(x, 128);     // x[0 .. 128), x[128 .. 256), ...
#pragma once

#include <bit>
#include <cmath>
#include <span>

namespace atom::format {

// The length of the block that begins with `left` values to go: `block`, or the largest power of two that fits.
inline int hadamard_length(int left, int block) {
  return left >= block ? block : static_cast<int>(std::bit_floor(static_cast<unsigned>(left)));
}

// x.size() is a power of two. Distances 1, 2, 4, ... in turn; every sum and difference is rounded, then the product
// with the f32 nearest 1 / sqrt(size).
inline void hadamard(std::span<float> x) {
  for (size_t distance = 1; distance < x.size(); distance *= 2)
    for (size_t i = 0; i < x.size(); ++i)
      if ((i & distance) == 0) {
        const float a = x[i], b = x[i + distance];
        x[i] = a + b;
        x[i + distance] = a - b;
      }
  const float norm = static_cast<float>(1.0 / std::sqrt(static_cast<double>(x.size())));
  for (float& v : x) v *= norm;
}

// `block` is a power of two. What is left after whole blocks is cut into ever smaller powers of two.
inline void block_hadamard(std::span<float> x, int block) {
  for (size_t at = 0; at < x.size();) {
    const int length = hadamard_length(static_cast<int>(x.size() - at), block);
    hadamard(x.subspan(at, static_cast<size_t>(length)));
    at += static_cast<size_t>(length);
  }
}

}  // namespace atom::format
