#include "kv/pool.h"

#include <utility>

#include "base/error.h"

namespace atom::kv {

Pool::Pool(backend::Backend& backend, std::vector<format::KvLayout> layouts, int pages,
           int sequences)
    : layouts_(std::move(layouts)), pages_(pages), sequences_(sequences) {
  check(pages > 0, "a KV pool needs pages");
  for (const format::KvLayout& layout : layouts_) {
    memory_.push_back(backend.allocate(static_cast<size_t>(layout.page_bytes()) * pages));
    open_.emplace_back();
    if (layout.open_page)
      open_.back() =
          backend.allocate(static_cast<size_t>(layout.of_open_page().page_bytes()) * sequences);
  }
}

int64_t Pool::bytes() const {
  int64_t sum = 0;
  for (const format::KvLayout& layout : layouts_) {
    sum += layout.page_bytes() * pages_;
    if (layout.open_page) sum += layout.of_open_page().page_bytes() * sequences_;
  }
  return sum;
}

}  // namespace atom::kv
