#include "quantizer/clip.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "format/quantize.h"
#include "model/fp4_checkpoint.h"

namespace atom::quantizer {
namespace {

constexpr int kCalibrationRows =
    2048;                          // calibration tokens that choose the clips of a layer's inputs
constexpr int kSampleRows = 1024;  // of one input

template <typename Element>
double group_error(std::span<const float> x, float scale, std::span<const float> importance) {
  const float inverse = 1.0f / scale;
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const int code = format::code_of<Element>(x[i], inverse);
    const double error = x[i] - scale * static_cast<float>(code);
    sum += error * error * (importance.empty() ? 1.0 : double{importance[i]});
  }
  return sum;
}

// The clip in 0.5 .. 1, or also -1 .. -0.5, whose scale(clip) rounds the group best; ties: the larger.
template <typename Element, typename ScaleOf>
float best_of_clips(std::span<const float> group, std::span<const float> importance,
                    bool both_signs, const ScaleOf& scale_of) {
  float best = 1.0f;
  double least = std::numeric_limits<double>::infinity();
  for (const float sign : {1.0f, -1.0f}) {
    if (sign < 0 && !both_signs) continue;
    for (int percent = 100; percent >= 50; percent -= 5) {
      const float clip = sign * static_cast<float>(percent) / 100.0f, scale = scale_of(clip);
      if (!std::isfinite(scale)) continue;
      const double error = group_error<Element>(group, scale, importance);
      if (error < least) {
        least = error;
        best = clip;
      }
    }
  }
  return best;
}

template <typename Element>
std::vector<float> errors_of(const float* x, int rows, int k, format::Segment normal, float clip,
                             bool signed_scales) {
  const int group = format::group_size(normal.format, normal.size);
  std::vector<float> errors(static_cast<size_t>(rows) * static_cast<size_t>(normal.size));
  for (int r = 0; r < rows; ++r)
    for (int begin = 0; begin < normal.size; begin += group) {
      const int size = std::min(group, normal.size - begin);
      const std::span<const float> values(x + int64_t{r} * k + begin, static_cast<size_t>(size));
      const float scale = signed_scales
                              ? format::signed_int4_scale(format::extreme(values), clip)
                              : format::input_step<Element>(format::absmax(values), clip, 1.0f);
      float* to = errors.data() + int64_t{r} * normal.size + begin;
      for (int i = 0; i < size; ++i)
        to[i] = values[static_cast<size_t>(i)] -
                scale * static_cast<float>(
                            format::code_of<Element>(values[static_cast<size_t>(i)], 1.0f / scale));
    }
  return errors;
}

}  // namespace

std::vector<float> first_columns(const std::vector<const model::LinearTensors*>& linears,
                                 int columns) {
  std::vector<float> out;
  for (const model::LinearTensors* linear : linears) {
    const std::vector<float> w = model::to_f32(*linear);
    for (int64_t r = 0; r < linear->n; ++r)
      out.insert(out.end(), w.begin() + r * linear->k(), w.begin() + r * linear->k() + columns);
  }
  return out;
}

std::vector<float> rounding_errors(const float* x, int rows, int k, format::Segment normal,
                                   float clip, bool signed_scales) {
  const auto errors =
      format::is_e2m1(normal.format) ? errors_of<format::E2M1> : errors_of<format::Int4>;
  return errors(x, rows, k, normal, clip, signed_scales);
}

float searched_clip(std::span<const float> group, float unclipped,
                    std::span<const float> importance, bool both_signs) {
  return best_of_clips<format::Int4>(group, importance, both_signs, [&](float clip) {
    return format::f16_to_f32(format::weight_scale_bits(unclipped * clip));
  });
}

int8_t searched_multiplier(std::span<const float> group, float row_scale,
                           std::span<const float> importance, bool both_signs) {
  const float unclipped = format::absmax(group) / (7.0f * row_scale);
  const int most = std::clamp(static_cast<int>(std::ceil(unclipped)), 1, 15);
  const int least_multiplier = std::clamp(static_cast<int>(unclipped / 2), 1, most);
  int best = most;
  double least = std::numeric_limits<double>::infinity();
  for (const int sign : {1, -1}) {
    if (sign < 0 && !both_signs) continue;
    for (int m = most; m >= least_multiplier; --m) {
      const double error =
          group_error<format::Int4>(group, row_scale * static_cast<float>(sign * m), importance);
      if (error < least) {
        least = error;
        best = sign * m;
      }
    }
  }
  return static_cast<int8_t>(best);
}

