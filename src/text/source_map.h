// Which characters of the caller's text each byte of a rewritten text stands for.
//
//   SourceMap map = map_of_characters(text);
//   Trace trace(&map);                     // of a component that writes a new text `out`
//   out += "x", trace.until(out.size(), at);   // the bytes up to here stand for what old byte `at` did
//   trace.finish();                        // `map` is now that of the new text
//
// The rules are those of the package `tokenizers`. Where nobody wants spans the map is null, and a Trace does nothing.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace atom::text {

struct CharacterSpan {
  uint32_t begin = 0;
  uint32_t end = 0;
};

using SourceMap = std::vector<CharacterSpan>;  // by byte of the text

// Of a text that nothing has rewritten yet: valid UTF-8, less than 2^32 bytes.
SourceMap map_of_characters(std::string_view text);

class Trace {
 public:
  explicit Trace(SourceMap* map) : map_(map) {}

  // New bytes, up to a text of `size` bytes. `like` < bytes of the old text.
  void until(size_t size, size_t like) {
    if (map_ != nullptr) fresh_.resize(size, (*map_)[like]);
  }
  // Bytes of the old text as they stand; none is new yet behind those before.
  void keep(size_t begin, size_t end) {
    if (map_ == nullptr) return;
    const auto from = map_->begin();
    fresh_.insert(fresh_.end(), from + static_cast<std::ptrdiff_t>(begin),
                  from + static_cast<std::ptrdiff_t>(end));
  }
  void put(CharacterSpan span, size_t size) {
    if (map_ != nullptr) fresh_.resize(size, span);
  }
  CharacterSpan at(size_t old) const { return map_ == nullptr ? CharacterSpan{} : (*map_)[old]; }
  bool active() const { return map_ != nullptr; }
  void finish() {
    if (map_ != nullptr) *map_ = std::move(fresh_);
  }

 private:
  SourceMap* map_;
  SourceMap fresh_;
};

// A character of a new text: 0 when it replaces the next old one, 1 when it is added behind it, -n when
// it replaces one and n more go.
struct Change {
  uint32_t code_point;
  int change;
};

// The map of the text that `changes` spell.
void trace_changes(std::string_view old_text, const std::vector<Change>& changes, SourceMap& map);

}  // namespace atom::text
