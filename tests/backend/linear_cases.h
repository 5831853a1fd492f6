// Weights and inputs for the tests of the linear operation, and its definition written once more,
// apart from the backends: y and a bound of the f32 error for every output.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "backend/operations.h"
#include "base/random.h"
#include "format/quantize.h"
#include "testing/random_data.h"

namespace atom::backend {

enum class Data {
  kNormal,  // normal values with some outliers
  kExact,   // scales are powers of two and all sums are representable in f32: no rounding anywhere
};

// One segment of a weight: what it means, and the checkpoint's bits.
struct HostSegment {
  std::vector<float> values;        // [n, size], floating point
  std::vector<int8_t> codes;        // [n, size], integer
  std::vector<float> scales;        // [n, groups]; progressive: of the row, for each group
  std::vector<int8_t> multipliers;  // [n, groups], 1 unless progressive
  std::vector<uint8_t> stored, stored_scales;
  float global_scale = 1;  // of nvfp4; scales are divided by it
};

struct HostWeight {
  int n = 0;
  format::Segments segments;
  HostSegment at[2];
  std::vector<float> bias;  // [n] or empty

  // Rows [begin, end) as a checkpoint would give them.
  LinearWeight rows(int begin, int end) const {
    LinearWeight w{.n = end - begin, .segments = segments, .part = {}, .bias = nullptr};
    for (int s = 0; s < 2; ++s) {
      const format::Segment& segment = segments.at[s];
      const int64_t scale_bytes = int64_t{format::weight_scales(segment.format, segment.size)} *
                                  format::weight_scale_bytes(segment.format);
      if (segment.size == 0) continue;
      w.part[s].codes =
          at[s].stored.data() + begin * format::row_bytes(segment.format, segment.size);
      if (scale_bytes > 0) w.part[s].scales = at[s].stored_scales.data() + begin * scale_bytes;
      if (format::is_progressive(segment.format))
        w.part[s].multipliers =
            at[s].multipliers.data() + begin * format::groups(segment.format, segment.size);
      if (format::has_global_scale(segment.format)) w.part[s].global_scale = &at[s].global_scale;
    }
    if (!bias.empty()) w.bias = bias.data() + begin;
    return w;
  }
};

template <typename T>
void append_bytes(std::vector<uint8_t>& to, const T& value) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(&value);
  to.insert(to.end(), bytes, bytes + sizeof value);
}

// A stored scale of about `scale`, exact for a power of two: the value of one code.
template <typename F>
typename F::Scale stored_scale(float scale, float global) {
  if constexpr (F::kGlobal)
    return format::f32_to_e4m3(2 * scale * global);
  else if constexpr (F::kWeightScaleBytes == 1)
    return format::e8m0_of(8 * scale);
  else if constexpr (F::kWeightScaleBytes == 2)
    return format::f32_to_f16(F::kE2M1 ? 2 * scale : scale);
  else
    return scale;
}

// Scales of one row of an integer segment.
template <typename F>
void make_scales(Random& random, int groups, Data data, HostSegment& out) {
  for (int g = 0; g < groups; ++g) {
    if (F::kProgressive && g > 0) {
      out.scales.push_back(out.scales.back());
    } else {
      const float magnitude = data == Data::kExact
                                  ? atom::testing::power_of_two(random, -3, 0)
                                  : static_cast<float>(0.01 + 0.1 * random.uniform());
      const bool may_be_negative = F::kBits == 4 && !F::kE2M1 && !F::kProgressive;
      const float scale = may_be_negative && random.below(2) == 1 ? -magnitude : magnitude;
      const typename F::Scale stored = stored_scale<F>(scale, out.global_scale);
      append_bytes(out.stored_scales, stored);
      out.scales.push_back(F::step(stored) / out.global_scale);
    }
    const int most = data == Data::kExact ? 4 : 15;  // kExact: sums stay below 2^24 units
    out.multipliers.push_back(F::kProgressive
                                  ? static_cast<int8_t>(atom::testing::between(random, 1, most) *
                                                        (random.below(2) == 1 ? -1 : 1))
                                  : int8_t{1});
  }
}

inline HostSegment make_segment(Random& random, int n, const format::Segment& segment, Data data) {
  HostSegment out;
  const int groups = format::groups(segment.format, segment.size);
  if (format::has_global_scale(segment.format)) out.global_scale = data == Data::kExact ? 4 : 3.7f;
  format::visit(segment.format, [&](auto f) {
    using F = decltype(f);
    for (int row = 0; row < n; ++row) {
      if constexpr (!F::kInteger) {
        for (int i = 0; i < segment.size; ++i) {
          const double value = data == Data::kExact ? atom::testing::between(random, -8, 8) / 4.0
                                                    : 0.3 * random.normal();
          const typename F::Storage stored = F::narrow(static_cast<float>(value));
          append_bytes(out.stored, stored);
          out.values.push_back(F::widen(stored));
        }
      } else {
        std::vector<int8_t> codes;
        const int limit = data == Data::kExact && F::kBits == 8 ? 31 : -F::kLow;
        for (int i = 0; i < segment.size; ++i)
          codes.push_back(static_cast<int8_t>(
              F::kE2M1 ? format::kE2M1Codes[random.below(16)]
                       : atom::testing::between(random, -limit, std::min(limit, F::kHigh))));
        std::vector<typename F::Storage> packed(
            static_cast<size_t>(format::row_bytes(segment.format, segment.size)) /
            sizeof(typename F::Storage));
        format::pack_codes<F>(codes, packed.data());
        for (const auto word : packed) append_bytes(out.stored, word);
        out.codes.insert(out.codes.end(), codes.begin(), codes.end());
        make_scales<F>(random, groups, data, out);
      }
    }
  });
  return out;
}

