#include "kv/pool.h"

#include <utility>

#include "base/error.h"

namespace atom::kv {

Pool::Pool(backend::Backend& backend, std::vector<format::KvLayout> layouts, int pages)
    : layouts_(std::move(layouts)), pages_(pages) {
  check(pages > 0, "a KV pool needs pages");
  for (const format::KvLayout& layout : layouts_)
    memory_.push_back(backend.allocate(static_cast<size_t>(layout.page_bytes()) * pages));
}

int64_t Pool::bytes() const {
  int64_t sum = 0;
  for (const format::KvLayout& layout : layouts_) sum += layout.page_bytes() * pages_;
  return sum;
}

}  // namespace atom::kv
