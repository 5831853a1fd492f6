// How fast the threads read memory.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "backend/cpu/cpu_backend.h"
#include "base/error.h"

namespace atom::backend::cpu {
namespace {

constexpr size_t kLeastBytes = size_t{256} << 20, kMostBytes = size_t{512} << 20;
constexpr size_t kPart = size_t{1} << 20;  // bytes of an iteration

size_t last_level_cache() {
  const long bytes = ::sysconf(_SC_LEVEL3_CACHE_SIZE);
  return bytes > 0 ? static_cast<size_t>(bytes) : 0;
}

uint64_t sum_of(const uint64_t* words, size_t count) {
  uint64_t sums[8] = {};
  for (size_t i = 0; i + 8 <= count; i += 8)
    for (size_t j = 0; j < 8; ++j) sums[j] += words[i + j];
  uint64_t sum = 0;
  for (const uint64_t s : sums) sum += s;
  return sum;
}

}  // namespace

Ceilings CpuBackend::ceilings() {
  const size_t bytes = std::clamp(4 * last_level_cache(), kLeastBytes, kMostBytes) / kPart * kPart;
  const Memory memory(bytes);
  const auto parts = static_cast<int64_t>(bytes / kPart);
  const auto part = [&](int64_t i) {
    return memory.as<std::byte>() + static_cast<size_t>(i) * kPart;
  };
  executor_.parallel_for(parts, [&](int64_t i, int) { std::memset(part(i), 1, kPart); });
  std::vector<uint64_t> sums(static_cast<size_t>(parts));
  double least = 1e30;
  for (int round = 0; round < 4; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    executor_.parallel_for(parts, [&](int64_t i, int) {
      sums[static_cast<size_t>(i)] =
          sum_of(reinterpret_cast<const uint64_t*>(part(i)), kPart / sizeof(uint64_t));
    });
    least = std::min(
        least, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  Ceilings out;
  out.cache_bytes = last_level_cache();
  // All sums are equal: the compiler cannot know, and so has to make them.
  if (std::count(sums.begin(), sums.end(), sums.front()) == parts)
    out.read_bytes = static_cast<double>(bytes) / least;
  out.origin = fmt::format("reading {} MiB, measured", bytes >> 20);
  return out;
}

}  // namespace atom::backend::cpu
