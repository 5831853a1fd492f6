#include "format/format.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "format/kv_page.h"
#include "format/linear_format.h"
#include "testing/expect_error.h"

namespace atom::format {
namespace {

constexpr Format kAll[] = {kF32,
                           kF16,
                           kBF16,
                           kInt8,
                           int4(32),
                           int4(64),
                           int4(128),
                           int4(0),
                           int4_progressive(32),
                           int4_progressive(64),
                           int4_progressive(128),
                           e2m1(32),
                           e2m1(64),
                           e2m1(128),
                           kMxfp4,
                           kNvfp4};

TEST(Format, NamesRoundTrip) {
  for (const Format format : kAll) EXPECT_EQ(parse_format(name(format)), format);
  EXPECT_EQ(name(int4(128)), "int4.g128");
  EXPECT_EQ(name(int4(0)), "int4.row");
  EXPECT_EQ(name(int4_progressive(64)), "int4.g64.p");
  EXPECT_EQ(name(e2m1(64)), "e2m1.g64");
  EXPECT_EQ(name(kMxfp4), "mxfp4");
  EXPECT_EQ(name(kNvfp4), "nvfp4");
  EXPECT_EQ(name(kBF16), "bf16");
  for (const KvKind kind :
       {KvKind::kF32, KvKind::kF16, KvKind::kInt8, KvKind::kInt4, KvKind::kInt8Int4})
    EXPECT_EQ(parse_kv(name(kind)), kind);
  EXPECT_EQ(name(KvKind::kInt4), "int4");
  EXPECT_EQ(name(KvKind::kInt8Int4), "k8v4");
}

TEST(Format, RefusesOtherWords) {
  for (const char* word : {"", "int4", "int4.", "int4.g", "int4.g16", "int4.g0", "int4.g128 ",
                           "INT8", "f64", "int8.g128", "int4.row.p", "int4.p", "int4.g16.p", "e2m1",
                           "e2m1.g16", "e2m1.row", "mxfp4.g32", "nvfp4.g16", "fp4"})
    testing::expect_error([&] { parse_format(word); },
                          {std::string("'") + word + "'", "int4.g128"});
  for (const char* word : {"", "bf16", "int4.g128", "int2", "F16"})
    testing::expect_error([&] { parse_kv(word); }, {std::string("'") + word + "'", "int8"});
}

TEST(Format, CountsGroups) {
  EXPECT_EQ(groups(int4(128), 384), 3);
  EXPECT_EQ(groups(int4(128), 385), 4);
  EXPECT_EQ(groups(int4(128), 16), 1);
  EXPECT_EQ(groups(int4(0), 385), 1);
  EXPECT_EQ(groups(kInt8, 385), 1);
  EXPECT_EQ(groups(kF16, 385), 0);
  EXPECT_EQ(groups(int4_progressive(128), 385), 4);
  EXPECT_EQ(groups(e2m1(128), 385), 4);
  EXPECT_EQ(groups(kMxfp4, 385), 13);
  EXPECT_EQ(groups(kNvfp4, 385), 25);
  for (const Format format : kAll) EXPECT_EQ(groups(format, 0), 0) << name(format);
  EXPECT_EQ(group_size(int4(32), 100), 32);
  EXPECT_EQ(group_size(int4(0), 100), 100);
  EXPECT_EQ(group_size(kInt8, 100), 100);
  EXPECT_EQ(groups(Segments{{Segment{int4(32), 100}, Segment{kInt8, 16}}}), 5);
}

TEST(Format, CountsWhatScalesAWeight) {
  EXPECT_EQ(weight_scales(int4(128), 385), 4);
  EXPECT_EQ(weight_scales(int4(0), 385), 1);
  EXPECT_EQ(weight_scales(kInt8, 385), 1);
  EXPECT_EQ(weight_scales(kF32, 385), 0);
  EXPECT_EQ(weight_scales(kNvfp4, 385), 25);
  EXPECT_EQ(weight_scales(int4_progressive(128), 385), 1);
  EXPECT_EQ(weight_multipliers(int4_progressive(128), 385), 4);
  for (const Format format : kAll) {
    EXPECT_EQ(weight_scales(format, 0), 0) << name(format);
    EXPECT_EQ(weight_multipliers(format, 0), 0) << name(format);
    EXPECT_EQ(weight_multipliers(format, 385) > 0, is_progressive(format)) << name(format);
  }
}

TEST(Format, CountsBytes) {
  EXPECT_EQ(row_bytes(kF32, 9), 36);
  EXPECT_EQ(row_bytes(kF16, 9), 18);
  EXPECT_EQ(row_bytes(kInt8, 9), 9);
  EXPECT_EQ(row_bytes(int4(32), 8), 4);
  EXPECT_EQ(row_bytes(int4(32), 9), 8);
  EXPECT_EQ(row_bytes(int4(32), 0), 0);
  EXPECT_EQ(row_bytes(kF32, 2147483647), int64_t{4} * 2147483647);
  EXPECT_EQ(weight_scale_bytes(int4(0)), 2);
  EXPECT_EQ(weight_scale_bytes(kInt8), 4);
  EXPECT_EQ(weight_scale_bytes(int4_progressive(32)), 4);
  EXPECT_EQ(row_bytes(int4_progressive(32), 9), 8);
  EXPECT_EQ(bits(int4_progressive(32)), 4);
  EXPECT_TRUE(is_int4(int4_progressive(32)) && is_integer(int4_progressive(32)));
  EXPECT_FALSE(is_int4(kInt8) || is_int4(kF16));
  for (const Format format : {e2m1(32), kMxfp4, kNvfp4}) {
    EXPECT_TRUE(is_e2m1(format) && is_integer(format) && !is_int4(format)) << name(format);
    EXPECT_EQ(bits(format), 4);
    EXPECT_EQ(row_bytes(format, 8), 4);
    EXPECT_EQ(row_bytes(format, 9), 5);
    EXPECT_EQ(has_global_scale(format), format == kNvfp4);
  }
  EXPECT_FALSE(is_e2m1(int4(32)) || is_e2m1(kF32) || has_global_scale(kInt8));
  EXPECT_EQ(weight_scale_bytes(e2m1(32)), 2);
  EXPECT_EQ(weight_scale_bytes(kMxfp4), 1);
  EXPECT_EQ(weight_scale_bytes(kNvfp4), 1);
  EXPECT_EQ(weight_scale_bytes(kBF16), 0);
  EXPECT_EQ(bits(int4(64)), 4);
  EXPECT_EQ(bits(kBF16), 16);
  EXPECT_TRUE(is_integer(kInt8));
  EXPECT_FALSE(is_integer(kF32));
}

// Every byte of a page belongs to exactly one row or parameter, and nothing lies outside.
TEST(KvLayout, TilesThePage) {
  for (const KvKind kind :
       {KvKind::kF32, KvKind::kF16, KvKind::kInt8, KvKind::kInt4, KvKind::kInt8Int4}) {
    const KvLayout layout{.kind = kind, .kv_heads = 3, .head_dim = 18, .tokens = 5};
    std::vector<int> used(static_cast<size_t>(layout.page_bytes()), 0);
    const auto mark = [&](int64_t offset, int64_t bytes) {
      for (int64_t i = 0; i < bytes; ++i) ++used.at(static_cast<size_t>(offset + i));
    };
    for (int side = 0; side < 2; ++side)
      for (int head = 0; head < layout.kv_heads; ++head)
        for (int token = 0; token < layout.tokens; ++token) {
          mark(layout.row_offset(side, head, token), layout.row_bytes(side));
          mark(layout.param_offset(side, head, token), layout.param_bytes(side));
        }
    for (const int count : used) EXPECT_EQ(count, 1) << name(kind);
  }
  const KvLayout int4_page{.kind = KvKind::kInt4, .kv_heads = 8, .head_dim = 128, .tokens = 64};
  EXPECT_EQ(int4_page.page_bytes(), 2 * 8 * 64 * (64 + 4));
}

TEST(KvLayout, SidesMayDiffer) {
  const KvLayout layout{.kind = KvKind::kInt8Int4, .kv_heads = 8, .head_dim = 128, .tokens = 64};
  EXPECT_EQ(layout.row_bytes(0), 128);
  EXPECT_EQ(layout.row_bytes(1), 64);
  EXPECT_EQ(layout.page_bytes(), 8 * 64 * (128 + 4) + 8 * 64 * (64 + 4));
  EXPECT_EQ(layout.row_offset(0, 3, 5), 3 * 64 * 132 + 5 * 128);
  EXPECT_EQ(layout.param_offset(0, 3, 5), 3 * 64 * 132 + 64 * 128 + 5 * 4);
  EXPECT_EQ(layout.row_offset(1, 3, 5), 8 * 64 * 132 + 3 * 64 * 68 + 5 * 64);
  EXPECT_EQ(layout.param_offset(1, 3, 5), 8 * 64 * 132 + 3 * 64 * 68 + 64 * 64 + 5 * 4);
  EXPECT_EQ(layout.of_open_page().page_bytes(), 2 * 8 * 64 * (128 + 4));
}

TEST(KvKind, NamesTheSides) {
  for (const int side : {0, 1})
    for (const KvKind kind : {KvKind::kF32, KvKind::kF16, KvKind::kInt8, KvKind::kInt4})
      EXPECT_EQ(kv_side(kind, side), kind);
  EXPECT_EQ(kv_side(KvKind::kInt8Int4, 0), KvKind::kInt8);
  EXPECT_EQ(kv_side(KvKind::kInt8Int4, 1), KvKind::kInt4);
  EXPECT_THROW(kv_side(KvKind::kInt8Int4, 2), InvariantError);
  EXPECT_THROW(kv_bits(KvKind::kInt8Int4), InvariantError);
  for (const KvKind kind : {KvKind::kInt8, KvKind::kInt4, KvKind::kInt8Int4})
    EXPECT_TRUE(is_quantized(kind)) << name(kind);
  for (const KvKind kind : {KvKind::kF32, KvKind::kF16})
    EXPECT_FALSE(is_quantized(kind)) << name(kind);
  for (const KvKind kind : {KvKind::kInt4, KvKind::kInt8Int4})
    EXPECT_TRUE(has_int4_side(kind)) << name(kind);
  for (const KvKind kind : {KvKind::kF32, KvKind::kF16, KvKind::kInt8})
    EXPECT_FALSE(has_int4_side(kind)) << name(kind);
  for (const char* word : {"v4k8", "k8v8", "K8V4", "int8int4", "k8v4 "})
    testing::expect_error([&] { parse_kv(word); }, {word, "k8v4"});
}

}  // namespace
}  // namespace atom::format
