#include "text/charsmap.h"

#include <array>
#include <cstring>

#include "base/error.h"
#include "text/unicode.h"

namespace atom::text {
namespace {

constexpr size_t kMaxRules = 32;  // that begin at one place; the library looks at no more

bool ends_key(uint32_t unit) { return (unit >> 8 & 1) != 0; }
uint32_t label(uint32_t unit) { return unit & (uint32_t{1} << 31 | 0xFF); }
size_t offset(uint32_t unit) { return size_t{unit >> 10} << ((unit & 1U << 9) >> 6); }
size_t position(uint32_t unit) { return unit & 0x7FFFFFFF; }

uint32_t read_u32(std::string_view bytes, size_t at) {
  const auto byte = [&](size_t i) { return uint32_t{static_cast<uint8_t>(bytes[at + i])}; };
  return byte(0) | byte(1) << 8 | byte(2) << 16 | byte(3) << 24;
}

}  // namespace

Charsmap Charsmap::from_bytes(std::string_view bytes, std::string_view source) {
  Charsmap map;
  if (bytes.empty()) return map;
  if (bytes.size() < 4) {
    fail("{}: a precompiled_charsmap must have at least 4 bytes and has {}", source, bytes.size());
  }
  const size_t trie_bytes = read_u32(bytes, 0);
  if (trie_bytes == 0 || trie_bytes % 4 != 0 || trie_bytes > bytes.size() - 4) {
    fail("{}: the trie of a precompiled_charsmap of {} bytes cannot have {} bytes", source,
         bytes.size(), trie_bytes);
  }
  for (size_t at = 4; at < 4 + trie_bytes; at += 4) map.units_.push_back(read_u32(bytes, at));
  map.replacements_ = bytes.substr(4 + trie_bytes);
  if (!is_valid_utf8(map.replacements_)) {
    fail("{}: the replacements of the precompiled_charsmap are not UTF-8", source);
  }
  for (uint32_t byte = 1; byte < 256; ++byte) {
    const size_t at = offset(map.units_[0]) ^ byte;
    map.starts_[byte] = at < map.units_.size() && label(map.units_[at]) == byte;
  }
  return map;
}

// visit(end, position of the replacement) for each rule, shortest first, until it returns false.
template <typename Visit>
void Charsmap::visit_rules(std::string_view text, size_t at, Visit&& visit) const {
  if (units_.empty()) return;
  size_t node = offset(units_[0]);
  for (; at < text.size(); ++at) {
    const uint32_t byte = static_cast<uint8_t>(text[at]);
    node ^= byte;
    if (byte == 0 || node >= units_.size() || label(units_[node]) != byte) return;
    const uint32_t unit = units_[node];
    node ^= offset(unit);
    if (!ends_key(unit)) continue;
    if (node >= units_.size() || !visit(at + 1, position(units_[node]))) return;
  }
}

std::string_view Charsmap::replacement_at(size_t position) const {
  if (position >= replacements_.size()) return {};
  // A position inside a character would hand out half of it.
  if ((static_cast<uint8_t>(replacements_[position]) & 0xC0) == 0x80) return {};
  return {replacements_.data() + position};
}

Charsmap::Rule Charsmap::longest(std::string_view text, size_t at) const {
  Rule rule;
  size_t where = 0;
  size_t seen = 0;
  visit_rules(text, at, [&](size_t end, size_t position) {
    rule.size = end - at;
    where = position;
    return ++seen < kMaxRules;
  });
  // A rule that ends inside a character is none.
  const size_t end = at + rule.size;
  if (end < text.size() && (static_cast<uint8_t>(text[end]) & 0xC0) == 0x80) return {};
  if (rule.size > 0) rule.replacement = replacement_at(where);
  return rule;
}

Charsmap::Rule Charsmap::shortest(std::string_view text) const {
  Rule rule;
  visit_rules(text, 0, [&](size_t end, size_t position) {
    rule = {end, replacement_at(position)};
    return false;
  });
  return rule;
}

std::string decode_base64(std::string_view text, std::string_view source) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::array<int8_t, 256> value{};
  value.fill(-1);
  for (size_t i = 0; i < kDigits.size(); ++i) {
    value[static_cast<uint8_t>(kDigits[i])] = static_cast<int8_t>(i);
  }
  if (text.size() % 4 != 0) {
    fail("{}: base64 text must have a length that is a multiple of 4, and has {}", source,
         text.size());
  }
  size_t digits = text.size();
  while (digits > 0 && text.size() - digits < 2 && text[digits - 1] == '=') --digits;
  std::string out;
  out.reserve(digits / 4 * 3 + 3);
  uint32_t bits = 0;
  for (size_t i = 0; i < digits; ++i) {
    const int digit = value[static_cast<uint8_t>(text[i])];
    if (digit < 0) {
      fail("{}: base64 text has a byte {} at {}, which is no digit", source,
           static_cast<int>(static_cast<uint8_t>(text[i])), i);
    }
    bits = bits << 6 | static_cast<uint32_t>(digit);
    const size_t have = (i + 1) * 6 % 8;  // bits that wait for a byte
    if (have < 6) out.push_back(static_cast<char>(bits >> have));
  }
  return out;
}

}  // namespace atom::text
