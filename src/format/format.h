// What the bits of a matrix mean: a run-time value with the words of docs/formats.md.
//
//   const Format f = parse_format("int4.g128");   // {.kind = Kind::kInt4, .group = 128}
//   name(f);                                      // "int4.g128"
//   groups(f, 384);                               // 3 scales per row
//
// Formats are listed once, in format/list.h; nothing outside this folder switches on Kind.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace atom::format {

enum class Kind : uint8_t {
  kF32,
  kF16,
  kBF16,
  kInt8,
  kInt4,
  kInt4Progressive,
  kE2M1,
  kMxfp4,
  kNvfp4
};

struct Format {
  Kind kind = Kind::kF32;
  int32_t group = 0;  // four bits: values along K that share a scale; 0: the whole segment (".row")

  bool operator==(const Format&) const = default;
};

inline constexpr Format kF32{Kind::kF32};
inline constexpr Format kF16{Kind::kF16};
inline constexpr Format kBF16{Kind::kBF16};
inline constexpr Format kInt8{Kind::kInt8};
constexpr Format int4(int32_t group) { return {Kind::kInt4, group}; }  // group 0: one scale per row
// Weights only: value = row scale * the group's multiplier * code.
constexpr Format int4_progressive(int32_t group) { return {Kind::kInt4Progressive, group}; }
// FP4: the values of E2M1 times the scale of a group, which is f16, a power of two (E8M0), or E4M3 over a scale of the
// whole segment.
constexpr Format e2m1(int32_t group) { return {Kind::kE2M1, group}; }
inline constexpr Format kMxfp4{Kind::kMxfp4, 32};
inline constexpr Format kNvfp4{Kind::kNvfp4, 16};

// "f32" "f16" "bf16" "int8" "int4.g32" "int4.g64" "int4.g128" "int4.row" "int4.g32.p" "int4.g64.p"
// "int4.g128.p" "e2m1.g32" "e2m1.g64" "e2m1.g128" "mxfp4" "nvfp4". Error: any other word.
Format parse_format(std::string_view word);
std::string name(Format format);

bool is_integer(Format format);        // codes and scales, as opposed to floating-point values
bool is_int4(Format format);           // integers of four bits, whatever scales them
bool is_e2m1(Format format);           // FP4, whatever scales it
bool has_global_scale(Format format);  // nvfp4: one scale more, of the whole segment
bool is_progressive(Format format);    // weights of a row scale and multipliers of the groups
int bits(Format format);               // of one value, scales not counted

// Values per scale when a segment has `size` values (size itself for one scale per row), and the
// number of scales; the last group may be short. 0 groups for floating-point formats.
int group_size(Format format, int size);
int groups(Format format, int size);

// Bytes of one row of `size` values in the checkpoint: int4 packs eight codes into an int32, FP4 two
// into a byte.
int64_t row_bytes(Format format, int size);
// What scales a weight in the checkpoint. Bytes of one scale: f16 for int4 and e2m1, a byte for mxfp4 and
// nvfp4, f32 for int8 and for the rows of progressive int4, 0 for floating point. Scales of a row: one per group, but one in
// all when progressive. Multipliers of a row, u8: one per group when progressive, else 0.
int weight_scale_bytes(Format format);
int weight_scales(Format format, int size);
int weight_multipliers(Format format, int size);

// KV-cache formats: int8 and int4 are "lo + s * q" per token and KV head with f16 lo and s. A kind names both sides;
// kInt8Int4 has K in int8 and V in int4, the others have both alike.
enum class KvKind : uint8_t { kF32, kF16, kInt8, kInt4, kInt8Int4 };
KvKind parse_kv(std::string_view word);  // "f32" "f16" "int8" "int4" "k8v4"; Error: any other word
std::string_view name(KvKind kind);
KvKind kv_side(KvKind kind, int side);  // what side 0, K, or 1, V, is stored in; never kInt8Int4
int kv_bits(KvKind side);               // of a value, not of kInt8Int4
bool is_quantized(KvKind kind);         // either side
bool has_int4_side(KvKind kind);

}  // namespace atom::format
