// Two-way map between token strings and ids.
//
//   Vocabulary vocabulary;
//   vocabulary.add("the", 5, "tokenizer.json: model");
//   vocabulary.find("the");                    // id, or -1
//   vocabulary.token(5);                       // empty for an id without a token
//
// Ids need not be dense: files with unused ids exist. Immutable after loading, so shared by
// threads. The texts lie in one buffer, ids in a table with open addressing: 16 to 24 bytes a token beside its text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace atom::text {

class Vocabulary {
 public:
  // Error: id negative, above the limit, or held by another token; token known under another id; texts of more than 4 GiB.
  void add(std::string_view token, int64_t id, std::string_view source);
  // Room for ids up to max(4 * count, 65536): an id far beyond the number of tokens is an error.
  void limit_for(size_t count);

  int32_t find(std::string_view token) const;
  // Empty when the id has no token; valid until the next add.
  std::string_view token(int32_t id) const { return has(id) ? text_of(id) : std::string_view(); }
  bool has(int32_t id) const {
    return id >= 0 && id < size() && tokens_[static_cast<size_t>(id)].begin != kNoToken;
  }
  int32_t size() const { return static_cast<int32_t>(tokens_.size()); }  // largest id + 1
  int32_t max_id() const { return max_id_; }

 private:
  static constexpr uint32_t kNoToken = UINT32_MAX;
  struct Place {
    uint32_t begin = kNoToken;  // in texts_
    uint32_t size = 0;
  };

  std::string_view text_of(int32_t id) const {
    const Place& place = tokens_[static_cast<size_t>(id)];
    return std::string_view(texts_).substr(place.begin, place.size);
  }
  size_t slot_of(std::string_view token) const;
  void grow(size_t count);

  std::string texts_;
  std::vector<Place> tokens_;   // by id
  std::vector<int32_t> slots_;  // ids; -1: empty; at most half full
  size_t count_ = 0;
  int32_t max_id_ = 65536;
};

}  // namespace atom::text
