// Prefix tree over byte strings, for "which tokens begin here".
//
//   Trie trie(Trie::nodes_of({"the", "then"}));   // 4
//   trie.add("the", 5);
//   trie.matches(text, at, Trie::kRoot, [&](size_t end, int32_t value) { ... });   // shortest first
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <vector>

#include "text/pair_map.h"

namespace atom::text {

class Trie {
 public:
  static constexpr uint32_t kRoot = 0;
  static constexpr uint32_t kNone = PairMap::kNone;

  // nodes: of all keys, at most.
  explicit Trie(size_t nodes = 0) : children_(nodes) {}
  // Bytes of the keys, where those of a common beginning count once.
  static size_t nodes_of(std::vector<std::string_view> keys) {
    std::sort(keys.begin(), keys.end());
    size_t nodes = 0;
    std::string_view last;
    for (const std::string_view key : keys) {
      const auto end = std::mismatch(key.begin(), key.end(), last.begin(), last.end()).first;
      nodes += static_cast<size_t>(key.end() - end);
      last = key;
    }
    return nodes;
  }

  // value >= 0; the last value of a key counts.
  void add(std::string_view key, int32_t value) {
    uint32_t node = kRoot;
    for (const char byte : key) {
      uint32_t next = child(node, byte);
      if (next == kNone) {
        next = static_cast<uint32_t>(values_.size());
        values_.push_back(-1);
        if (node == kRoot) {
          first_[static_cast<uint8_t>(byte)] = next;
        } else {
          children_.assign(static_cast<int32_t>(node), static_cast<uint8_t>(byte), next);
        }
      }
      node = next;
    }
    values_[node] = value;
  }

  uint32_t child(uint32_t node, char byte) const {
    if (node == kRoot) return first_[static_cast<uint8_t>(byte)];
    return children_.find(static_cast<int32_t>(node), static_cast<uint8_t>(byte));
  }
  // kNone when no key begins with `prefix`.
  uint32_t descend(uint32_t node, std::string_view prefix) const {
    for (size_t i = 0; i < prefix.size() && node != kNone; ++i) node = child(node, prefix[i]);
    return node;
  }
  int32_t value(uint32_t node) const { return values_[node]; }  // -1: no key ends here

  // Calls visit(end, value) for each key that begins at text[at], read from `node` on.
  template <typename Visit>
  void matches(std::string_view text, size_t at, uint32_t node, Visit&& visit) const {
    while (at < text.size()) {
      node = child(node, text[at++]);
      if (node == kNone) return;
      if (values_[node] >= 0) visit(at, values_[node]);
    }
  }

 private:
  PairMap children_;                                                 // node, byte -> node
  std::vector<uint32_t> first_ = std::vector<uint32_t>(256, kNone);  // children of the root
  std::vector<int32_t> values_ = {-1};                               // by node
};

}  // namespace atom::text
