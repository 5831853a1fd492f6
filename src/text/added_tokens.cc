#include "text/added_tokens.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "base/error.h"
#include "text/unicode.h"

namespace atom::text {
namespace {

constexpr size_t kMaxContentBytes = 4096;

// Looks no further back than `begin`.
size_t spaces_before(std::string_view text, size_t begin, size_t end) {
  while (end > begin) {
    const size_t last = previous_utf8(text, end);
    if (!is_whitespace(decode_utf8(text, last).value)) break;
    end = last;
  }
  return end;
}

size_t spaces_after(std::string_view text, size_t begin) {
  while (begin < text.size()) {
    const CodePoint c = decode_utf8(text, begin);
    if (!is_whitespace(c.value)) break;
    begin += c.size;
  }
  return begin;
}

bool touches_word(std::string_view text, size_t begin, size_t end) {
  return (begin > 0 && is_word(decode_utf8(text, previous_utf8(text, begin)).value)) ||
         (end < text.size() && is_word(decode_utf8(text, end).value));
}

}  // namespace

std::vector<AddedToken> added_tokens_from_json(const Json& json, int32_t max_id,
                                               std::string_view source) {
  std::vector<AddedToken> tokens;
  if (json.is_null()) return tokens;
  if (!json.is_array())
    fail("{}: added_tokens must be an array and is {}", source, shown_json(json));
  std::unordered_set<int32_t> ids;
  std::unordered_set<std::string> contents;
  for (size_t i = 0; i < json.size(); ++i) {
    const std::string place = fmt::format("{}: added_tokens[{}]", source, i);
    const Json& entry = json[i];
    if (!entry.is_object()) fail("{}: must be an object and is {}", place, shown_json(entry));
    AddedToken token;
    token.id =
        static_cast<int32_t>(get_int(entry, "id", {.source = place, .min = 0, .max = max_id}));
    token.content = get_string(entry, "content", place);
    if (token.content.empty() || token.content.size() > kMaxContentBytes) {
      fail("{}: content must have 1 to {} bytes and has {}", place, kMaxContentBytes,
           token.content.size());
    }
    token.special = get_bool_or(entry, "special", false, place);
    token.normalized = get_bool_or(entry, "normalized", !token.special, place);
    token.single_word = get_bool_or(entry, "single_word", false, place);
    token.lstrip = get_bool_or(entry, "lstrip", false, place);
    token.rstrip = get_bool_or(entry, "rstrip", false, place);
    if (!ids.insert(token.id).second) fail("{}: the id {} occurs twice", place, token.id);
    if (!contents.insert(token.content).second) {
      fail("{}: the content '{}' occurs twice", place, token.content);
    }
    tokens.push_back(std::move(token));
  }
  return tokens;
}

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens,
                                     const std::vector<std::string>& contents)
    : tokens_(std::move(tokens)), token_of_node_{-1} {
  check(tokens_.size() == contents.size(), "one content for each added token");
  for (size_t i = 0; i < contents.size(); ++i) {
    if (contents[i].empty()) continue;
    starts_[static_cast<uint8_t>(contents[i][0])] = 1;
    uint32_t node = 0;
    for (const char c : contents[i]) {
      const uint64_t key = uint64_t{node} << 8 | static_cast<uint8_t>(c);
      const auto [child, added] =
          child_.try_emplace(key, static_cast<uint32_t>(token_of_node_.size()));
      if (added) token_of_node_.push_back(-1);
      node = child->second;
    }
    if (token_of_node_[node] < 0) token_of_node_[node] = static_cast<int32_t>(i);
  }
}

AddedTokenMatcher::Match AddedTokenMatcher::longest_at(std::string_view text, size_t at) const {
  Match best{0, 0};
  uint32_t node = 0;
  for (size_t i = at; i < text.size(); ++i) {
    const auto child = child_.find(uint64_t{node} << 8 | static_cast<uint8_t>(text[i]));
    if (child == child_.end()) break;
    node = child->second;
    if (token_of_node_[node] >= 0) {
      best = {i + 1 - at, static_cast<uint32_t>(token_of_node_[node])};
    }
  }
  return best;
}

void AddedTokenMatcher::split(std::string_view text, std::vector<TextPart>& parts) const {
  parts.clear();
  size_t covered = 0;
  size_t spaces_end = 0;  // of the white space after the last match that took it
  for (size_t at = 0; !child_.empty() && at < text.size();) {
    if (starts_[static_cast<uint8_t>(text[at])] == 0) {
      ++at;
      continue;
    }
    const Match match = longest_at(text, at);
    if (match.size == 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[match.token];
    size_t begin = at;
    size_t end = at + match.size;
    at = end;  // a match that single_word discards is not searched again
    if (token.single_word && touches_word(text, begin, end)) continue;
    if (token.lstrip) begin = std::max(spaces_before(text, covered, begin), covered);
    if (token.rstrip) {
      // A match inside that white space ends where it does: no space is looked at twice.
      if (end > spaces_end) spaces_end = spaces_after(text, end);
      end = spaces_end;
    }
    if (covered < begin) parts.push_back({covered, begin, -1});
    parts.push_back({begin, end, token.id});
    covered = end;
  }
  if (covered < text.size()) parts.push_back({covered, text.size(), -1});
}

}  // namespace atom::text
