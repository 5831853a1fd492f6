#include "model/rope_config.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace atom::model {
namespace {

using Kind = RopeScaling::Kind;

constexpr double kMostFactor = 1e6;
constexpr double kMostPositions = 1 << 27;  // as max_position_embeddings may be

// The object of `key` that describes full attention; null when the key is absent or null.
const Json* rope_object(const Json& config, const char* key, std::string_view source) {
  const auto it = config.find(key);
  if (it == config.end() || it->is_null()) return nullptr;
  const Json* rope = &*it;
  if (!rope->is_object())
    fail("{}: {} must be an object or null and is {}", source, key, shown_json(*rope));
  if (const auto full = rope->find("full_attention"); full != rope->end() && full->is_object()) {
    if (rope->size() != 1)
      fail("{}: {} with entries beside 'full_attention' is not supported: {}", source, key,
           shown_json(*rope));
    rope = &*full;
  }
  for (const auto& [name, value] : rope->items())
    if (value.is_object()) fail("{}: {} with an entry '{}' is not supported", source, key, name);
  return rope;
}

// "rope_type", or "type" in older files.
std::string type_of(const Json& rope, const char* key, std::string_view source) {
  const std::string old = get_string_or(rope, "type", "", source);
  const std::string type = get_string_or(rope, "rope_type", old, source);
  if (!old.empty() && old != type)
    fail("{}: {} has the rope_type '{}', but the type '{}'", source, key, type, old);
  if (type == "su") return "longrope";  // its first name
  return type.empty() ? "default" : type;
}

// The length that the model was first trained with; beside the other fields, or at the top level (Phi-3's spelling).
int original_positions(const Json& config, const Json& rope, std::string_view source) {
  constexpr const char* kKey = "original_max_position_embeddings";
  const Json& holder = rope.contains(kKey) || !config.contains(kKey) ? rope : config;
  return static_cast<int>(
      get_int(holder, kKey, {.source = source, .min = 1, .max = int64_t{1} << 27}));
}

void read_llama3(const Json& rope, std::string_view source, RopeScaling& out) {
  const NumberField positive{.source = source, .min = 1e-6, .max = kMostFactor};
  out.low_frequency_factor = get_number(rope, "low_freq_factor", positive);
  out.high_frequency_factor = get_number(rope, "high_freq_factor", positive);
  if (!(out.high_frequency_factor > out.low_frequency_factor))
    fail("{}: high_freq_factor {} must be greater than low_freq_factor {}", source,
         out.high_frequency_factor, out.low_frequency_factor);
}

double magnitude(double factor, double scale) {
  return factor <= 1 ? 1 : 0.1 * scale * std::log(factor) + 1;
}

void read_yarn(const Json& rope, std::string_view source, RopeScaling& out) {
  const NumberField positive{.source = source, .min = 1e-6, .max = kMostFactor};
  out.beta_fast = get_number_or(rope, "beta_fast", 32, positive);
  out.beta_slow = get_number_or(rope, "beta_slow", 1, positive);
  if (out.beta_fast < out.beta_slow)
    fail("{}: beta_fast {} must be at least beta_slow {}", source, out.beta_fast, out.beta_slow);
  out.truncate = get_bool_or(rope, "truncate", true, source);
  const double own = get_number_or(rope, "mscale", 0, {.source = source, .min = 0, .max = 1000});
  const double all =
      get_number_or(rope, "mscale_all_dim", 0, {.source = source, .min = 0, .max = 1000});
  const double usual = own > 0 && all > 0 ? magnitude(out.factor, own) / magnitude(out.factor, all)
                                          : magnitude(out.factor, 1);
  out.attention_factor = get_number_or(rope, "attention_factor", usual, positive);
}

// The factors of every pair, of texts up to the original length. Those of longer ones wait for extend_positions().
void read_longrope(const Json& rope, std::string_view source, ModelConfig& config,
                   RopeScaling& out) {
  for (const char* key : {"short_factor", "long_factor"}) {
    const auto list = rope.find(key);
    if (list == rope.end() || !list->is_array() ||
        list->size() != static_cast<size_t>(config.head_dim / 2))
      fail("{}: {} must be a list of {} numbers, half of head_dim, and is {}", source, key,
           config.head_dim / 2, list == rope.end() ? "missing" : shown_json(*list));
    for (const Json& factor : *list)
      if (!factor.is_number() || !(factor.get<double>() >= 1e-6) ||
          factor.get<double>() > kMostFactor)
        fail("{}: {} must hold numbers from 1e-6 to 1e6 and holds {}", source, key,
             shown_json(factor));
  }
  out.pair_factors = rope["short_factor"].get<std::vector<double>>();
  out.long_pair_factors = rope["long_factor"].get<std::vector<double>>();
  const double stated = config.stated_positions, original = out.original_positions;
  const double factor = get_number_or(rope, "factor", stated / original,
                                      {.source = source, .min = 1e-6, .max = kMostFactor});
  const double usual =
      factor <= 1 || original <= 1 ? 1 : std::sqrt(1 + std::log(factor) / std::log(original));
  out.attention_factor = get_number_or(rope, "attention_factor", usual,
                                       {.source = source, .min = 1e-6, .max = kMostFactor});
  config.max_positions = std::min(config.max_positions, out.original_positions);
}

RopeScaling read_scaling(const Json& json, const Json& rope, const char* key,
                         std::string_view source, ModelConfig& config) {
  const std::string type = type_of(rope, key, source);
  RopeScaling out;
  if (type == "default") return out;
  if (type != "linear" && type != "dynamic" && type != "llama3" && type != "yarn" &&
      type != "longrope")
    fail(
        "{}: {} of type '{}' is not supported (only default, linear, dynamic, llama3, yarn, "
        "longrope)",
        source, key, type);
  if (type != "longrope" && rope.contains("short_factor"))
    fail("{}: {} of type '{}' has a short_factor, which belongs to the type 'longrope'", source,
         key, type);
  if (type == "longrope") {
    out.kind = Kind::kLongrope;
    out.original_positions = original_positions(json, rope, source);
    read_longrope(rope, source, config, out);
    return out;
  }
  out.factor = get_number(rope, "factor", {.source = source, .min = 1, .max = kMostFactor});
  if (type == "dynamic") {
    if (config.head_dim < 4)
      fail("{}: head_dim must be at least 4 beside {} of type 'dynamic' and is {}", source, key,
           config.head_dim);
    out.kind = Kind::kDynamic;
    out.original_positions = out.dynamic_positions = config.stated_positions;
    return out;
  }
  out.kind = type == "linear" ? Kind::kLinear : type == "llama3" ? Kind::kLlama3 : Kind::kYarn;
  if (type == "linear") return out;
  out.original_positions = original_positions(json, rope, source);
  if (type == "llama3")
    read_llama3(rope, source, out);
  else
    read_yarn(rope, source, out);
  return out;
}

}  // namespace

