// Tokens that are found in the text as they stand, before the model: special tokens and others.
//
//   AddedTokenMatcher matcher(tokens, contents);   // contents[i]: how tokens[i] looks in the text
//   matcher.split("a<s>b", parts);                 // {0,1,none} {1,4,id of <s>} {4,5,none}
//
// Matching is leftmost-longest and does not overlap, as Aho-Corasick with that rule gives it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/json.h"

namespace atom::text {

struct AddedToken {
  int32_t id = -1;
  std::string content;       // not empty
  bool special = false;      // left out of decoded text on demand
  bool normalized = false;   // matched after the normalizer, in its normalized form
  bool single_word = false;  // only between characters that are not word characters
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space after it
};

// The "added_tokens" array, null means none. Error: wrong fields, ids outside [0, max_id], ids or
// contents that occur twice, contents longer than 4096 bytes.
std::vector<AddedToken> added_tokens_from_json(const Json& json, int32_t max_id,
                                               std::string_view source);

struct TextPart {
  size_t begin;
  size_t end;
  int32_t id;  // -1: text for the next step
};

class AddedTokenMatcher {
 public:
  AddedTokenMatcher() = default;
  // tokens.size() == contents.size(); an empty content never matches; of equal contents the first
  // counts.
  AddedTokenMatcher(std::vector<AddedToken> tokens, const std::vector<std::string>& contents);

  // Replaces `parts`; text parts are not empty. Thread-safe.
  void split(std::string_view text, std::vector<TextPart>& parts) const;
  // Bytes of the longest content at text[at], 0 for none; the options of its token do not count.
  size_t match_bytes(std::string_view text, size_t at) const {
    return starts_[static_cast<uint8_t>(text[at])] == 0 ? 0 : longest_at(text, at).size;
  }
  bool empty() const { return child_.empty(); }

 private:
  struct Match {
    size_t size;
    uint32_t token;
  };
  Match longest_at(std::string_view text, size_t at) const;

  std::vector<AddedToken> tokens_;
  std::vector<int32_t> token_of_node_;            // -1: no content ends here
  std::unordered_map<uint64_t, uint32_t> child_;  // node << 8 | byte -> node
  std::vector<uint8_t> starts_ = std::vector<uint8_t>(256, 0);
};

}  // namespace atom::text
