#include "quantizer/gptq.h"

#include <cblas.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "format/quantize.h"
#include "quantizer/clip.h"

namespace atom::quantizer {
namespace {

using format::GroupScale;

constexpr int kColumns = 128;  // compensated one by one; columns behind them in one matrix product

// What GPTQ pays for an error in column j is error^2 / U_jj^2.
std::vector<float> importance_of(const RoundingProblem& problem, int begin,
                                 std::span<const float> group) {
  std::vector<float> importance;
  if (problem.factor != nullptr)
    for (size_t j = 0; j < group.size(); ++j) {
      const size_t column = static_cast<size_t>(begin) + j;
      const float u = problem.factor[column * static_cast<size_t>(problem.k) + column];
      importance.push_back(1.0f / (u * u));
    }
  return importance;
}

// The scale of the group that begins at column `begin`; without a clip it is `unclipped`, and with one `clipped`. A
// clip counts only with groups.
float int4_scale(const RoundingProblem& problem, int begin, std::span<const float> group,
                 float unclipped, float clipped) {
  if (problem.normal.format.group != 0 && problem.clip == 0)
    return unclipped * searched_clip(group, unclipped, importance_of(problem, begin, group),
                                     problem.signed_scales);
  const bool whole_row = problem.normal.format.group == 0;
  if (problem.signed_scales)
    return format::signed_int4_scale(format::extreme(group), whole_row ? 1.0f : problem.clip);
  return whole_row ? unclipped : clipped;
}

[[noreturn]] void refuse_large(const RoundingProblem& problem, float absmax) {
  fail("{}: a weight group with magnitude {} needs a scale beyond f16", problem.name, absmax);
}

uint16_t stored_scale(const RoundingProblem& problem, float wanted, float absmax) {
  if (absmax == 0.0f) return format::f32_to_f16(1.0f);
  const uint16_t bits = format::weight_scale_bits(wanted);
  if (!std::isfinite(format::f16_to_f32(bits))) refuse_large(problem, absmax);
  return bits;
}

GroupScale fp4_scale(const RoundingProblem& problem, int begin, std::span<const float> group,
                     float global) {
  const Fp4Group fp4{problem.normal.format, group, global};
  const float absmax = format::absmax(group);
  const float clip =
      problem.clip != 0 ? problem.clip : searched_clip(fp4, importance_of(problem, begin, group));
  const GroupScale scale = format::fp4_scale(fp4.format, absmax, clip, global);
  if (!std::isfinite(scale.step)) refuse_large(problem, absmax);
  return scale;
}

GroupScale gptq_scale(const RoundingProblem& problem, int begin, std::span<const float> group,
                      const Rounded& rounded) {
  if (format::is_e2m1(problem.normal.format))
    return fp4_scale(problem, begin, group, rounded.global());
  const float absmax = format::absmax(group);
  const float wanted = int4_scale(problem, begin, group, 2.0f * absmax / 15.0f,
                                  2.0f * absmax * problem.clip / 15.0f);
  const uint16_t bits = stored_scale(problem, wanted, absmax);
  return {bits, format::f16_to_f32(bits)};
}

// absmax * (clip / 7), unless searched or signed.
float nearest_scale(const RoundingProblem& problem, int begin, std::span<const float> group) {
  const float absmax = format::absmax(group);
  return int4_scale(problem, begin, group, absmax / 7.0f, absmax * (problem.clip / 7.0f));
}

// Row scale and multipliers of one row's normal columns.
void progressive_scales(const RoundingProblem& problem, int row, const float* weight,
                        Rounded& out) {
  const int normal = problem.normal.size;
  const int group = format::group_size(problem.normal.format, normal);
  std::vector<float> wanted;
  const auto values = [&](int begin) {
    return std::span(weight + begin, static_cast<size_t>(std::min(group, normal - begin)));
  };
  float largest = 0;
  for (int begin = 0; begin < normal; begin += group) {
    wanted.push_back(nearest_scale(problem, begin, values(begin)));
    largest = std::max(largest, std::abs(wanted.back()));
  }
  if (wanted.empty()) return;
  const float scale = format::progressive_row_scale(largest);
  out.row_scales[static_cast<size_t>(row)] = scale;
  int8_t* multipliers = out.multipliers.data() + static_cast<size_t>(row) * wanted.size();
  for (size_t g = 0; g < wanted.size(); ++g) {
    const int begin = static_cast<int>(g) * group;
    multipliers[g] = problem.clip != 0
                         ? format::progressive_multiplier(wanted[g], scale)
                         : searched_multiplier(values(begin), scale,
                                               importance_of(problem, begin, values(begin)),
                                               problem.signed_scales);
  }
}

// Columns [begin, end) of one row: rounds, compensates the columns up to `end`, notes each column's
// error.
struct RowState {
  float* weight;     // [k]
  float* errors;     // [kColumns]
  int8_t* codes;     // [normal.size]
  uint16_t* scales;  // [groups], chosen here; null: progressive
  float row_scale;   // progressive: fixed in advance
  const int8_t* multipliers;
  float scale = 1.0f;
};

void round_columns(const RoundingProblem& problem, int begin, int end, const Rounded& rounded,
                   RowState& row) {
  const int group = format::group_size(problem.normal.format, problem.normal.size);
  const size_t k = static_cast<size_t>(problem.k);
  const bool e2m1 = format::is_e2m1(problem.normal.format);
  float inverse = 1.0f / row.scale;
  for (int i = begin; i < end; ++i) {
    if (i % group == 0 && row.scales == nullptr) {
      const int g = i / group;
      row.scale = row.row_scale * static_cast<float>(row.multipliers[g]);
      inverse = 1.0f / row.scale;
    } else if (i % group == 0) {
      const int size = std::min(group, problem.normal.size - i);
      const GroupScale scale =
          gptq_scale(problem, i, {row.weight + i, static_cast<size_t>(size)}, rounded);
      row.scales[i / group] = scale.bits;
      row.scale = scale.step;
      inverse = 1.0f / row.scale;
    }
    const int code = e2m1 ? format::code_of<format::E2M1>(row.weight[i], inverse)
                          : format::code_of<format::Int4>(row.weight[i], inverse);
    row.codes[i] = static_cast<int8_t>(code);
    const float* factor = problem.factor + static_cast<size_t>(i) * k;
    const float error = (row.weight[i] - row.scale * static_cast<float>(code)) / factor[i];
    float* weight = row.weight;
    for (int j = i + 1; j < end; ++j) weight[j] -= error * factor[j];
    row.errors[i - begin] = error;
  }
}

}  // namespace

Rounded make_rounded(const RoundingProblem& problem) {
  const size_t n = static_cast<size_t>(problem.n);
  const int normal = problem.normal.size;
  Rounded out;
  out.codes.resize(n * static_cast<size_t>(normal));
  const size_t groups = n * static_cast<size_t>(format::groups(problem.normal.format, normal));
  if (format::is_progressive(problem.normal.format)) {
    out.row_scales.resize(n, 1.0f);
    out.multipliers.resize(groups, 1);
  } else {
    out.scales.resize(groups);
  }
  if (format::has_global_scale(problem.normal.format)) {
    float largest = 0;
    for (int64_t r = 0; r < problem.n; ++r)
      largest = std::max(
          largest, format::absmax({problem.weight + r * problem.k, static_cast<size_t>(normal)}));
    out.global_scale = {format::nvfp4_global(largest)};
  }
  out.rest.resize(n * static_cast<size_t>(problem.k - normal));
  return out;
}

Rounded round_nearest(const RoundingProblem& problem) {
  Rounded out = make_rounded(problem);
  const int normal = problem.normal.size;
  const int group = format::group_size(problem.normal.format, normal);
  const int groups = format::groups(problem.normal.format, normal);
  const bool progressive = format::is_progressive(problem.normal.format);
  const bool e2m1 = format::is_e2m1(problem.normal.format);
  for (int r = 0; r < problem.n; ++r) {
    const float* weight = problem.weight + int64_t{r} * problem.k;
    if (progressive) progressive_scales(problem, r, weight, out);
    for (int g = 0; g < groups; ++g) {
      const int begin = g * group;
      const std::span<const float> values(weight + begin,
                                          static_cast<size_t>(std::min(group, normal - begin)));
      const size_t at = static_cast<size_t>(int64_t{r} * groups + g);
      float scale;
      if (progressive) {
        scale = out.row_scales[static_cast<size_t>(r)] * static_cast<float>(out.multipliers[at]);
      } else if (e2m1) {
        const GroupScale stored = fp4_scale(problem, begin, values, out.global());
        out.scales[at] = stored.bits;
        scale = stored.step;
      } else {
        out.scales[at] =
            stored_scale(problem, nearest_scale(problem, begin, values), format::absmax(values));
        scale = format::f16_to_f32(out.scales[at]);
      }
      int8_t* codes = out.codes.data() + int64_t{r} * normal + begin;
      if (e2m1)
        format::quantize_group(values, scale, format::E2M1{}, codes);
      else
        format::quantize_group(values, scale, format::Int4{}, codes);
    }
    std::copy(weight + normal, weight + problem.k,
              out.rest.begin() + int64_t{r} * (problem.k - normal));
  }
  return out;
}

void gptq_rows(const RoundingProblem& problem, int begin, int end, Rounded& out) {
  const int k = problem.k, normal = problem.normal.size, rows = end - begin;
  const int groups = format::groups(problem.normal.format, normal);
  std::vector<float> weight(problem.weight + int64_t{begin} * k, problem.weight + int64_t{end} * k);
  for (int j = 0; j < k; ++j)
    if (!problem.dead.empty() && problem.dead[static_cast<size_t>(j)] != 0)
      for (int r = 0; r < rows; ++r) weight[static_cast<size_t>(int64_t{r} * k + j)] = 0.0f;

  const bool progressive = format::is_progressive(problem.normal.format);
  for (int r = 0; progressive && r < rows; ++r)
    progressive_scales(problem, begin + r, weight.data() + int64_t{r} * k, out);

  std::vector<float> errors(static_cast<size_t>(rows) * kColumns);
  std::vector<float> scale(static_cast<size_t>(rows), 1.0f);  // of the group that a row is in
  for (int first = 0; first < normal; first += kColumns) {
    const int last = std::min(first + kColumns, normal);
    for (int r = 0; r < rows; ++r) {
      RowState row{.weight = weight.data() + int64_t{r} * k,
                   .errors = errors.data() + int64_t{r} * kColumns,
                   .codes = out.codes.data() + int64_t{begin + r} * normal,
                   .scales = nullptr,
                   .row_scale = 1.0f,
                   .multipliers = nullptr,
                   .scale = scale[static_cast<size_t>(r)]};
      if (progressive) {
        row.row_scale = out.row_scales[static_cast<size_t>(begin) + static_cast<size_t>(r)];
        row.multipliers = out.multipliers.data() + int64_t{begin + r} * groups;
      } else {
        row.scales = out.scales.data() + int64_t{begin + r} * groups;
      }
      round_columns(problem, first, last, out, row);
      scale[static_cast<size_t>(r)] = row.scale;
    }
    if (last < k)
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, k - last, last - first, -1.0f,
                  errors.data(), kColumns, problem.factor + int64_t{first} * k + last, k, 1.0f,
                  weight.data() + last, k);
  }
  for (int r = 0; r < rows; ++r)
    std::copy_n(weight.begin() + int64_t{r} * k + normal, k - normal,
                out.rest.begin() + int64_t{begin + r} * (k - normal));
}

}  // namespace atom::quantizer
