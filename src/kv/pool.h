// Page memory of the KV-cache: for each layer one array of equal pages (format/kv_page.h). Page p
// of a sequence is the same index in every layer, so one page table serves all layers.
#pragma once

#include <vector>

#include "backend/backend.h"
#include "format/kv_page.h"

namespace atom::kv {

class Pool {
 public:
  // One layout per layer; `pages` pages each, and an open page for each of `sequences` where the layout has them.
  Pool(backend::Backend& backend, std::vector<format::KvLayout> layouts, int pages,
       int sequences = 1);

  int pages() const { return pages_; }
  int sequences() const { return sequences_; }
  int layers() const { return static_cast<int>(layouts_.size()); }
  const format::KvLayout& layout(int layer) const { return layouts_[layer]; }
  void* data(int layer) const { return memory_[layer].data(); }
  void* open_pages(int layer) const { return open_[layer].data(); }  // null: none
  int64_t bytes() const;

 private:
  std::vector<format::KvLayout> layouts_;
  std::vector<backend::Buffer> memory_, open_;
  int pages_ = 0, sequences_ = 1;
};

// Pages that `tokens` positions take.
inline int pages_for(int tokens, const format::KvLayout& layout) {
  return (tokens + layout.tokens - 1) / layout.tokens;
}

}  // namespace atom::kv
