#include "text/source_map.h"

#include "text/unicode.h"

namespace atom::text {
namespace {

size_t utf8_size(uint32_t c) { return c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4; }

}  // namespace

SourceMap map_of_characters(std::string_view text) {
  SourceMap map;
  map.reserve(text.size());
  uint32_t index = 0;
  for (size_t at = 0; at < text.size(); ++index) {
    const uint32_t size = decode_utf8(text, at).size;
    map.resize(map.size() + size, {index, index + 1});
    at += size;
  }
  return map;
}

void trace_changes(std::string_view old_text, const std::vector<Change>& changes, SourceMap& map) {
  SourceMap fresh;
  fresh.reserve(map.size());
  size_t at = 0;  // in the old text
  const auto skip = [&] {
    if (at < old_text.size()) at += decode_utf8(old_text, at).size;
  };
  for (const Change& change : changes) {
    CharacterSpan span;
    if (change.change > 0) {
      if (at > 0) span = map[at - 1];
    } else if (!map.empty()) {
      span = map[std::min(at, map.size() - 1)];
    }
    fresh.resize(fresh.size() + utf8_size(change.code_point), span);
    if (change.change > 0) continue;
    for (int i = change.change; i <= 0; ++i) skip();
  }
  map = std::move(fresh);
}

}  // namespace atom::text
