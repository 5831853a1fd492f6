// THE list of formats. visit() turns the run-time tag into a type once, so that code outside this
// folder is written per property of a format and never per tag.
//
//   visit(format, [&](auto f) { using F = decltype(f); if constexpr (F::kInteger) ... });
#pragma once

#include <cstdint>
#include <utility>

#include "base/error.h"
#include "format/float16.h"
#include "format/float8.h"
#include "format/format.h"

namespace atom::format {

// Floating-point elements: Storage is the type in memory, widen() is exact.
struct F32 {
  using Storage = float;
  static constexpr Kind kTag = Kind::kF32;
  static constexpr const char* kName = "f32";
  static constexpr bool kInteger = false;
  static constexpr int kBits = 32;
  static float widen(Storage v) { return v; }
  static Storage narrow(float v) { return v; }
};
struct F16 {
  using Storage = uint16_t;
  static constexpr Kind kTag = Kind::kF16;
  static constexpr const char* kName = "f16";
  static constexpr bool kInteger = false;
  static constexpr int kBits = 16;
  static float widen(Storage v) { return f16_to_f32(v); }
  static Storage narrow(float v) { return f32_to_f16(v); }
};
struct BF16 {
  using Storage = uint16_t;
  static constexpr Kind kTag = Kind::kBF16;
  static constexpr const char* kName = "bf16";
  static constexpr bool kInteger = false;
  static constexpr int kBits = 16;
  static float widen(Storage v) { return bf16_to_f32(v); }
  static Storage narrow(float v) { return f32_to_bf16(v); }
};

// Elements of integer codes, symmetric: value = step * code, where step() of the stored scale is the
// scale itself. kDivisor maps absmax to the step.
struct Int8 {
  using Storage = int8_t;
  static constexpr Kind kTag = Kind::kInt8;
  static constexpr const char* kName = "int8";
  static constexpr bool kInteger = true;
  static constexpr int kBits = 8;
  static constexpr int kLow = -127;
  static constexpr int kHigh = 127;
  static constexpr float kDivisor = 127.0f;
  static constexpr bool kProgressive = false;
  static constexpr bool kE2M1 = false;
  static constexpr bool kGlobal = false;
  static constexpr int kWeightScaleBytes = 4;  // f32, one per row
  using Scale = float;
  static float step(Scale scale) { return scale; }
};
struct Int4 {
  using Storage = uint32_t;  // eight codes + 8, low nibble first
  static constexpr Kind kTag = Kind::kInt4;
  static constexpr const char* kName = "int4";
  static constexpr bool kInteger = true;
  static constexpr int kBits = 4;
  static constexpr int kLow = -8;
  static constexpr int kHigh = 7;
  static constexpr float kDivisor = 7.0f;
  static constexpr bool kProgressive = false;
  static constexpr bool kE2M1 = false;
  static constexpr bool kGlobal = false;
  static constexpr int kWeightScaleBytes = 2;  // f16, one per row and group
  using Scale = uint16_t;
  static float step(Scale scale) { return f16_to_f32(scale); }
};
// Weights only: the scale of a group is an integer multiple of its row's.
struct Int4Progressive : Int4 {
  static constexpr Kind kTag = Kind::kInt4Progressive;
  static constexpr bool kProgressive = true;
  static constexpr int kWeightScaleBytes = 4;  // f32, one per row
  static constexpr int kMostMultiplier = 15;   // s8, one per row and group, not 0
  using Scale = float;
  static float step(Scale scale) { return scale; }
};

// FP4. Codes are twice the value of E2M1, so that they are integers, and the step is half the scale.
struct E2M1 {
  using Storage = uint8_t;  // two patterns, the lower nibble first
  static constexpr Kind kTag = Kind::kE2M1;
  static constexpr const char* kName = "e2m1";
  static constexpr bool kInteger = true;
  static constexpr int kBits = 4;
  static constexpr int kLow = -12;
  static constexpr int kHigh = 12;
  static constexpr float kDivisor = 12.0f;
  static constexpr bool kProgressive = false;
  static constexpr bool kE2M1 = true;
  static constexpr bool kGlobal = false;
  static constexpr int kWeightScaleBytes = 2;  // f16, one per row and group
  using Scale = uint16_t;
  static float step(Scale scale) { return 0.5f * f16_to_f32(scale); }
};
struct Mxfp4 : E2M1 {
  static constexpr Kind kTag = Kind::kMxfp4;
  static constexpr const char* kName = "mxfp4";
  static constexpr int kWeightScaleBytes = 1;  // E8M0, one per row and group
  using Scale = uint8_t;
  static float step(Scale scale) { return 0.5f * e8m0_to_f32(scale); }
};
struct Nvfp4 : E2M1 {
  static constexpr Kind kTag = Kind::kNvfp4;
  static constexpr const char* kName = "nvfp4";
  static constexpr bool kGlobal = true;        // step() is divided by the segment's global scale
  static constexpr int kWeightScaleBytes = 1;  // E4M3, one per row and group
  using Scale = uint8_t;
  static float step(Scale scale) { return 0.5f * e4m3_to_f32(scale); }
};

template <typename Function>
decltype(auto) visit(Kind kind, Function&& function) {
  switch (kind) {
    case Kind::kF16:
      return std::forward<Function>(function)(F16{});
    case Kind::kBF16:
      return std::forward<Function>(function)(BF16{});
    case Kind::kInt8:
      return std::forward<Function>(function)(Int8{});
    case Kind::kInt4:
      return std::forward<Function>(function)(Int4{});
    case Kind::kInt4Progressive:
      return std::forward<Function>(function)(Int4Progressive{});
    case Kind::kE2M1:
      return std::forward<Function>(function)(E2M1{});
    case Kind::kMxfp4:
      return std::forward<Function>(function)(Mxfp4{});
    case Kind::kNvfp4:
      return std::forward<Function>(function)(Nvfp4{});
    case Kind::kF32:
      break;
  }
  return std::forward<Function>(function)(F32{});
}

template <typename Function>
decltype(auto) visit(Format format, Function&& function) {
  return visit(format.kind, std::forward<Function>(function));
}

// KV-cache elements; kInteger ones carry f16 lo and step per token and KV head.
struct KvF32 {
  static constexpr bool kInteger = false;
  static constexpr int kBits = 32;
  static constexpr const char* kName = "f32";
};
struct KvF16 {
  static constexpr bool kInteger = false;
  static constexpr int kBits = 16;
  static constexpr const char* kName = "f16";
};
struct KvInt8 {
  static constexpr bool kInteger = true;
  static constexpr int kBits = 8;
  static constexpr int kHigh = 255;
  static constexpr const char* kName = "int8";
};
struct KvInt4 {
  static constexpr bool kInteger = true;
  static constexpr int kBits = 4;
  static constexpr int kHigh = 15;
  static constexpr const char* kName = "int4";
};

// Of one side: kInt8Int4 is none (kv_side).
template <typename Function>
decltype(auto) visit(KvKind side, Function&& function) {
  switch (side) {
    case KvKind::kF16:
      return std::forward<Function>(function)(KvF16{});
    case KvKind::kInt8:
      return std::forward<Function>(function)(KvInt8{});
    case KvKind::kInt4:
      return std::forward<Function>(function)(KvInt4{});
    case KvKind::kInt8Int4:
      check(false, "a KV-cache format of both sides");
      break;
    case KvKind::kF32:
      break;
  }
  return std::forward<Function>(function)(KvF32{});
}

}  // namespace atom::format
