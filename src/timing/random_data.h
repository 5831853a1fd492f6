// Device arrays of normal random values, made at the speed of memory: cut at random places out of a pool.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "base/random.h"

namespace atom::timing {

class RandomData {
 public:
  explicit RandomData(backend::Backend& backend, uint64_t seed = 1)
      : backend_(backend), random_(seed) {}

  // `count` values of variance 1 (int8: of codes, 32^2).
  backend::Buffer make(backend::LibraryFormat format, size_t count);
  backend::Buffer make_f32(size_t count) { return make(backend::LibraryFormat::kF32, count); }

 private:
  const std::vector<std::byte>& pool(backend::LibraryFormat format);

  backend::Backend& backend_;
  Random random_;
  std::array<std::vector<std::byte>, 4> pools_;
};

// Bytes of a value of x and w, and of y.
int value_bytes(backend::LibraryFormat format);
int result_bytes(backend::LibraryFormat format);

}  // namespace atom::timing
