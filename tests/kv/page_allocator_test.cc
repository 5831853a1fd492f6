#include "kv/page_allocator.h"

#include <gtest/gtest.h>

#include <map>
#include <utility>

#include "base/error.h"
#include "testing/random_data.h"

namespace atom::kv {
namespace {

constexpr int kTokens = 4;

std::vector<int32_t> ids_of(int count, int first = 0) {
  std::vector<int32_t> ids(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) ids[static_cast<size_t>(i)] = first + i;
  return ids;
}

// A sequence of `ids` as an engine would hold it: what is found, then pages of its own, the full ones published.
std::vector<int32_t> compute(PageAllocator& allocator, std::span<const int32_t> ids,
                             std::string_view salt = "") {
  PageAllocator::Prefix prefix = allocator.take_prefix(ids, salt);
  ContentId last = prefix.last;
  for (size_t begin = prefix.pages.size() * kTokens; begin < ids.size(); begin += kTokens) {
    prefix.pages.push_back(allocator.take().value());
    if (begin + kTokens <= ids.size())
      last = allocator.publish(prefix.pages.back(), ids.subspan(begin, kTokens), last, salt);
  }
  return prefix.pages;
}

std::string problem(const PageAllocator& allocator,
                    const std::vector<std::vector<int32_t>>& tables) {
  const std::vector<std::span<const int32_t>> spans(tables.begin(), tables.end());
  return allocator.problem(spans);
}

TEST(PageAllocator, SharesTheFullPagesOfACommonBeginning) {
  PageAllocator allocator({.pages = 8, .page_tokens = kTokens});
  std::vector<int32_t> ids = ids_of(10);
  const std::vector<int32_t> first = compute(allocator, ids);
  ids[9] = 77;
  const std::vector<int32_t> second = compute(allocator, ids);
  ASSERT_EQ(first.size(), 3u);
  EXPECT_EQ(second[0], first[0]);
  EXPECT_EQ(second[1], first[1]);
  EXPECT_NE(second[2], first[2]);
  EXPECT_EQ(allocator.held(), 4);
  EXPECT_EQ(problem(allocator, {first, second}), "");
  EXPECT_EQ(problem(allocator, {first}), "page 0 is in 1 page tables and counts 2 holders");
}

TEST(PageAllocator, FindsPagesThatNobodyHoldsAnyMore) {
  PageAllocator allocator({.pages = 8, .page_tokens = kTokens});
  const std::vector<int32_t> ids = ids_of(9);
  const std::vector<int32_t> first = compute(allocator, ids);
  allocator.release(first);
  EXPECT_EQ(allocator.held(), 0);
  EXPECT_EQ(allocator.cached(), 2);  // the third was not full
  const PageAllocator::Prefix again = allocator.take_prefix(ids, "");
  EXPECT_EQ(again.pages, std::vector<int32_t>(first.begin(), first.begin() + 2));
  EXPECT_EQ(allocator.cached(), 0);
}

// The last id has to be computed, though its page is known.
TEST(PageAllocator, LeavesTheLastIdToCompute) {
  PageAllocator allocator({.pages = 8, .page_tokens = kTokens});
  allocator.release(compute(allocator, ids_of(8)));
  EXPECT_EQ(allocator.cached(), 2);
  EXPECT_EQ(allocator.take_prefix(ids_of(8), "").pages.size(), 1u);
  EXPECT_EQ(allocator.take_prefix(ids_of(9), "").pages.size(), 2u);
}

TEST(PageAllocator, TellsBeginningsAndSaltsApart) {
  PageAllocator allocator({.pages = 16, .page_tokens = kTokens});
  allocator.release(compute(allocator, ids_of(12)));
  std::vector<int32_t> other = ids_of(12);
  other[0] = 99;  // the second page has the same tokens, behind another first
  EXPECT_TRUE(allocator.take_prefix(other, "").pages.empty());
  EXPECT_TRUE(allocator.take_prefix(ids_of(12), "pepper").pages.empty());
  EXPECT_EQ(allocator.take_prefix(ids_of(12), "").pages.size(), 2u);
}

TEST(PageAllocator, ForgetsTheEndsOfTheLeastRecentlyUsedFirst) {
  PageAllocator allocator({.pages = 6, .page_tokens = kTokens});
  const std::vector<int32_t> old_ids = ids_of(12), new_ids = ids_of(12, 100);
  allocator.release(compute(allocator, old_ids));
  allocator.release(compute(allocator, new_ids));
  ASSERT_EQ(allocator.cached(), 6);
  const int32_t taken = allocator.take().value();
  const auto known = [&](std::vector<int32_t> ids) {
    ids.push_back(7);
    const PageAllocator::Prefix prefix = allocator.take_prefix(ids, "");
    allocator.release(prefix.pages);
    return prefix.pages.size();
  };
  EXPECT_EQ(known(old_ids), 2u);
  EXPECT_EQ(known(new_ids), 3u);
  EXPECT_EQ(problem(allocator, {{taken}}), "");
}

TEST(PageAllocator, GivesNothingWhenAllAreHeld) {
  PageAllocator allocator({.pages = 2, .page_tokens = kTokens});
  EXPECT_TRUE(allocator.take().has_value());
  EXPECT_TRUE(allocator.take().has_value());
  EXPECT_FALSE(allocator.take().has_value());
}

TEST(PageAllocator, KeepsOneOfTwoEqualPages) {
  PageAllocator allocator({.pages = 4, .page_tokens = kTokens});
  const std::vector<int32_t> tokens = ids_of(kTokens);
  const std::vector<int32_t> a = {allocator.take().value()}, b = {allocator.take().value()};
  const ContentId content = allocator.publish(a[0], tokens, 0, "");
  EXPECT_EQ(allocator.publish(b[0], tokens, 0, ""), content);
  allocator.release(a);
  allocator.release(b);
  EXPECT_EQ(allocator.cached(), 1);
  EXPECT_EQ(problem(allocator, {}), "");
}

TEST(PageAllocator, WithoutACacheNothingIsFound) {
  PageAllocator allocator({.pages = 4, .page_tokens = kTokens, .prefix_cache = false});
  allocator.release(compute(allocator, ids_of(8)));
  EXPECT_EQ(allocator.cached(), 0);
  EXPECT_TRUE(allocator.take_prefix(ids_of(9), "").pages.empty());
}

TEST(PageAllocator, WithdrawnPagesAreNotFound) {
  PageAllocator allocator({.pages = 8, .page_tokens = kTokens});
  const std::vector<int32_t> ids = ids_of(10);
  const std::vector<int32_t> first = compute(allocator, ids);
  const PageAllocator::Prefix second = allocator.take_prefix(ids, "");
  ASSERT_EQ(second.pages.size(), 2u);
  allocator.withdraw(first);
  EXPECT_TRUE(allocator.take_prefix(ids, "").pages.empty());
  EXPECT_EQ(problem(allocator, {first, second.pages}), "");
  allocator.release(first);
  EXPECT_EQ(problem(allocator, {second.pages}), "");
  allocator.release(second.pages);
  EXPECT_EQ(allocator.cached(), 0);
  const std::vector<int32_t> again = compute(allocator, ids);
  EXPECT_EQ(allocator.take_prefix(ids, "").pages.size(), 2u);
}

// What was hashed once is not hashed again, unless the contents before it changed.
TEST(PageAllocator, RemembersHashes) {
  int hashed = 0;
  PageAllocator allocator({.pages = 8,
                           .page_tokens = kTokens,
                           .hash = [&](std::span<const int32_t> tokens, ContentId before) {
                             ++hashed;
                             return static_cast<uint64_t>(tokens[0]) * 31 + before;
                           }});
  const std::vector<int32_t> ids = ids_of(13);
  std::vector<PageHash> hashes;
  EXPECT_TRUE(allocator.take_prefix(ids, "", &hashes).pages.empty());
  EXPECT_EQ(std::exchange(hashed, 0), 1);
  EXPECT_TRUE(allocator.take_prefix(ids, "", &hashes).pages.empty());
  EXPECT_EQ(std::exchange(hashed, 0), 0);
  allocator.release(compute(allocator, ids));
  hashed = 0;
  for (const int expected : {2, 0}) {
    const PageAllocator::Prefix prefix = allocator.take_prefix(ids, "", &hashes);
    EXPECT_EQ(prefix.pages.size(), 3u);
    EXPECT_EQ(std::exchange(hashed, 0), expected);
    allocator.release(prefix.pages);
  }
}

class Finding : public ::testing::TestWithParam<int> {};

// Random sequences over few tokens, so that beginnings recur: whatever is found has the tokens that were written there, also
// when hashes collide.
TEST_P(Finding, FindsOnlyWhatWasWritten) {
  PageAllocator::Options options = {.pages = 24, .page_tokens = kTokens};
  if (GetParam() > 0)
    options.hash = [](std::span<const int32_t> tokens, ContentId before) {
      uint64_t hash = before;
      for (const int32_t token : tokens) hash = hash * 3 + static_cast<uint64_t>(token);
      return hash % static_cast<uint64_t>(GetParam());
    };
  PageAllocator allocator(options);
  Random random(5);
  std::map<int32_t, std::vector<int32_t>> written;  // of a page: all tokens from the beginning
  std::vector<std::vector<int32_t>> tables;
  int found = 0;
  for (int turn = 0; turn < 3000; ++turn) {
    if (!tables.empty() && (tables.size() == 5 || random.below(2) == 0)) {
      const auto which = static_cast<size_t>(random.below(tables.size()));
      allocator.release(tables[which]);
      tables.erase(tables.begin() + static_cast<std::ptrdiff_t>(which));
    } else {
      std::vector<int32_t> ids(1 + random.below(4 * kTokens));
      for (int32_t& id : ids) id = static_cast<int32_t>(random.below(8) == 0);
      const std::string salt = random.below(4) == 0 ? "salt" : "";
      const PageAllocator::Prefix prefix = allocator.take_prefix(ids, salt);
      for (size_t i = 0; i < prefix.pages.size(); ++i) {
        std::vector<int32_t> expected(ids.begin(), ids.begin() + (i + 1) * kTokens);
        expected.push_back(salt.empty() ? 0 : 1);
        EXPECT_EQ(written[prefix.pages[i]], expected);
        ++found;
      }
      allocator.release(prefix.pages);
      tables.push_back(compute(allocator, ids, salt));
      for (size_t i = 0; (i + 1) * kTokens <= ids.size(); ++i) {
        std::vector<int32_t> all(ids.begin(), ids.begin() + (i + 1) * kTokens);
        all.push_back(salt.empty() ? 0 : 1);
        written[tables.back()[i]] = all;
      }
    }
    ASSERT_EQ(problem(allocator, tables), "") << turn;
  }
  EXPECT_GT(found, GetParam() == 0 ? 300 : 30);
}

INSTANTIATE_TEST_SUITE_P(HashesModulo, Finding, ::testing::Values(0, 1, 7),
                         ::testing::PrintToStringParamName());

}  // namespace
}  // namespace atom::kv
