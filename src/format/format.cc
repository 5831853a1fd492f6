#include "format/format.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "format/list.h"

namespace atom::format {
namespace {

constexpr std::array kFormats = {kF32,
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
constexpr std::array kKvKinds = {KvKind::kF32, KvKind::kF16, KvKind::kInt8, KvKind::kInt4,
                                 KvKind::kInt8Int4};

}  // namespace

std::string name(Format format) {
  const std::string base = visit(format, [](auto f) { return std::string(decltype(f)::kName); });
  if (!is_int4(format) && format.kind != Kind::kE2M1) return base;
  if (format.group == 0) return base + ".row";
  return base + ".g" + std::to_string(format.group) + (is_progressive(format) ? ".p" : "");
}

Format parse_format(std::string_view word) {
  for (const Format format : kFormats)
    if (name(format) == word) return format;
  fail(
      "format '{}' is not one of f32, f16, bf16, int8, int4.g32, int4.g64, int4.g128, int4.row, "
      "int4.g32.p, int4.g64.p, int4.g128.p, e2m1.g32, e2m1.g64, e2m1.g128, mxfp4, nvfp4",
      word);
}

bool is_integer(Format format) {
  return visit(format, [](auto f) { return decltype(f)::kInteger; });
}

bool is_e2m1(Format format) {
  return visit(format, [](auto f) {
    if constexpr (decltype(f)::kInteger)
      return decltype(f)::kE2M1;
    else
      return false;
  });
}

bool is_int4(Format format) { return is_integer(format) && bits(format) == 4 && !is_e2m1(format); }

bool has_global_scale(Format format) {
  return visit(format, [](auto f) {
    if constexpr (decltype(f)::kInteger)
      return decltype(f)::kGlobal;
    else
      return false;
  });
}

bool is_progressive(Format format) {
  return visit(format, [](auto f) {
    if constexpr (decltype(f)::kInteger)
      return decltype(f)::kProgressive;
    else
      return false;
  });
}

int bits(Format format) {
  return visit(format, [](auto f) { return decltype(f)::kBits; });
}

int group_size(Format format, int size) {
  return bits(format) == 4 && format.group != 0 ? format.group : size;
}

int groups(Format format, int size) {
  if (!is_integer(format) || size == 0) return 0;
  const int group = group_size(format, size);
  return (size + group - 1) / group;
}

int64_t row_bytes(Format format, int size) {
  return visit(format, [&](auto f) -> int64_t {
    using F = decltype(f);
    constexpr int kPerWord = static_cast<int>(sizeof(typename F::Storage)) * 8 / F::kBits;
    return (int64_t{size} + kPerWord - 1) / kPerWord *
           static_cast<int64_t>(sizeof(typename F::Storage));
  });
}

int weight_scale_bytes(Format format) {
  return visit(format, [](auto f) {
    if constexpr (decltype(f)::kInteger)
      return decltype(f)::kWeightScaleBytes;
    else
      return 0;
  });
}

int weight_scales(Format format, int size) {
  return is_progressive(format) ? std::min(size, 1) : groups(format, size);
}

int weight_multipliers(Format format, int size) {
  return is_progressive(format) ? groups(format, size) : 0;
}

std::string_view name(KvKind kind) {
  if (kind == KvKind::kInt8Int4) return "k8v4";
  return visit(kind, [](auto f) { return std::string_view(decltype(f)::kName); });
}

KvKind parse_kv(std::string_view word) {
  for (const KvKind kind : kKvKinds)
    if (name(kind) == word) return kind;
  fail("KV-cache format '{}' is not one of f32, f16, int8, int4, k8v4", word);
}

KvKind kv_side(KvKind kind, int side) {
  check(side == 0 || side == 1, "a KV-cache has two sides");
  if (kind != KvKind::kInt8Int4) return kind;
  return side == 0 ? KvKind::kInt8 : KvKind::kInt4;
}

int kv_bits(KvKind side) {
  return visit(side, [](auto f) { return decltype(f)::kBits; });
}

bool is_quantized(KvKind kind) { return kv_bits(kv_side(kind, 0)) < 16; }

bool has_int4_side(KvKind kind) { return kv_side(kind, 1) == KvKind::kInt4; }

}  // namespace atom::format