void read_rope(const Json& config, std::string_view source, ModelConfig& out) {
  const NumberField theta{.source = source, .min = 1, .max = 1e12};
  const NumberField whole{.source = source, .min = 1, .max = 1};
  bool stated = config.contains("rope_theta"), scaled = false;
  out.rope_theta = get_number_or(config, "rope_theta", 10000.0, theta);
  get_number_or(config, "partial_rotary_factor", 1, whole);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const Json* rope = rope_object(config, key, source);
    if (rope == nullptr) continue;
    const double own = get_number_or(*rope, "rope_theta", out.rope_theta, theta);
    if (stated && own != out.rope_theta)
      fail("{}: the rope_theta {} of {} contradicts the rope_theta {} before it", source, own, key,
           out.rope_theta);
    stated = stated || rope->contains("rope_theta");
    out.rope_theta = own;
    get_number_or(*rope, "partial_rotary_factor", 1, whole);
    const RopeScaling scaling = read_scaling(config, *rope, key, source, out);
    if (scaled && !(scaling == out.rope_scaling))
      fail("{}: {} contradicts rope_scaling: {}", source, key, shown_json(*rope));
    scaled = true;
    out.rope_scaling = scaling;
    if (scaling.kind == Kind::kYarn && !(out.rope_theta > 1))
      fail("{}: rope_theta {} must be greater than 1 beside {} of type 'yarn'", source,
           out.rope_theta, key);
  }
}

int most_positions(const ModelConfig& config) {
  const RopeScaling& rope = config.rope_scaling;
  double most = config.max_positions;
  if (rope.kind == Kind::kLongrope) most = config.stated_positions;
  if (rope.kind == Kind::kLinear) most = config.stated_positions * rope.factor;
  if (rope.kind == Kind::kDynamic || rope.kind == Kind::kYarn)
    most = rope.original_positions * rope.factor;
  return std::max(config.max_positions, static_cast<int>(std::min(most, kMostPositions)));
}

bool extend_positions(ModelConfig& config, int64_t positions) {
  RopeScaling& rope = config.rope_scaling;
  const int most = most_positions(config);
  if (positions <= config.max_positions || config.max_positions == most) return false;
  const bool dynamic = rope.kind == Kind::kDynamic;
  config.max_positions = dynamic ? static_cast<int>(std::min<int64_t>(positions, most)) : most;
  if (rope.kind == Kind::kLongrope) rope.pair_factors = rope.long_pair_factors;
  if (dynamic) rope.dynamic_positions = config.max_positions;
  return dynamic || rope.kind == Kind::kLongrope;
}

}  // namespace atom::model
