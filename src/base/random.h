// Seeded random numbers with a sequence that is part of the definition: SplitMix64 (Steele, Lea,
// Flood 2014) seeds xoshiro256** (Blackman, Vigna 2018), so equal seeds give equal draws on every
// platform.
#pragma once

#include <cstdint>
#include <random>

namespace atom {

class Random {
 public:
  explicit Random(uint64_t seed);
  uint64_t next();                 // 64 uniform bits
  uint64_t below(uint64_t bound);  // uniform in [0, bound), bound >= 1, without modulo bias
  double uniform();                // [0, 1) with 53 bits
  double normal();                 // standard normal (Box-Muller, one draw kept)

 private:
  uint64_t state_[4];
  double spare_ = 0;
  bool has_spare_ = false;
};

// The integers that Python 3.2 and later draw: PythonRandom(s).below(n) equals random.randrange(n) after
// random.seed(s). Mersenne Twister (Matsumoto, Nishimura 1998) with their array initialization of 2002.
// For draws that published results were made with.
class PythonRandom {
 public:
  explicit PythonRandom(uint64_t seed);
  uint64_t below(uint64_t bound);  // uniform in [0, bound), bound >= 1

 private:
  std::mt19937 twister_;
};

}  // namespace atom
