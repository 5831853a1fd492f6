// Which bytes of a piece its ids stand for: see BpeModel::encode.
#include <algorithm>

#include "text/bpe_model.h"
#include "text/unicode.h"

namespace atom::text {

// Bytes behind each unknown token, in the order in which encode_characters puts them.
std::vector<size_t> BpeModel::unknown_sizes(std::string_view piece) const {
  std::vector<size_t> sizes;
  bool goes_on = false;  // the next unknown character belongs to the last token
  for (size_t at = 0; unknown_ >= 0 && at < piece.size();) {
    const CodePoint c = decode_utf8(piece, at);
    const std::string_view bytes = piece.substr(at, c.size);
    at += c.size;
    if (characters_.find(c.value) >= 0) {
      goes_on = false;
    } else if (!byte_fallback_ || !has_bytes(bytes)) {
      if (goes_on && fuse_unknown_) {
        sizes.back() += c.size;
      } else {
        sizes.push_back(c.size);
      }
      goes_on = true;
    }
  }
  return sizes;
}

// As the package counts: each id is as long as its token and follows the one before, also where a
// character in between has become nothing.
void BpeModel::add_spans(std::string_view piece, std::span<const int32_t> ids,
                         std::vector<Span>& spans) const {
  const std::vector<size_t> unknown = unknown_sizes(piece);
  size_t unknown_seen = 0;
  size_t at = 0;
  for (const int32_t id : ids) {
    const std::string_view token = vocabulary_.token(id);
    const bool is_byte =
        byte_fallback_ && token.size() == 6 && token.starts_with("<0x") && token != piece;
    size_t size = is_byte ? 1 : token.size();
    if (id == unknown_ && unknown_seen < unknown.size()) size = unknown[unknown_seen++];
    const size_t end = std::min(at + size, piece.size());
    spans.push_back({at, end});
    at = end;
  }
}

}  // namespace atom::text
