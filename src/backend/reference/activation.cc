#include "backend/reference/activation.h"

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "format/hadamard.h"
#include "format/quantize.h"

namespace atom::backend {
namespace {

// x holds one segment; a group's last values may be fewer than its size.
void quantize_segment(std::span<const float> x, format::Format format, const InputSpec& spec,
                      float* scales, int8_t* codes) {
  const int size = static_cast<int>(x.size());
  const int group = format::group_size(format, size);
  format::visit(format, [&](auto f) {
    using F = decltype(f);
    if constexpr (F::kInteger) {
      const float global = F::kGlobal ? format::nvfp4_global(format::absmax(x)) : 1.0f;
      for (int g = 0; g < format::groups(format, size); ++g) {
        const int begin = g * group;
        const std::span<const float> values = x.subspan(begin, std::min(group, size - begin));
        scales[g] = spec.signed_scales && F::kBits == 4 && !F::kE2M1
                        ? format::signed_int4_scale(format::extreme(values), spec.clip)
                        : format::input_step<F>(format::absmax(values), spec.clip, global);
        format::quantize_group(values, scales[g], f, codes + begin);
      }
    }
  });
}

}  // namespace

size_t activation_row_bytes(const format::Segments& segments) {
  const size_t k = static_cast<size_t>(segments.k());
  const size_t floats = k + static_cast<size_t>(format::groups(segments));
  return (floats * sizeof(float) + k + 3) / 4 * 4;
}

ActivationRow row_of(const Activation& x, int row) {
  const format::Segments& segments = x.spec->segments;
  check(row >= 0 && row < x.rows, "a row outside the activation");
  char* data =
      static_cast<char*>(x.data) + activation_row_bytes(segments) * static_cast<size_t>(row);
  ActivationRow r;
  r.values = reinterpret_cast<float*>(data);
  r.scales = r.values + segments.k();
  r.codes = reinterpret_cast<int8_t*>(r.scales + format::groups(segments));
  return r;
}

void quantize_row(std::span<const float> x, const Activation& y, int row) {
  const InputSpec& spec = *y.spec;
  check(static_cast<int>(x.size()) == spec.k(), "a row has k values");
  std::vector<float> ordered(x.begin(), x.end());
  if (spec.order != nullptr)
    for (size_t i = 0; i < ordered.size(); ++i) ordered[i] = x[static_cast<size_t>(spec.order[i])];
  if (spec.hadamard != 0)
    format::block_hadamard(std::span(ordered).first(static_cast<size_t>(spec.segments.at[0].size)),
                           spec.hadamard);

  const ActivationRow r = row_of(y, row);
  int at = 0, scales_at = 0;
  for (const format::Segment& segment : spec.segments.at) {
    const std::span<const float> values = std::span(ordered).subspan(at, segment.size);
    if (format::is_integer(segment.format)) {
      quantize_segment(values, segment.format, spec, r.scales + scales_at, r.codes + at);
      std::fill_n(r.values + at, segment.size, 0.0f);
    } else {
      std::copy(values.begin(), values.end(), r.values + at);
      std::fill_n(r.codes + at, segment.size, int8_t{0});
    }
    at += segment.size;
    scales_at += format::groups(segment.format, segment.size);
  }
}

int64_t saturated_in_row(const Activation& x, int row) {
  const int8_t* codes = row_of(x, row).codes;
  int64_t count = 0;
  for (const format::Segment& segment : x.spec->segments.at) {
    const std::span<const int8_t> own(codes, static_cast<size_t>(segment.size));
    count += format::saturated_in_segment(own, segment.format);
    codes += segment.size;
  }
  return count;
}

void dequantize_row(const Activation& x, int row, std::span<float> y) {
  const ActivationRow r = row_of(x, row);
  int at = 0, scales_at = 0;
  for (const format::Segment& segment : x.spec->segments.at) {
    const int group = format::group_size(segment.format, segment.size);
    for (int i = 0; i < segment.size; ++i)
      y[at + i] = format::is_integer(segment.format)
                      ? r.scales[scales_at + i / group] * static_cast<float>(r.codes[at + i])
                      : r.values[at + i];
    at += segment.size;
    scales_at += format::groups(segment.format, segment.size);
  }
}

}  // namespace atom::backend
