// Linear layers: y = sum over segments of (sums of codes x weight scale x input scale) + bias.
#include <algorithm>
#include <cstring>
#include <vector>

#include "backend/reference/activation.h"
#include "backend/reference/reference_backend.h"
#include "base/error.h"
#include "format/quantize.h"

namespace atom::backend {
namespace {

using format::Format;

// A weight, unpacked but not dequantized: [n, k] over both segments, scales and multipliers [n,
// groups].
class ReferenceLinear final : public PackedLinear {
 public:
  ReferenceLinear(int n, const format::Segments& weight_format,
                  const format::Segments& input_format)
      : weight(weight_format), input(input_format) {
    n_ = n;
    k_ = weight.k();
    const size_t size = static_cast<size_t>(n) * static_cast<size_t>(k_);
    codes.resize(size);
    values.resize(size);
    scales.resize(static_cast<size_t>(n) * static_cast<size_t>(format::groups(weight)));
    multipliers.resize(scales.size(), 1);
    bias.resize(static_cast<size_t>(n));
  }

  format::Segments weight;
  format::Segments input;
  std::vector<int8_t> codes;        // of integer segments
  std::vector<float> values;        // of floating-point segments
  std::vector<float> scales;        // of one code; progressive: the row's, for every group
  std::vector<int8_t> multipliers;  // 1 except in progressive segments
  std::vector<float> bias;          // [n], zeros when there is none
};

// Codes of both sides are multiplied as integers when a weight's group covers one input scale; a
// floating-point side takes the other one dequantized.
bool is_computable(Format weight, Format input) {
  if (format::is_progressive(input)) return false;  // of weights only
  if (!format::is_integer(weight) || !format::is_integer(input)) return true;
  if (format::bits(input) == 4 || format::is_e2m1(weight)) return weight == input;
  return true;  // int8 input: one scale for the whole segment
}

void check_formats(const LinearWeight& weight, const format::Segments& first,
                   const format::Segments& input) {
  for (size_t s = 0; s < input.at.size(); ++s) {
    const format::Segment w = weight.segments.at[s], x = input.at[s];
    if (w != first.at[s])
      fail("the parts of a linear differ: segment {} is {} x {} in one and {} x {} in another", s,
           format::name(first.at[s].format), first.at[s].size, format::name(w.format), w.size);
    if (w.size != x.size)
      fail("segment {} of a linear has {} weight columns ({}) but {} input channels ({})", s,
           w.size, format::name(w.format), x.size, format::name(x.format));
    if (w.size > 0 && !is_computable(w.format, x.format))
      fail("the reference backend cannot multiply a weight of {} with an input of {}",
           format::name(w.format), format::name(x.format));
  }
}

// Row `row` of one segment: values, or codes and scales, from the checkpoint's bits.
struct RowTarget {
  int8_t* codes;
  float* values;
  float* scales;
  int8_t* multipliers;
};

// Scales and multipliers of a row, one of each for every group.
template <typename F>
void unpack_scales(const LinearWeight::Part& part, const format::Segment& segment, int row,
                   const RowTarget& to) {
  const int groups = format::groups(segment.format, segment.size);
  const int stored = format::weight_scales(segment.format, segment.size);
  const char* from =
      static_cast<const char*>(part.scales) + int64_t{row} * stored * F::kWeightScaleBytes;
  for (int g = 0; g < groups; ++g) {
    typename F::Scale scale;
    static_assert(sizeof scale == F::kWeightScaleBytes);
    std::memcpy(&scale, from + (F::kProgressive ? 0 : F::kWeightScaleBytes * g), sizeof scale);
    to.scales[g] = F::step(scale);
    if constexpr (F::kGlobal) to.scales[g] /= *part.global_scale;
    if constexpr (F::kProgressive) to.multipliers[g] = part.multipliers[int64_t{row} * groups + g];
  }
}

void unpack_row(const LinearWeight::Part& part, const format::Segment& segment, int row,
                const RowTarget& to) {
  const int64_t bytes = format::row_bytes(segment.format, segment.size);
  const char* from = static_cast<const char*>(part.codes) + row * bytes;
  format::visit(segment.format, [&](auto f) {
    using F = decltype(f);
    std::vector<typename F::Storage> stored(static_cast<size_t>(bytes) /
                                            sizeof(typename F::Storage));
    std::memcpy(stored.data(), from, static_cast<size_t>(bytes));
    for (int i = 0; i < segment.size; ++i) {
      if constexpr (!F::kInteger)
        to.values[i] = F::widen(stored[i]);
      else
        to.codes[i] = static_cast<int8_t>(format::unpack_code<F>(stored.data(), i));
    }
    if constexpr (F::kInteger) unpack_scales<F>(part, segment, row, to);
  });
}

// One segment of one output: where its row of the weight and of the input begin.
struct Operands {
  Format weight, input;
  int size;
  const int8_t* w_codes;
  const float* w_values;
  const float* w_scales;
  const int8_t* w_multipliers;
  const int8_t* x_codes;
  const float* x_values;
  const float* x_scales;
};

// Both sides integer: exact sums per weight group, scaled in f64. The groups of a progressive weight
// differ by integer factors, so that their sum is exact too and scaled once.
double sum_of_codes(const Operands& o) {
  const int group = format::group_size(o.weight, o.size);
  const bool progressive = format::is_progressive(o.weight);
  double sum = 0;
  int64_t all_codes = 0;
  for (int g = 0; g < format::groups(o.weight, o.size); ++g) {
    int64_t codes = 0;
    for (int i = g * group; i < std::min(o.size, (g + 1) * group); ++i)
      codes += int64_t{o.w_codes[i]} * o.x_codes[i];
    all_codes += o.w_multipliers[g] * codes;
    if (progressive) continue;
    const float x_scale = o.x_scales[format::bits(o.input) == 4 ? g : 0];
    sum += static_cast<double>(codes) * double{o.w_scales[g]} * double{x_scale};
  }
  if (progressive && o.size > 0)
    sum = static_cast<double>(all_codes) * double{*o.w_scales} * double{*o.x_scales};
  return sum;
}

// At least one side floating-point: products of values. An integer input is seen as dequantize()
// shows it.
double sum_of_values(const Operands& o) {
  const bool w_integer = format::is_integer(o.weight), x_integer = format::is_integer(o.input);
  const int w_group = format::group_size(o.weight, o.size);
  const int x_group = format::group_size(o.input, o.size);
  double sum = 0;
  for (int i = 0; i < o.size; ++i) {
    const int g = w_integer ? i / w_group : 0;
    const double w = w_integer ? double{o.w_scales[g]} * o.w_multipliers[g] * o.w_codes[i]
                               : double{o.w_values[i]};
    const float x =
        x_integer ? o.x_scales[i / x_group] * static_cast<float>(o.x_codes[i]) : o.x_values[i];
    sum += w * double{x};
  }
  return sum;
}

float output(const ReferenceLinear& linear, int n, const ActivationRow& x) {
  const size_t row = static_cast<size_t>(n) * static_cast<size_t>(linear.k());
  const size_t scale_row =
      static_cast<size_t>(n) * static_cast<size_t>(format::groups(linear.weight));
  double sum = 0;
  int at = 0, w_scales_at = 0, x_scales_at = 0;
  for (size_t s = 0; s < linear.weight.at.size(); ++s) {
    const format::Segment w = linear.weight.at[s], a = linear.input.at[s];
    const Operands o{.weight = w.format,
                     .input = a.format,
                     .size = w.size,
                     .w_codes = linear.codes.data() + row + at,
                     .w_values = linear.values.data() + row + at,
                     .w_scales = linear.scales.data() + scale_row + w_scales_at,
                     .w_multipliers = linear.multipliers.data() + scale_row + w_scales_at,
                     .x_codes = x.codes + at,
                     .x_values = x.values + at,
                     .x_scales = x.scales + x_scales_at};
    const bool integers = format::is_integer(w.format) && format::is_integer(a.format);
    sum += integers ? sum_of_codes(o) : sum_of_values(o);
    at += w.size;
    w_scales_at += format::groups(w.format, w.size);
    x_scales_at += format::groups(a.format, a.size);
  }
  return static_cast<float>(sum + double{linear.bias[static_cast<size_t>(n)]});
}

}  // namespace

std::unique_ptr<PackedLinear> ReferenceBackend::pack(std::span<const LinearWeight> parts,
                                                     const format::Segments& input) {
  check(!parts.empty(), "a linear has at least one part");
  const format::Segments& weight = parts[0].segments;
  int n = 0;
  for (const LinearWeight& part : parts) {
    check_formats(part, weight, input);
    n += part.n;
  }

  auto linear = std::make_unique<ReferenceLinear>(n, weight, input);
  size_t out = 0;
  for (const LinearWeight& part : parts) {
    for (int row = 0; row < part.n; ++row, ++out) {
      size_t at = out * static_cast<size_t>(weight.k());
      size_t scales_at = out * static_cast<size_t>(format::groups(weight));
      for (size_t s = 0; s < weight.at.size(); ++s) {
        const format::Segment& segment = weight.at[s];
        if (segment.size == 0) continue;
        unpack_row(part.part[s], segment, row,
                   {linear->codes.data() + at, linear->values.data() + at,
                    linear->scales.data() + scales_at, linear->multipliers.data() + scales_at});
        at += static_cast<size_t>(segment.size);
        scales_at += static_cast<size_t>(format::groups(segment.format, segment.size));
      }
      if (part.bias != nullptr) linear->bias[out] = part.bias[row];
    }
  }
  return linear;
}

void ReferenceBackend::linear(const LinearArgs& args) {
  check(args.y_f16 == nullptr, "reference gives rows in f32");
  const bool by_expert = args.row_ends != nullptr;
  check(by_expert || args.weights.size() == 1, "a dense linear has one weight");
  int row = 0;
  for (size_t e = 0; e < args.weights.size(); ++e) {
    const auto& linear = dynamic_cast<const ReferenceLinear&>(*args.weights[e]);
    check(linear.input == args.x.spec->segments, "the weight was packed for another input");
    const int end = by_expert ? args.row_ends[e] : args.x.rows;
    for (; row < end; ++row) {
      const ActivationRow x = row_of(args.x, args.row_index != nullptr ? args.row_index[row] : row);
      for (int n = 0; n < linear.n(); ++n) {
        float& y = args.y[static_cast<size_t>(row) * static_cast<size_t>(linear.n()) +
                          static_cast<size_t>(n)];
        const float result = output(linear, n, x);
        y = args.then == Then::kAdd ? y + result : result;
      }
    }
  }
}

}  // namespace atom::backend