struct WeightCase {
  int n = 0;
  format::Segments segments;
  bool has_bias = false;
  Data data = Data::kNormal;
};

inline HostWeight make_weight(Random& random, const WeightCase& c) {
  HostWeight w{.n = c.n, .segments = c.segments, .at = {}, .bias = {}};
  for (int s = 0; s < 2; ++s) w.at[s] = make_segment(random, c.n, c.segments.at[s], c.data);
  for (int i = 0; c.has_bias && i < c.n; ++i)
    w.bias.push_back(c.data == Data::kExact
                         ? static_cast<float>(atom::testing::between(random, -64, 64)) / 16.0f
                         : static_cast<float>(random.normal()));
  return w;
}

// Rows for an input, [rows, k], in channel order. kExact: quantization with clip 1 reproduces every
// value.
inline std::vector<float> make_rows(Random& random, const format::Segments& segments, int rows,
                                    const std::vector<int32_t>& order, Data data) {
  std::vector<float> x;
  for (int row = 0; row < rows; ++row) {
    std::vector<float> ordered;
    for (const format::Segment& segment : segments.at) {
      const bool integer = format::is_integer(segment.format);
      const int group = integer ? format::group_size(segment.format, segment.size) : 1;
      const bool e2m1 = format::is_e2m1(segment.format);
      const int limit = e2m1 ? 12 : format::is_int4(segment.format) ? 7 : integer ? 127 : 8;
      float scale = 0.25f;
      for (int i = 0; i < segment.size; ++i) {
        if (data == Data::kNormal) {
          ordered.push_back(static_cast<float>((i % 29 == 3 ? 8.0 : 1.0) * random.normal()));
          continue;
        }
        const bool first = i % group == 0;  // the largest of its group makes the scale
        if (integer && first) scale = atom::testing::power_of_two(random, -2, 1);
        const int most = std::min(limit, 15);
        const int code = integer && first ? limit
                         : e2m1           ? format::kE2M1Codes[random.below(16)]
                                          : atom::testing::between(random, -most, most);
        ordered.push_back(static_cast<float>(code) * scale);
      }
    }
    std::vector<float> channels = ordered;
    for (size_t i = 0; i < order.size(); ++i) channels[static_cast<size_t>(order[i])] = ordered[i];
    x.insert(x.end(), channels.begin(), channels.end());
  }
  return x;
}

struct ExactOutput {
  double value = 0;      // in f64
  double magnitude = 0;  // sum of |terms| as f32 arithmetic adds them
  double products = 0;   // sum of |products|, element by element
  int terms = 0;
};

// One row of an input as export_codes() and dequantize() show it.
struct InputRow {
  const format::Segments* segments;
  const int8_t* codes;
  const float* scales;
  const float* values;
};

// docs/formats.md, section 5, without bias.
inline ExactOutput exact_output(const HostWeight& w, int n, const InputRow& x) {
  ExactOutput out;
  int at = 0, scales_at = 0;
  for (int s = 0; s < 2; ++s) {
    const format::Segment& segment = w.segments.at[s];
    const format::Format input = x.segments->at[s].format;
    const size_t row = static_cast<size_t>(n) * static_cast<size_t>(segment.size);
    const int groups = format::groups(segment.format, segment.size);
    const int group = format::group_size(segment.format, segment.size);
    const bool w_integer = format::is_integer(segment.format),
               x_integer = format::is_integer(input);
    std::vector<int64_t> sums(static_cast<size_t>(groups));
    int64_t all_sums = 0;  // progressive: one term
    for (int i = 0; i < segment.size; ++i) {
      const double w_scale = w_integer ? double{w.at[s].scales[n * groups + i / group]} *
                                             w.at[s].multipliers[n * groups + i / group]
                                       : 1;
      const double w_value =
          w_integer ? w_scale * w.at[s].codes[row + i] : double{w.at[s].values[row + i]};
      const double product = w_value * double{x.values[at + i]};
      out.products += std::abs(product);
      if (w_integer && x_integer) {
        sums[i / group] += w.at[s].codes[row + i] * x.codes[at + i];
      } else {
        out.value += product;
        out.magnitude += std::abs(product);
        ++out.terms;
      }
    }
    for (int g = 0; w_integer && x_integer && g < groups; ++g) {
      all_sums += sums[g] * w.at[s].multipliers[n * groups + g];
      if (format::is_progressive(segment.format) && g < groups - 1) continue;
      const float x_scale = x.scales[scales_at + (format::bits(input) == 4 ? g : 0)];
      const double term =
          static_cast<double>(format::is_progressive(segment.format) ? all_sums : sums[g]) *
          double{w.at[s].scales[n * groups + g]} * double{x_scale};
      out.value += term;
      out.magnitude += std::abs(term);
      ++out.terms;
    }
    at += segment.size;
    scales_at += format::groups(input, segment.size);
  }
  return out;
}

// Error bound of a result y (+= when `before` is not 0), with u = 2^-24 the rounding error of f32:
// * t terms added in f32 in any order err by at most (t - 1) u sum|terms| (to first order); the
// bias is one more;
// * a term errs by at most 4 u: the conversion of its sum, the product of the scales or a
// dequantized value, the
//   product with it, and one for a weight dequantized in f32;
// * the stored result is rounded once, and the residual sum once more.
// 8 covers the fixed ones; quadratic terms vanish beside it for t < 2^12.
inline double error_bound(const ExactOutput& y, double bias, double before) {
  const double u = std::ldexp(1.0, -24);
  return (y.terms + 8) * u * (y.magnitude + std::abs(bias)) +
         2 * u * (std::abs(before) + std::abs(y.value + bias));
}

}  // namespace atom::backend
