// Ids of words that were met before, in a table of fixed size that forgets the older of two words for one place.
//
//   WordCache cache;
//   if (!cache.find(word, ids)) { ... cache.insert(word, fresh); }
//
// A word and its ids are one cache line. The table grows from 4 KiB to 4 MiB with the words that it gets.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace atom::text {

class WordCache {
 public:
  static constexpr size_t kMaxWordBytes = 32;
  static constexpr size_t kMaxIds = 7;

  // Appends the ids of the word to `ids`; false when the word is not known. 0 < word.size() <= kMaxWordBytes.
  bool find(std::string_view word, std::vector<int32_t>& ids) const {
    const Key key = key_of(word);
    const Slot* slot = &slots_[place_of(key)];
    if (slot->key != key) ++slot;
    if (slot->key != key) return false;
    if (slot->id_count == 1) {
      ids.push_back(slot->ids[0]);
    } else {
      ids.insert(ids.end(), slot->ids.begin(), slot->ids.begin() + slot->id_count);
    }
    return true;
  }

  // A word with more than kMaxIds ids is not kept.
  void insert(std::string_view word, std::span<const int32_t> ids) {
    if (ids.size() > kMaxIds) return;
    if (++inserted_ > slots_.size() && slots_.size() < kMaxSlots) grow();
    Slot fresh;
    fresh.key = key_of(word);
    std::copy(ids.begin(), ids.end(), fresh.ids.begin());
    fresh.id_count = static_cast<uint8_t>(ids.size());
    put(fresh);
  }

 private:
  static constexpr size_t kFirstSlots = 1 << 6;
  static constexpr size_t kMaxSlots = 1 << 16;

  // The bytes, in loads that overlap, and their number; no word has all zeros.
  struct Key {
    std::array<uint64_t, 4> bytes{};
    uint8_t size = 0;
    bool operator==(const Key&) const = default;
  };
  struct Slot {
    Key key;
    uint8_t id_count = 0;
    std::array<int32_t, kMaxIds> ids{};
  };

  static uint64_t load(const char* at, size_t bytes) {
    uint64_t value = 0;
    std::memcpy(&value, at, bytes);
    return value;
  }

  static Key key_of(std::string_view word) {
    const char* const data = word.data();
    const size_t size = word.size();
    Key key;
    key.size = static_cast<uint8_t>(size);
    if (size >= 8) {
      key.bytes[0] = load(data, 8);
      key.bytes[1] = load(data + size - 8, 8);
      if (size > 16) {
        key.bytes[2] = load(data + 8, 8);
        key.bytes[3] = load(data + size - 16, 8);
      }
    } else if (size >= 4) {
      key.bytes[0] = load(data, 4) | load(data + size - 4, 4) << 32;
    } else {
      key.bytes[0] = load(data, 1) | load(data + size / 2, 1) << 8 | load(data + size - 1, 1) << 16;
    }
    return key;
  }

  // The first of the two slots where the word may be.
  size_t place_of(const Key& key) const {
    uint64_t hash = key.size;
    for (const uint64_t word : key.bytes) {
      hash = (hash ^ word) * 0x9E3779B97F4A7C15u;
      hash ^= hash >> 32;
    }
    return 2 * (hash & (slots_.size() / 2 - 1));
  }

  void put(const Slot& fresh) {
    Slot* const place = &slots_[place_of(fresh.key)];
    place[1] = place[0];
    place[0] = fresh;
  }

  void grow() {
    std::vector<Slot> old(2 * slots_.size());
    std::swap(old, slots_);
    inserted_ = 0;
    for (size_t i = old.size(); i-- > 0;) {
      if (old[i].key.size != 0) put(old[i]);
    }
  }

  std::vector<Slot> slots_ = std::vector<Slot>(kFirstSlots);
  size_t inserted_ = 0;  // since the table has grown
};

}  // namespace atom::text
