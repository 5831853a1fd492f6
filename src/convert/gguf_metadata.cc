#include "convert/gguf_metadata.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "model/rope.h"

namespace atom::convert {
namespace {

using Kind = model::RopeScaling::Kind;

uint32_t unsigned_of(int value) { return static_cast<uint32_t>(value); }

// Adds keys below the name of the architecture.
class Below {
 public:
  Below(const GgufSource& source, checkpoint::GgufKeys& keys) : source_(source), keys_(keys) {}
  void u32(const char* key, int value) { keys_.u32(name(key), unsigned_of(value)); }
  void f32(const char* key, double value) { keys_.f32(name(key), static_cast<float>(value)); }
  void text(const char* key, std::string_view value) { keys_.text(name(key), value); }
  void boolean(const char* key, bool value) { keys_.boolean(name(key), value); }

 private:
  std::string name(const char* key) const {
    return std::string(source_.architecture->name) + "." + key;
  }
  const GgufSource& source_;
  checkpoint::GgufKeys& keys_;
};

uint32_t file_type(std::string_view type) {
  return type == "F32" ? 0 : type == "F16" ? 1 : type == "Q8_0" ? 7 : 32;  // the last: BF16
}

bool is_phi3(const GgufSource& source) { return source.architecture->fused; }

void add_sizes(const GgufSource& source, Below& keys) {
  const model::ModelConfig& config = *source.config;
  keys.u32("vocab_size", config.vocabulary);
  keys.u32("context_length", config.stated_positions);
  keys.u32("embedding_length", config.hidden);
  keys.u32("block_count", config.layers);
  const bool inner = config.family->intermediate_key != "intermediate_size";
  const int64_t outer = get_int_or(*source.json, "intermediate_size", config.intermediate,
                                   {.source = source.source, .min = 1, .max = INT32_MAX});
  keys.u32("feed_forward_length", inner ? static_cast<int>(outer) : config.intermediate);
  if (inner) keys.u32("expert_feed_forward_length", config.intermediate);
  keys.u32("attention.head_count", config.heads);
  keys.u32("attention.head_count_kv", config.kv_heads);
  keys.u32("attention.key_length", config.head_dim);
  keys.u32("attention.value_length", config.head_dim);
  keys.f32("attention.layer_norm_rms_epsilon", double{config.norm_epsilon});
  if (config.family->experts_key.empty()) return;
  keys.u32("expert_count", config.experts);
  keys.u32("expert_used_count", config.experts_per_token);
  if (!config.family->renormalize_key.empty())
    keys.boolean("expert_weights_norm", config.renormalize);
}

void add_window(const GgufSource& source, Below& keys) {
  const std::vector<int>& windows = source.config->windows;
  if (is_phi3(source)) return keys.u32("attention.sliding_window", source.config->window(0));
  if (windows.empty()) return;
  fail("{}: sliding_window {} has no key in a GGUF file of the architecture {}", source.source,
       *std::max_element(windows.begin(), windows.end()), source.architecture->name);
}

// The factors do not depend on the length of a text.
bool is_fixed(const GgufSource& source) {
  const model::RopeScaling& rope = source.config->rope_scaling;
  if (rope.kind == Kind::kLlama3) return true;
  if (rope.kind != Kind::kLongrope || is_phi3(source)) return false;
  return rope.original_positions == source.config->stated_positions;
}

void add_yarn(const model::RopeScaling& rope, std::string_view source, Below& keys) {
  if (!rope.truncate) fail("{}: truncate false of RoPE's type yarn has no key in GGUF", source);
  keys.f32("rope.scaling.factor", rope.factor);
  keys.u32("rope.scaling.original_context_length", rope.original_positions);
  if (rope.beta_fast != 32) keys.f32("rope.scaling.yarn_beta_fast", rope.beta_fast);
  if (rope.beta_slow != 1) keys.f32("rope.scaling.yarn_beta_slow", rope.beta_slow);
  // The key multiplies what the factor gives; config.json's attention_factor replaces it.
  const double magnitude = rope.attention_factor / (0.1 * std::log(rope.factor) + 1);
  if (std::abs(magnitude - 1) > 1e-7) keys.f32("rope.scaling.attn_factor", magnitude);
}

void add_rope(const GgufSource& source, Below& keys) {
  const model::RopeScaling& rope = source.config->rope_scaling;
  const std::string_view name = source.architecture->name;
  keys.u32("rope.dimension_count", source.config->head_dim);
  keys.f32("rope.freq_base", source.config->rope_theta);
  // GGUF has no word for dynamic, which changes nothing up to context_length.
  if (rope.kind == Kind::kNone || rope.kind == Kind::kDynamic) return;
  if (rope.kind == Kind::kLinear || rope.kind == Kind::kYarn)
    keys.text("rope.scaling.type", rope.kind == Kind::kLinear ? "linear" : "yarn");
  if (rope.kind == Kind::kLinear) return keys.f32("rope.scaling.factor", rope.factor);
  if (rope.kind == Kind::kYarn) return add_yarn(rope, source.source, keys);
  if (name != "llama" && !is_phi3(source))
    fail("{}: RoPE of the type {} has no tensor in a GGUF file of the architecture {}",
         source.source, rope.kind == Kind::kLlama3 ? "llama3" : "longrope", name);
  if (!is_fixed(source)) {
    if (!is_phi3(source)) keys.text("rope.scaling.type", "longrope");
    keys.u32("rope.scaling.original_context_length", rope.original_positions);
  }
  if (!is_fixed(source) || rope.attention_factor != 1)
    keys.f32("rope.scaling.attn_factor", rope.attention_factor);
}

}  // namespace

const checkpoint::GgufArchitecture& architecture_of(const model::ModelConfig& config,
                                                    std::string_view source) {
  const std::string_view family = config.family->architecture;
  const checkpoint::GgufArchitecture* row = checkpoint::gguf_architecture_of(family);
  if (row == nullptr) fail("{}: GGUF has no architecture for {}", source, family);
  return *row;
}

void add_model_keys(const GgufSource& source, std::string_view type, checkpoint::GgufKeys& keys) {
  keys.text("general.architecture", source.architecture->name);
  keys.text("general.type", "model");
  keys.u32("general.file_type", file_type(type));
  keys.u32("general.quantization_version", 2);
  Below below(source, keys);
  add_sizes(source, below);
  add_window(source, below);
  add_rope(source, below);
}

std::vector<RopeFactors> rope_factors(const GgufSource& source) {
  const model::RopeScaling& rope = source.config->rope_scaling;
  if (rope.kind == Kind::kLlama3) {
    model::ModelConfig plain = *source.config;
    plain.rope_scaling = {};
    std::vector<float> factors = model::rope_frequencies(plain);
    const std::vector<float> scaled = model::rope_frequencies(*source.config);
    for (size_t i = 0; i < factors.size(); ++i) factors[i] /= scaled[i];
    return {{"rope_freqs.weight", factors}};
  }
  if (rope.kind != Kind::kLongrope) return {};
  const std::vector<float> shorter(rope.pair_factors.begin(), rope.pair_factors.end());
  if (is_fixed(source)) return {{"rope_freqs.weight", shorter}};
  const std::vector<float> longer(rope.long_pair_factors.begin(), rope.long_pair_factors.end());
  return {{"rope_factors_long.weight", longer}, {"rope_factors_short.weight", shorter}};
}

}  // namespace atom::convert