float searched_clip(const Fp4Group& group, std::span<const float> importance) {
  const float absmax = format::absmax(group.values);
  return best_of_clips<format::E2M1>(group.values, importance, false, [&](float clip) {
    return format::fp4_scale(group.format, absmax, clip, group.global).step;
  });
}

void InputSample::add(const ObservedInput& input) {
  auto at = std::find_if(inputs_.begin(), inputs_.end(), [&](const Rows& rows) {
    return rows.site == input.site && rows.expert == input.expert;
  });
  if (at == inputs_.end())
    at = inputs_.insert(at, {.site = input.site, .expert = input.expert, .k = input.k, .x = {}});
  const int taken = std::min(input.rows, kSampleRows - at->rows);
  at->x.insert(at->x.end(), input.x, input.x + int64_t{taken} * input.k);
  at->rows += taken;
}

float InputSample::best_clip(SiteKind site, format::Segment normal, bool signed_scales,
                             Readers readers, Solver& solver) const {
  constexpr int kFirst = 70, kStep = 5, kCount = 7;  // percent
  std::vector<double> error(kCount);
  bool any = false;
  for (const Rows& rows : inputs_) {
    if (rows.site != site || rows.rows == 0) continue;
    any = true;
    const auto& linears = readers[static_cast<size_t>(rows.expert)];
    const std::vector<float> weight = first_columns(linears, normal.size);
    const int n = static_cast<int>(weight.size() / static_cast<size_t>(normal.size));
    for (int c = 0; c < kCount; ++c) {
      const float clip = static_cast<float>(kFirst + kStep * c) / 100.0f;
      const std::vector<float> dx =
          rounding_errors(rows.x.data(), rows.rows, rows.k, normal, clip, signed_scales);
      std::vector<float> gram(static_cast<size_t>(normal.size) * static_cast<size_t>(normal.size));
      solver.add_gram(dx.data(), rows.rows, normal.size, gram.data());
      solver.finish_gram(normal.size, gram.data());
      error[static_cast<size_t>(c)] +=
          solver.output_energy(weight.data(), n, normal.size, gram.data());
    }
  }
  if (!any) return 0;
  const auto best = std::min_element(error.rbegin(), error.rend());
  return static_cast<float>(kFirst + kStep * (error.rend() - best - 1)) / 100.0f;
}

void search_input_clips(const ClipTools& tools, model::LayerTensors& tensors,
                        model::Scheme& scheme) {
  model::Site* const sites[] = {&tensors.qkv_input, &tensors.out_input, &tensors.ffn_input,
                                &tensors.down_input};
  constexpr SiteKind kKinds[] = {SiteKind::kQkv, SiteKind::kOut, SiteKind::kFfn, SiteKind::kDown};
  std::vector<std::vector<const model::LinearTensors*>> readers[] = {
      {{&tensors.q, &tensors.k, &tensors.v}}, {{&tensors.out}}, {}, {}};
  for (const model::ExpertTensors& expert : tensors.experts) {
    readers[2].push_back({&expert.gate, &expert.up});
    readers[3].push_back({&expert.down});
  }
  format::Segments wanted[4];
  for (size_t i = 0; i < 4; ++i) {
    wanted[i] = sites[i]->segments;
    for (format::Segment& segment : sites[i]->segments.at) segment.format = format::kF32;
  }
  InputSample sample;
  const std::unique_ptr<model::Layer> layer = model::bind_layer(tools.observing, tensors);
  tools.observing.observe(*layer, [&](const ObservedInput& input) { sample.add(input); });
  tools.windows.sample(*layer, tensors.kv, kCalibrationRows);
  tools.observing.stop();
  for (size_t i = 0; i < 4; ++i) {
    sites[i]->segments = wanted[i];
    const format::Segment normal = wanted[i].at[0];
    if (!model::has_clip(normal.format) || normal.format.group == 0 || normal.size == 0) continue;
    const float clip =
        sample.best_clip(kKinds[i], normal, sites[i]->signed_scales, readers[i], tools.solver);
    if (clip == 0) continue;  // no token came: the clip stays 1
    sites[i]->clip = clip;
    for (const auto& linears : readers[i])
      for (const model::LinearTensors* linear : linears)
        scheme.linears.at(linear->name).clip = clip;
  }
}

}  // namespace atom::quantizer
