// Who holds which page of a pool, and which full pages are kept for sequences that begin with the same tokens. Host only:
// it sees numbers of pages and token ids, no tensor.
//
// A page is in one of three states:
//
//   free      nobody holds it, its contents mean nothing
//   held      by one sequence or several (a count); full pages of a shared beginning are held by all that read them
//   cached    nobody holds it, and it is still found by its tokens; the least recently used one is taken when no page is free
//
// A page is found by all tokens from the beginning of the sequence to its end, and by the salt: its own tokens and the
// identity of the page before it are compared, not only their hash. The hash is keyed, so that nobody can choose tokens
// that collide.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace atom::kv {

// Of the contents of a full page; unique among all that an allocator ever had. 0: no page, the beginning of a sequence.
using ContentId = uint64_t;

// Hashes of the pages of a sequence, as far as they were looked for; each goes for the contents before that page.
struct PageHash {
  ContentId before = 0;
  uint64_t hash = 0;
};

class PageAllocator {
 public:
  struct Options {
    int pages = 0;
    int page_tokens = 64;
    bool prefix_cache = true;
    uint64_t key = 0;  // of the hash: secret, drawn anew by each process
    // Instead of the keyed hash; tests make collisions with it.
    std::function<uint64_t(std::span<const int32_t> tokens, ContentId before)> hash = {};
  };
  explicit PageAllocator(const Options& options);
  PageAllocator(const PageAllocator&) = delete;
  PageAllocator& operator=(const PageAllocator&) = delete;

  int pages() const { return options_.pages; }
  int page_tokens() const { return options_.page_tokens; }
  int held() const { return options_.pages - available(); }
  int cached() const { return static_cast<int>(unused_.size()); }
  int available() const { return static_cast<int>(free_.size() + unused_.size()); }

  // A page that only the caller holds. None: every page is held.
  std::optional<int32_t> take();

  struct Prefix {
    std::vector<int32_t> pages;
    ContentId last = 0;  // of the last of them
  };
  // The pages of the longest known beginning of `ids`, held by the caller too. They end before the last id, whose row has
  // to be computed in any case. `hashes`: of earlier calls for these ids, and for later ones; may be null.
  Prefix take_prefix(std::span<const int32_t> ids, std::string_view salt,
                     std::vector<PageHash>* hashes = nullptr);

  // `page`, held by the caller, is full: `tokens` are its own, `before` the contents of the page in front of it. It can be found
  // from now on, unless another page with the same contents can be found already. Gives the contents of the one that is found.
  ContentId publish(int32_t page, std::span<const int32_t> tokens, ContentId before,
                    std::string_view salt);

  // Held by the caller, and found by nobody from now on: what is in them is not to be trusted.
  void withdraw(std::span<const int32_t> pages);
  bool is_findable(int32_t page) const { return pages_.at(static_cast<size_t>(page)).content != 0; }
  bool has_prefix_cache() const { return options_.prefix_cache; }

  // The caller holds them no longer. They are a sequence's, in order: the last is forgotten first.
  void release(std::span<const int32_t> pages);

  // What is wrong, in one sentence, when `holders` are all page tables in use; empty: nothing.
  std::string problem(std::span<const std::span<const int32_t>> holders) const;

 private:
  struct Page {
    int holders = 0;
    ContentId content = 0;   // 0: cannot be found
    bool withdrawn = false;  // full, and shared perhaps
    ContentId before = 0;
    uint64_t hash = 0;
    std::vector<int32_t> tokens;
    std::string salt;
    std::list<int32_t>::iterator place;  // in unused_, when it is cached
  };

  uint64_t hash_of(std::span<const int32_t> tokens, ContentId before, std::string_view salt) const;
  // The page with these contents; -1: none.
  int32_t find(uint64_t hash, std::span<const int32_t> tokens, ContentId before,
               std::string_view salt) const;
  void hold(int32_t page);
  void forget(Page& page);

  Options options_;
  std::vector<Page> pages_;
  std::vector<int32_t> free_;
  std::list<int32_t> unused_;  // cached ones, the least recently used first
  std::unordered_map<uint64_t, int32_t> known_;
  ContentId next_content_ = 1;
};

}  // namespace atom::kv
