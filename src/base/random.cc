#include "base/random.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace atom {
namespace {

uint64_t split_mix(uint64_t& state) {
  uint64_t z = (state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// A seed sequence of the standard library: generate() gives the whole state of a Mersenne Twister, here the one
// that init_by_array() of its authors makes of a key.
struct ArraySeed {
  using result_type = uint32_t;

  template <typename Iterator>
  void generate(Iterator begin, Iterator end) const {
    const size_t n = static_cast<size_t>(end - begin);
    begin[0] = 19650218;
    for (size_t i = 1; i < n; ++i)
      begin[i] = static_cast<uint32_t>(1812433253u * (begin[i - 1] ^ (begin[i - 1] >> 30)) + i);
    size_t i = 1, j = 0;
    const auto advance = [&] {
      if (++i < n) return;
      begin[0] = begin[n - 1];
      i = 1;
    };
    const auto before = [&] { return begin[i - 1] ^ (begin[i - 1] >> 30); };
    for (size_t step = std::max(n, size); step > 0; --step) {
      begin[i] = static_cast<uint32_t>((begin[i] ^ (before() * 1664525u)) + key[j] + j);
      j = (j + 1) % size;
      advance();
    }
    for (size_t step = n - 1; step > 0; --step) {
      begin[i] = static_cast<uint32_t>((begin[i] ^ (before() * 1566083941u)) - i);
      advance();
    }
    begin[0] = 0x80000000u;
  }

  std::array<uint32_t, 2> key;
  size_t size;
};

}  // namespace

Random::Random(uint64_t seed) {
  for (uint64_t& word : state_) word = split_mix(seed);
}

uint64_t Random::next() {
  const uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
  const uint64_t shifted = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= shifted;
  state_[3] = std::rotl(state_[3], 45);
  return result;
}

uint64_t Random::below(uint64_t bound) {
  check(bound >= 1, "Random::below needs a bound of at least 1");
  // The first 2^64 mod bound values would be drawn once too often by the modulo: refuse them.
  const uint64_t refused = (0 - bound) % bound;
  for (;;) {
    const uint64_t bits = next();
    if (bits >= refused) return bits % bound;
  }
}

double Random::uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }

double Random::normal() {
  if (has_spare_) {
    has_spare_ = false;
    return spare_;
  }
  const double radius = std::sqrt(-2 * std::log(1 - uniform()));  // argument in (0, 1]
  const double angle = 2 * std::numbers::pi * uniform();
  spare_ = radius * std::sin(angle);
  has_spare_ = true;
  return radius * std::cos(angle);
}

PythonRandom::PythonRandom(uint64_t seed) {
  const uint32_t low = static_cast<uint32_t>(seed), high = static_cast<uint32_t>(seed >> 32);
  ArraySeed sequence{.key = {low, high}, .size = high == 0 ? size_t{1} : size_t{2}};
  twister_.seed(sequence);
}

uint64_t PythonRandom::below(uint64_t bound) {
  check(bound >= 1, "PythonRandom::below needs a bound of at least 1");
  const int bits = std::bit_width(bound);
  for (;;) {
    // The first words are the low ones; the last gives its upper bits.
    uint64_t value = 0;
    for (int shift = 0; shift < bits; shift += 32) {
      const int take = std::min(32, bits - shift);
      value |= uint64_t{twister_() >> (32 - take)} << shift;
    }
    if (value < bound) return value;
  }
}

}  // namespace atom
