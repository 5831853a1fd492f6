#include "kv/page_allocator.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/sha256.h"

namespace atom::kv {

PageAllocator::PageAllocator(const Options& options)
    : options_(options), pages_(static_cast<size_t>(options.pages)) {
  check(options.pages > 0 && options.page_tokens > 0, "an allocator has pages with tokens");
  for (int32_t page = options.pages - 1; page >= 0; --page) free_.push_back(page);
}

uint64_t PageAllocator::hash_of(std::span<const int32_t> tokens, ContentId before,
                                std::string_view salt) const {
  if (options_.hash) return options_.hash(tokens, before);
  Sha256 hash;
  const uint64_t head[] = {options_.key, before, tokens.size()};
  hash.update(std::as_bytes(std::span(head)));
  hash.update(std::as_bytes(tokens));
  hash.update(std::as_bytes(std::span(salt)));
  return std::stoull(hash.finish().substr(0, 16), nullptr, 16);
}

int32_t PageAllocator::find(uint64_t hash, std::span<const int32_t> tokens, ContentId before,
                            std::string_view salt) const {
  const auto known = known_.find(hash);
  if (known == known_.end()) return -1;
  const Page& page = pages_[static_cast<size_t>(known->second)];
  const bool same =
      page.before == before && page.salt == salt &&
      std::equal(page.tokens.begin(), page.tokens.end(), tokens.begin(), tokens.end());
  return same ? known->second : -1;
}

void PageAllocator::hold(int32_t index) {
  Page& page = pages_[static_cast<size_t>(index)];
  if (page.holders == 0) unused_.erase(page.place);
  ++page.holders;
}

void PageAllocator::forget(Page& page) {
  known_.erase(page.hash);
  page.content = 0;
  page.tokens.clear();
  page.salt.clear();
}

std::optional<int32_t> PageAllocator::take() {
  if (free_.empty()) {
    if (unused_.empty()) return std::nullopt;
    const int32_t oldest = unused_.front();
    unused_.pop_front();
    forget(pages_[static_cast<size_t>(oldest)]);
    free_.push_back(oldest);
  }
  const int32_t index = free_.back();
  free_.pop_back();
  pages_[static_cast<size_t>(index)].holders = 1;
  pages_[static_cast<size_t>(index)].withdrawn = false;
  return index;
}

PageAllocator::Prefix PageAllocator::take_prefix(std::span<const int32_t> ids,
                                                 std::string_view salt,
                                                 std::vector<PageHash>* hashes) {
  Prefix prefix;
  std::vector<PageHash> own_hashes;
  if (hashes == nullptr) hashes = &own_hashes;
  if (!options_.prefix_cache) return prefix;
  const auto tokens = static_cast<size_t>(options_.page_tokens);
  for (size_t begin = 0; begin + tokens < ids.size(); begin += tokens) {
    const std::span<const int32_t> own = ids.subspan(begin, tokens);
    const size_t at = begin / tokens;
    if (at == hashes->size() || (*hashes)[at].before != prefix.last) {
      hashes->resize(at);
      hashes->push_back({prefix.last, hash_of(own, prefix.last, salt)});
    }
    const int32_t page = find((*hashes)[at].hash, own, prefix.last, salt);
    if (page < 0) break;
    hold(page);
    prefix.pages.push_back(page);
    prefix.last = pages_[static_cast<size_t>(page)].content;
  }
  return prefix;
}

ContentId PageAllocator::publish(int32_t index, std::span<const int32_t> tokens, ContentId before,
                                 std::string_view salt) {
  check(tokens.size() == static_cast<size_t>(options_.page_tokens), "a published page is full");
  Page& page = pages_[static_cast<size_t>(index)];
  check(page.holders > 0 && page.content == 0, "a page is published once, by a holder");
  if (!options_.prefix_cache) return 0;
  const uint64_t hash = hash_of(tokens, before, salt);
  const int32_t same = find(hash, tokens, before, salt);
  if (same >= 0) return pages_[static_cast<size_t>(same)].content;
  const ContentId content = next_content_++;
  if (!known_.emplace(hash, index).second) return content;  // a collision: the other one stays
  page.content = content;
  page.before = before;
  page.hash = hash;
  page.tokens.assign(tokens.begin(), tokens.end());
  page.salt = salt;
  return content;
}

void PageAllocator::withdraw(std::span<const int32_t> pages) {
  for (const int32_t index : pages) {
    Page& page = pages_.at(static_cast<size_t>(index));
    check(page.holders > 0, "a withdrawn page is held");
    if (page.content == 0) continue;
    forget(page);
    page.withdrawn = true;
  }
}

void PageAllocator::release(std::span<const int32_t> pages) {
  for (size_t i = pages.size(); i-- > 0;) {
    Page& page = pages_.at(static_cast<size_t>(pages[i]));
    check(page.holders > 0, "a released page is held");
    if (--page.holders > 0) continue;
    if (page.content == 0)
      free_.push_back(pages[i]);
    else
      page.place = unused_.insert(unused_.end(), pages[i]);
  }
}

std::string PageAllocator::problem(std::span<const std::span<const int32_t>> holders) const {
  std::vector<int> counts(pages_.size(), 0);
  for (const std::span<const int32_t> table : holders)
    for (const int32_t page : table) {
      if (page < 0 || page >= options_.pages) return fmt::format("page {} does not exist", page);
      ++counts[static_cast<size_t>(page)];
    }
  std::vector<int> places(pages_.size(), 0);
  for (const int32_t page : free_) ++places[static_cast<size_t>(page)];
  for (const int32_t page : unused_) ++places[static_cast<size_t>(page)];
  for (size_t i = 0; i < pages_.size(); ++i) {
    const Page& page = pages_[i];
    if (page.holders != counts[i])
      return fmt::format("page {} is in {} page tables and counts {} holders", i, counts[i],
                         page.holders);
    if (places[i] != (page.holders == 0 ? 1 : 0))
      return fmt::format("page {} has {} holders and is {} times among those without", i,
                         page.holders, places[i]);
    const auto known = known_.find(page.hash);
    const bool found = known != known_.end() && known->second == static_cast<int32_t>(i);
    if (page.content != 0 && !found) return fmt::format("page {} is full and cannot be found", i);
    if (page.content == 0 && found) return fmt::format("page {} is found and has no contents", i);
    if (page.holders > 1 && page.content == 0 && !page.withdrawn)
      return fmt::format("page {} is shared and not full", i);
  }
  return "";
}

}  // namespace atom::kv
