#include "base/mapped_ranges.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <utility>

namespace atom {
namespace {

constexpr uintptr_t kFree = 0;
constexpr uintptr_t kTaken = 1;  // being filled in: no address of a page

// `begin` is written last and read first, so that whoever sees an address there sees the rest.
struct Place {
  std::atomic<uintptr_t> begin{kFree};
  std::atomic<size_t> size{0};
  std::atomic<const char*> path{nullptr};
};
static_assert(std::atomic<uintptr_t>::is_always_lock_free &&
              std::atomic<const char*>::is_always_lock_free);  // else no signal handler may look

constinit std::array<Place, kMostMappedRanges> places;

size_t take_place() {
  for (size_t i = 0; i < places.size(); ++i) {
    uintptr_t expected = kFree;
    if (places[i].begin.compare_exchange_strong(expected, kTaken)) return i;
  }
  return places.size();
}

}  // namespace

MappedRange::MappedRange(const void* data, size_t size, std::string_view path)
    : place_(take_place()) {
  if (place_ == kNone) return;
  path_ = std::make_unique<char[]>(path.size() + 1);
  std::copy(path.begin(), path.end(), path_.get());
  Place& place = places[place_];
  place.size = size;
  place.path = path_.get();
  place.begin = reinterpret_cast<uintptr_t>(data);
}

MappedRange::~MappedRange() {
  if (place_ != kNone) places[place_].begin = kFree;
}

MappedRange::MappedRange(MappedRange&& other) noexcept
    : place_(std::exchange(other.place_, kNone)), path_(std::move(other.path_)) {}

MappedRange& MappedRange::operator=(MappedRange&& other) noexcept {
  std::swap(place_, other.place_);
  std::swap(path_, other.path_);
  return *this;
}

const char* mapped_file_at(const void* address) noexcept {
  const auto wanted = reinterpret_cast<uintptr_t>(address);
  for (const Place& place : places) {
    const uintptr_t begin = place.begin;
    // The last page is mapped as a whole, but reading behind the file's end in it raises nothing.
    if (begin > kTaken && wanted >= begin && wanted - begin < place.size) return place.path;
  }
  return nullptr;
}

}  // namespace atom
