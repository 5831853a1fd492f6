// Ids of words that one encode call has met already. Bounded: when it is full, new words are not
// kept.
//
//   WordCache cache(text.size());
//   if (!cache.find(word, ids)) { ... cache.insert(word, fresh); }
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace atom::text {

class WordCache {
 public:
  static constexpr size_t kMaxWordBytes = 64;

  explicit WordCache(size_t text_bytes)
      : slots_(std::bit_ceil(std::clamp<size_t>(text_bytes / 32, 32, kMaxSlots))) {}

  // Appends the ids of the word to `ids`; false when the word is not known.
  bool find(std::string_view word, std::vector<int32_t>& ids) const {
    const Slot& slot = slots_[position(word)];
    if (slot.word_bytes == 0) return false;
    const auto first = ids_.begin() + slot.ids_at;
    ids.insert(ids.end(), first, first + slot.id_count);
    return true;
  }

  // 0 < word.size() <= kMaxWordBytes, ids.size() < 65536.
  void insert(std::string_view word, std::span<const int32_t> ids) {
    if (2 * (words_ + 1) > slots_.size()) return;
    Slot& slot = slots_[position(word)];
    if (slot.word_bytes != 0) return;
    slot = {hash(word), static_cast<uint32_t>(text_.size()), static_cast<uint32_t>(ids_.size()),
            static_cast<uint16_t>(word.size()), static_cast<uint16_t>(ids.size())};
    text_ += word;
    ids_.insert(ids_.end(), ids.begin(), ids.end());
    ++words_;
  }

 private:
  static constexpr size_t kMaxSlots = 1 << 17;

  struct Slot {
    uint64_t hash = 0;
    uint32_t text_at = 0;
    uint32_t ids_at = 0;
    uint16_t word_bytes = 0;  // 0: free
    uint16_t id_count = 0;
  };

  static uint64_t hash(std::string_view word) { return std::hash<std::string_view>()(word); }

  // The slot of the word, or the free slot where it belongs.
  size_t position(std::string_view word) const {
    const uint64_t wanted = hash(word);
    size_t at = wanted & (slots_.size() - 1);
    while (slots_[at].word_bytes != 0) {
      const Slot& slot = slots_[at];
      if (slot.hash == wanted &&
          std::string_view(text_).substr(slot.text_at, slot.word_bytes) == word) {
        break;
      }
      at = (at + 1) & (slots_.size() - 1);
    }
    return at;
  }

  std::vector<Slot> slots_;
  size_t words_ = 0;
  std::string text_;
  std::vector<int32_t> ids_;
};

}  // namespace atom::text
