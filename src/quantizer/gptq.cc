#include "quantizer/gptq.h"

#include <cblas.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "format/quantize.h"

namespace atom::quantizer {
namespace {

constexpr int kColumns = 128;  // compensated one by one; columns behind them in one matrix product

// A clip counts only with groups.
float clip_of(const RoundingProblem& problem) {
  return problem.normal.format.group == 0 ? 1.0f : problem.clip;
}

uint16_t stored_scale(const RoundingProblem& problem, float wanted, float absmax) {
  if (absmax == 0.0f) return format::f32_to_f16(1.0f);
  const uint16_t bits = format::weight_scale_bits(wanted);
  if (!std::isfinite(format::f16_to_f32(bits)))
    fail("{}: a weight group with magnitude {} needs a scale beyond f16", problem.name, absmax);
  return bits;
}

uint16_t gptq_scale(const RoundingProblem& problem, std::span<const float> group) {
  const float absmax = format::absmax(group);
  return stored_scale(problem, 2.0f * absmax * clip_of(problem) / 15.0f, absmax);
}

// Columns [begin, end) of one row: rounds, compensates the columns up to `end`, notes each column's
// error.
struct RowState {
  float* weight;     // [k]
  float* errors;     // [kColumns]
  int8_t* codes;     // [normal.size]
  uint16_t* scales;  // [groups]
  float scale = 1.0f;
};

void round_columns(const RoundingProblem& problem, int begin, int end, RowState& row) {
  const int group = format::group_size(problem.normal.format, problem.normal.size);
  const size_t k = static_cast<size_t>(problem.k);
  float inverse = 1.0f / row.scale;
  for (int i = begin; i < end; ++i) {
    if (i % group == 0) {
      const int size = std::min(group, problem.normal.size - i);
      const uint16_t bits = gptq_scale(problem, {row.weight + i, static_cast<size_t>(size)});
      row.scales[i / group] = bits;
      row.scale = format::f16_to_f32(bits);
      inverse = 1.0f / row.scale;
    }
    const int code =
        format::quantize_code(row.weight[i], inverse, format::Int4::kLow, format::Int4::kHigh);
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
  out.scales.resize(n * static_cast<size_t>(format::groups(problem.normal.format, normal)));
  out.rest.resize(n * static_cast<size_t>(problem.k - normal));
  return out;
}

Rounded round_nearest(const RoundingProblem& problem) {
  Rounded out = make_rounded(problem);
  const int normal = problem.normal.size;
  const int group = format::group_size(problem.normal.format, normal);
  const int groups = format::groups(problem.normal.format, normal);
  const float factor = clip_of(problem) / 7.0f;
  for (int r = 0; r < problem.n; ++r) {
    const float* weight = problem.weight + int64_t{r} * problem.k;
    for (int g = 0; g < groups; ++g) {
      const int begin = g * group;
      const std::span<const float> values(weight + begin,
                                          static_cast<size_t>(std::min(group, normal - begin)));
      const float absmax = format::absmax(values);
      const uint16_t bits = stored_scale(problem, absmax * factor, absmax);
      out.scales[static_cast<size_t>(int64_t{r} * groups + g)] = bits;
      format::quantize_group(values, format::f16_to_f32(bits), format::Int4{},
                             out.codes.data() + int64_t{r} * normal + begin);
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

  std::vector<float> errors(static_cast<size_t>(rows) * kColumns);
  std::vector<float> scale(static_cast<size_t>(rows), 1.0f);  // of the group that a row is in
  for (int first = 0; first < normal; first += kColumns) {
    const int last = std::min(first + kColumns, normal);
    for (int r = 0; r < rows; ++r) {
      RowState row{.weight = weight.data() + int64_t{r} * k,
                   .errors = errors.data() + int64_t{r} * kColumns,
                   .codes = out.codes.data() + int64_t{begin + r} * normal,
                   .scales = out.scales.data() + int64_t{begin + r} * groups,
                   .scale = scale[static_cast<size_t>(r)]};
      round_columns(problem, first, last, row);
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
