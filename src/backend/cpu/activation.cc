#include "backend/cpu/activation.h"

#include <algorithm>

#include "backend/cpu/memory.h"
#include "format/list.h"

namespace atom::backend::cpu {
namespace {

constexpr int kSumSpan = 32;  // divides every group of a weight that meets int8 inputs

int64_t align(int64_t bytes) {
  constexpr auto kStep = static_cast<int64_t>(kAlignment);
  return (bytes + kStep - 1) / kStep * kStep;
}

// Rows lie an odd number of cache lines apart: a power of two would send the rows of a tile to one
// cache set.
int64_t row_stride(int64_t bytes) {
  const int64_t aligned = align(bytes);
  return aligned / int64_t{kAlignment} % 2 == 0 ? aligned + int64_t{kAlignment} : aligned;
}

Fp4Scale fp4_scale_of(format::Format format) {
  if (format::has_global_scale(format)) return Fp4Scale::kE4M3;
  return format::weight_scale_bytes(format) == 1 ? Fp4Scale::kE8M0 : Fp4Scale::kF32;
}

// Shape of a segment, without pointers.
InputSegment shape_of(const format::Segment& segment) {
  InputSegment s;
  s.element = element_of(segment.format);
  s.size = segment.size;
  if (segment.size == 0) return s;
  if (!format::is_integer(segment.format)) {
    s.element = Element::kF32;
    s.stride = row_stride(int64_t{segment.size} * 4) / 4;
    return s;
  }
  s.group = format::group_size(segment.format, segment.size);
  s.groups = format::groups(segment.format, segment.size);
  s.fp4_scale = fp4_scale_of(segment.format);
  s.sum_span = format::bits(segment.format) == 4 && segment.format.group != 0 ? s.group : kSumSpan;
  s.sums = (s.size + s.sum_span - 1) / s.sum_span;
  s.stride = row_stride(s.size);
  return s;
}

// Lays the segments out from `data` (null: only counts) and returns the bytes used.
size_t lay_out(const InputSpec& spec, int rows, char* data, Input& input) {
  int64_t used = 0;
  const auto take = [&]<typename T>(T*& part, int64_t count) {
    part = data == nullptr ? nullptr : reinterpret_cast<T*>(data + used);
    used += align(count * static_cast<int64_t>(sizeof(T)));
  };
  for (size_t i = 0; i < spec.segments.at.size(); ++i) {
    InputSegment s = shape_of(spec.segments.at[i]);
    if (s.groups == 0) {
      take(s.values, rows * s.stride);
    } else {
      take(s.codes, rows * s.stride);
      take(s.scales, int64_t{rows} * s.groups);
      take(s.code_sums, int64_t{rows} * s.sums);
    }
    input.at[i] = s;
  }
  return static_cast<size_t>(std::max(used, int64_t{kAlignment}));
}

}  // namespace

Element element_of(format::Format format) {
  return format::visit(format, [](auto f) {
    using F = decltype(f);
    if constexpr (F::kInteger)
      return F::kE2M1 ? Element::kE2M1 : F::kBits == 4 ? Element::kInt4 : Element::kInt8;
    else if constexpr (F::kBits == 32)
      return Element::kF32;
    else
      return F::kTag == format::Kind::kF16 ? Element::kF16 : Element::kBF16;
  });
}

size_t activation_bytes(const InputSpec& spec, int rows) {
  Input input;
  return lay_out(spec, rows, nullptr, input);
}

Input input_of(const Activation& x) {
  Input input;
  input.order = x.spec->order;
  input.clip = x.spec->clip;
  input.signed_scales = x.spec->signed_scales;
  input.k = x.spec->k();
  input.hadamard = x.spec->hadamard;
  lay_out(*x.spec, x.rows, static_cast<char*>(x.data), input);
  return input;
}

}  // namespace atom::backend::cpu
