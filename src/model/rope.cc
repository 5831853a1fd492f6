#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace atom::model {
namespace {

// Low frequencies (few turns over the original length) become slower by the factor, high ones stay, those between are
// mixed.
float llama3(float frequency, const RopeScaling& scaling) {
  const auto length = static_cast<float>(scaling.original_positions);
  const auto low = static_cast<float>(scaling.low_frequency_factor);
  const auto high = static_cast<float>(scaling.high_frequency_factor);
  const auto factor = static_cast<float>(scaling.factor);
  const float wavelength = 2 * std::numbers::pi_v<float> / frequency;
  if (wavelength > length / low) return frequency / factor;
  if (wavelength < length / high) return frequency;
  const float smooth = (length / wavelength - low) / (high - low);
  return (1 - smooth) * frequency / factor + smooth * frequency;
}

// The pair (not rounded) that makes `turns` over the original length.
double pair_of(double turns, const ModelConfig& config) {
  const double length = config.rope_scaling.original_positions;
  return config.head_dim * std::log(length / (turns * 2 * std::numbers::pi)) /
         (2 * std::log(config.rope_theta));
}

// Pairs that turn fast stay, slow ones become slower by the factor, with a ramp between.
float yarn(float frequency, int pair, const ModelConfig& config) {
  const RopeScaling& scaling = config.rope_scaling;
  double low = pair_of(scaling.beta_fast, config), high = pair_of(scaling.beta_slow, config);
  if (scaling.truncate) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0);
  high = std::min(high, config.head_dim - 1.0);
  if (low == high) high += 0.001;  // no division by 0
  const float ramp =
      (static_cast<float>(pair) - static_cast<float>(low)) / static_cast<float>(high - low);
  const float stays = 1 - std::clamp(ramp, 0.0f, 1.0f);
  return frequency / static_cast<float>(scaling.factor) * (1 - stays) + frequency * stays;
}

float scaled(float frequency, int pair, const ModelConfig& config) {
  const RopeScaling& scaling = config.rope_scaling;
  if (scaling.kind == RopeScaling::Kind::kLinear)
    return frequency / static_cast<float>(scaling.factor);
  if (scaling.kind == RopeScaling::Kind::kLlama3) return llama3(frequency, scaling);
  if (scaling.kind == RopeScaling::Kind::kYarn) return yarn(frequency, pair, config);
  return frequency;
}

// NTK-aware scaling (transformers' formula): the lowest frequency becomes slower by factor * length / original -
// (factor - 1), the highest stays.
double base_of(const ModelConfig& config) {
  const RopeScaling& scaling = config.rope_scaling;
  if (scaling.kind != RopeScaling::Kind::kDynamic) return config.rope_theta;
  const double length = static_cast<double>(scaling.dynamic_positions) / scaling.original_positions;
  const double slower = scaling.factor * length - (scaling.factor - 1);
  return config.rope_theta * std::pow(slower, config.head_dim / (config.head_dim - 2.0));
}

}  // namespace

std::vector<float> rope_frequencies(const ModelConfig& config) {
  std::vector<float> out(static_cast<size_t>(config.head_dim / 2));
  const double base = base_of(config);
  for (int i = 0; i < config.head_dim / 2; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(config.head_dim);
    const float period = static_cast<float>(std::pow(base, double{exponent}));
    const float slower = config.rope_scaling.kind == RopeScaling::Kind::kLongrope
                             ? static_cast<float>(config.rope_scaling.pair_factors[i])
                             : 1.0f;
    out[static_cast<size_t>(i)] = scaled(1.0f / (slower * period), i, config);
  }
  return out;
}

RopeTables make_rope_tables(const ModelConfig& config, int positions) {
  const int half = config.head_dim / 2;
  const auto factor = static_cast<float>(config.rope_scaling.attention_factor);
  const std::vector<float> frequencies = rope_frequencies(config);
  RopeTables out;
  out.cos.resize(static_cast<size_t>(positions) * half);
  out.sin.resize(out.cos.size());
  for (int i = 0; i < half; ++i) {
    for (int p = 0; p < positions; ++p) {
      const float angle = static_cast<float>(p) * frequencies[static_cast<size_t>(i)];
      const size_t at = static_cast<size_t>(p) * half + i;
      out.cos[at] = static_cast<float>(std::cos(double{angle})) * factor;
      out.sin[at] = static_cast<float>(std::sin(double{angle})) * factor;
    }
  }
  return out;
}

}  // namespace atom::model
