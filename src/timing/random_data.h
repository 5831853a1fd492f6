// Device arrays of normal random values, made at the speed of memory: cut at random places out of a pool.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "base/random.h"

namespace atom::timing {

class RandomData {
 public:
  // between: called now and then while data is made, to look for an interrupt; may throw.
  explicit RandomData(backend::Backend& backend, uint64_t seed = 1,
                      std::function<void()> between = {})
      : backend_(backend), random_(seed), between_(std::move(between)) {}

  // `count` values of variance 1 (int8: of codes, 32^2).
  backend::Buffer make(backend::LibraryFormat format, size_t count);
  backend::Buffer make_f32(size_t count) { return make(backend::LibraryFormat::kF32, count); }
  // For those who make other data beside.
  const std::function<void()>& between() const { return between_; }
  void pause() const {
    if (between_) between_();
  }

 private:
  const std::vector<std::byte>& pool(backend::LibraryFormat format);

  backend::Backend& backend_;
  Random random_;
  std::function<void()> between_;
  std::array<std::vector<std::byte>, 4> pools_;
};

// Bytes of a value of x and w, and of y.
int value_bytes(backend::LibraryFormat format);
int result_bytes(backend::LibraryFormat format);

}  // namespace atom::timing
