// Two-way map between token strings and ids.
//
//   const Vocabulary vocabulary = vocabulary_from_json(json["vocab"], "tokenizer.json: model");
//   vocabulary.find("the");                    // id, or -1
//   vocabulary.token(5);                       // empty for an id without a token
//
// Ids need not be dense: files with unused ids exist. Immutable after loading, so shared by
// threads.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/json.h"

namespace atom::text {

class Vocabulary {
 public:
  // Error: id negative, above the limit, or held by another token; token known under another id.
  void add(std::string token, int64_t id, std::string_view source);
  // Room for ids up to max(4 * count, 65536): an id far beyond the number of tokens is an error.
  void limit_for(size_t count);

  int32_t find(std::string_view token) const {
    const auto found = ids_.find(token);
    return found == ids_.end() ? -1 : found->second;
  }
  const std::string& token(int32_t id) const;  // empty when the id has no token
  bool has(int32_t id) const {
    return id >= 0 && id < size() && used_[static_cast<size_t>(id)] != 0;
  }
  int32_t size() const { return static_cast<int32_t>(tokens_.size()); }  // largest id + 1
  int32_t max_id() const { return max_id_; }

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };

  std::unordered_map<std::string, int32_t, Hash, std::equal_to<>> ids_;
  std::vector<std::string> tokens_;
  std::vector<uint8_t> used_;
  int32_t max_id_ = 65536;
};

// The "vocab" object: token -> id. Error: not an object, empty, ids that are no integers.
Vocabulary vocabulary_from_json(const Json& json, std::string_view source);

}  // namespace atom::text
