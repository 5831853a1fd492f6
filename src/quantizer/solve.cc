#include "quantizer/solve.h"

#include <cstring>
#include <span>
#include <vector>

#include "base/error.h"
#include "format/quantize.h"
#include "quantizer/gptq.h"

namespace atom::quantizer {
namespace {

using model::LinearTensors;

void append_bytes(std::vector<std::byte>& to, const void* data, size_t bytes) {
  const auto* from = static_cast<const std::byte*>(data);
  to.insert(to.end(), from, from + bytes);
}

LinearTensors::Part encode_four_bits(const Rounded& rounded, int n, format::Segment segment) {
  LinearTensors::Part part;
  const size_t row_bytes = static_cast<size_t>(format::row_bytes(segment.format, segment.size));
  format::visit(segment.format, [&](auto f) {
    using F = decltype(f);
    if constexpr (F::kInteger) {
      std::vector<typename F::Storage> row(row_bytes / sizeof(typename F::Storage));
      for (int r = 0; r < n; ++r) {
        format::pack_codes<F>(
            {rounded.codes.data() + int64_t{r} * segment.size, static_cast<size_t>(segment.size)},
            row.data());
        append_bytes(part.codes, row.data(), row_bytes);
      }
      for (const uint16_t bits : rounded.scales) {
        const auto scale = static_cast<typename F::Scale>(bits);
        append_bytes(part.scales, &scale, sizeof scale);
      }
    }
  });
  part.global_scale = rounded.global_scale;
  append_bytes(part.scales, rounded.row_scales.data(), rounded.row_scales.size() * sizeof(float));
  part.multipliers = rounded.multipliers;
  return part;
}

// values = [n, segment.size].
LinearTensors::Part encode_int8(std::span<const float> values, int n, int size) {
  LinearTensors::Part part;
  std::vector<int8_t> codes(static_cast<size_t>(size));
  for (int r = 0; r < n; ++r) {
    const std::span<const float> row =
        values.subspan(static_cast<size_t>(int64_t{r} * size), codes.size());
    const float scale = format::int8_scale(format::absmax(row));
    format::quantize_group(row, scale, format::Int8{}, codes.data());
    append_bytes(part.codes, codes.data(), codes.size());
    append_bytes(part.scales, &scale, sizeof(scale));
  }
  return part;
}

double squares(std::span<const float> values) {
  double sum = 0;
  for (const float v : values) sum += double{v} * double{v};
  return sum;
}

double ratio(double part, double whole) { return whole > 0 ? part / whole : 0.0; }

}  // namespace

Solved solve_linear(const SolveTask& task, Solver& solver) {
  const LinearTensors& source = *task.linear;
  const format::Format source_format =
      source.segments.at[source.segments.at[0].size > 0 ? 0 : 1].format;
  check(!format::is_integer(source_format), "a linear is solved once");
  const int n = source.n, k = source.k();
  const std::vector<float> weight = model::to_f32(source);

  Solved out;
  out.linear = {.name = source.name, .n = n, .segments = weight_segments(task.scheme, k)};
  out.linear.bias = source.bias;
  format::Segment& normal = out.linear.segments.at[0];
  format::Segment& kept = out.linear.segments.at[1];
  const bool four_bits = format::bits(normal.format) == 4;
  const bool refine = task.refine && task.factor != nullptr && task.gram != nullptr;
  const RoundingProblem problem{.name = source.name,
                                .weight = weight.data(),
                                .n = n,
                                .k = k,
                                .normal = {normal.format, four_bits ? normal.size : 0},
                                .clip = task.clip,
                                .signed_scales = task.signed_scales,
                                .factor = task.factor != nullptr ? task.factor->u.data() : nullptr,
                                .gram = refine ? task.gram->values.data() : nullptr,
                                .damping = refine ? static_cast<float>(task.factor->added) : 0.0f,
                                .dead = task.factor != nullptr
                                            ? std::span<const uint8_t>(task.factor->dead)
                                            : std::span<const uint8_t>()};
  const Rounded rounded =
      task.factor != nullptr && four_bits ? solver.gptq(problem) : round_nearest(problem);
  check(four_bits || kept.size == 0, "kept channels stand beside four-bit ones");
  if (four_bits && normal.size > 0) out.linear.part[0] = encode_four_bits(rounded, n, normal);
  const int rest_at = four_bits ? 1 : 0;
  const format::Segment rest = out.linear.segments.at[rest_at];
  if (rest.size > 0 && rest.format == format::kInt8) {
    out.linear.part[rest_at] = encode_int8(rounded.rest, n, rest.size);
  } else if (rest.size > 0) {
    out.linear.segments.at[rest_at].format = source_format;
    out.linear.part[rest_at] =
        model::from_f32(source.name, n, rest.size, source_format, rounded.rest.data()).part[0];
  }

  std::vector<float> difference = model::to_f32(out.linear);
  for (size_t i = 0; i < difference.size(); ++i) difference[i] = weight[i] - difference[i];
  out.weight_error = ratio(squares(difference), squares(weight));
  if (task.gram != nullptr)
    out.output_error =
        ratio(solver.output_energy(difference.data(), n, k, task.gram->values.data()),
              solver.output_energy(weight.data(), n, k, task.gram->values.data()));
  return out;
}

}  // namespace atom::quantizer
