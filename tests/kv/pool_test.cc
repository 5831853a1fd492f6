#include "kv/pool.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <vector>

#include "backend/open.h"
#include "testing/expect_error.h"

namespace atom::kv {
namespace {

using format::KvKind;
using format::KvLayout;

// One layer of every kind: they take different bytes.
std::vector<KvLayout> layouts() {
  std::vector<KvLayout> out;
  for (const KvKind kind :
       {KvKind::kF32, KvKind::kF16, KvKind::kInt8, KvKind::kInt4, KvKind::kInt8Int4})
    out.push_back({.kind = kind, .kv_heads = 2, .head_dim = 16, .tokens = 64});
  return out;
}

TEST(Pool, CountsPagesLayersAndBytes) {
  const auto backend = backend::open_backend("reference", {});
  const Pool pool(*backend, layouts(), 3);
  EXPECT_EQ(pool.pages(), 3);
  EXPECT_EQ(pool.layers(), 5);
  EXPECT_EQ(pool.layout(3).kind, KvKind::kInt4);
  // K and V, 2 heads, 64 positions; 16 values, and 4 bytes of {lo, step} with the integer kinds.
  const int64_t rows = 2 * 2 * 64;
  EXPECT_EQ(pool.layout(0).page_bytes(), rows * 64);
  EXPECT_EQ(pool.layout(1).page_bytes(), rows * 32);
  EXPECT_EQ(pool.layout(2).page_bytes(), rows * (16 + 4));
  EXPECT_EQ(pool.layout(3).page_bytes(), rows * (8 + 4));
  EXPECT_EQ(pool.layout(4).page_bytes(), rows / 2 * (16 + 4 + 8 + 4));
  EXPECT_EQ(pool.bytes(), 3 * rows * (64 + 32 + 20 + 12 + 16));
}

TEST(Pool, EveryLayerHasItsOwnMemory) {
  const auto backend = backend::open_backend("reference", {});
  const Pool pool(*backend, layouts(), 2);
  const auto bytes = [&](int layer) {
    return static_cast<size_t>(pool.layout(layer).page_bytes() * pool.pages());
  };
  // Fills every layer to its last byte, then looks whether a later one wrote into it.
  for (int layer = 0; layer < pool.layers(); ++layer) {
    const std::vector<uint8_t> fill(bytes(layer), static_cast<uint8_t>(layer + 1));
    backend->upload(pool.data(layer), fill.data(), fill.size());
  }
  for (int layer = 0; layer < pool.layers(); ++layer) {
    std::vector<uint8_t> found(bytes(layer));
    backend->download(found.data(), pool.data(layer), found.size());
    EXPECT_EQ(found, std::vector<uint8_t>(bytes(layer), static_cast<uint8_t>(layer + 1))) << layer;
  }
}

TEST(Pool, NeedsPages) {
  const auto backend = backend::open_backend("reference", {});
  EXPECT_THROW(Pool(*backend, layouts(), 0), InvariantError);
}

TEST(Pool, PagesForRoundsUp) {
  const KvLayout layout{.kv_heads = 1, .head_dim = 2, .tokens = 64};
  EXPECT_EQ(pages_for(0, layout), 0);
  EXPECT_EQ(pages_for(1, layout), 1);
  EXPECT_EQ(pages_for(64, layout), 1);
  EXPECT_EQ(pages_for(65, layout), 2);
  EXPECT_EQ(pages_for(128, layout), 2);
}

}  // namespace
}  // namespace atom::kv
