// The compiled character rules of SentencePiece ("precompiled_charsmap"): a double-array trie of
// source strings, and their replacements.
//
//   const Charsmap map = Charsmap::from_bytes(blob, "tokenizer.model: normalizer_spec");
//   const Charsmap::Rule rule = map.longest(text, at);   // rule.size == 0: none
//
// Layout (little endian): u32 bytes of the trie; the trie, u32 units; replacements, each ended by a
// zero byte. A unit holds a label (bits 0-7), whether a key ends here (8), and the offset to its
// children (10-31, times 256 where bit 9 is set); the unit of a key's end holds the position of the
// replacement. No rule is trusted: every position is checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace atom::text {

class Charsmap {
 public:
  struct Rule {
    size_t size = 0;               // bytes of text that it replaces; 0: no rule
    std::string_view replacement;  // valid while the map lives; may be empty
  };

  Charsmap() = default;  // without rules
  // Empty bytes give the map without rules. Error: sizes that contradict each other, replacements
  // that are not UTF-8.
  static Charsmap from_bytes(std::string_view bytes, std::string_view source);

  bool empty() const { return units_.empty(); }
  bool may_start(char byte) const { return starts_[static_cast<uint8_t>(byte)] != 0; }
  Rule longest(std::string_view text, size_t at) const;
  Rule shortest(std::string_view text) const;  // of the rules that begin the text

 private:
  template <typename Visit>
  void visit_rules(std::string_view text, size_t at, Visit&& visit) const;
  std::string_view replacement_at(size_t position) const;

  std::vector<uint32_t> units_;
  std::string replacements_;
  std::vector<uint8_t> starts_ = std::vector<uint8_t>(256, 0);
};

// Bytes of standard base64 (RFC 4648). Error: other characters, a length that is no multiple of 4.
std::string decode_base64(std::string_view text, std::string_view source);

}  // namespace atom::text
