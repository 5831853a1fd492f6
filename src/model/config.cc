#include "model/config.h"

#include <cmath>

#include "base/error.h"
#include "model/generation_config.h"

namespace atom::model {
namespace {

// Inputs of a linear (hidden, intermediate, heads * head_dim): products of 8-bit codes are summed in
// s32, and 2^17 * 127 * 127 < 2^31.
constexpr int64_t kMaxSize = int64_t{1} << 17;
constexpr int64_t kMaxCount = int64_t{1} << 16;    // layers, heads, experts
constexpr int64_t kMaxLinears = int64_t{1} << 20;  // of a whole model

int size_field(const Json& config, std::string_view key, std::string_view source, int64_t max) {
  return static_cast<int>(get_int(config, key, {.source = source, .min = 1, .max = max}));
}

int size_field_or(const Json& config, std::string_view key, int otherwise, std::string_view source,
                  int64_t max) {
  return static_cast<int>(
      get_int_or(config, key, otherwise, {.source = source, .min = 1, .max = max}));
}

std::string architecture_of(const Json& config, std::string_view source) {
  const auto it = config.find("architectures");
  if (it == config.end() || !it->is_array() || it->empty() || !(*it)[0].is_string())
    fail("{}: 'architectures' must be a list of names and is {}", source,
         it == config.end() ? "missing" : it->dump().substr(0, 60));
  return (*it)[0].get<std::string>();
}

// The object of `key` that describes full attention; null when the key is absent or null.
const Json* rope_object(const Json& config, const char* key, std::string_view source) {
  const auto it = config.find(key);
  if (it == config.end() || it->is_null()) return nullptr;
  const Json* rope = &*it;
  if (!rope->is_object())
    fail("{}: {} must be an object or null and is {}", source, key, rope->dump().substr(0, 60));
  if (const auto full = rope->find("full_attention"); full != rope->end() && full->is_object()) {
    if (rope->size() != 1)
      fail("{}: {} with entries beside 'full_attention' is not supported: {}", source, key,
           rope->dump().substr(0, 120));
    rope = &*full;
  }
  for (const auto& [name, value] : rope->items())
    if (value.is_object()) fail("{}: {} with an entry '{}' is not supported", source, key, name);
  return rope;
}

// rope_theta + rope_scaling (older) or rope_parameters (newer; may also nest under
// "full_attention").
void read_rope(const Json& config, std::string_view source, ModelConfig& out) {
  const NumberField theta{.source = source, .min = 1, .max = 1e12};
  out.rope_theta = get_number_or(config, "rope_theta", 10000.0, theta);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const Json* rope = rope_object(config, key, source);
    if (rope == nullptr) continue;
    out.rope_theta = get_number_or(*rope, "rope_theta", out.rope_theta, theta);
    for (const char* word : {"rope_type", "type"})
      if (const std::string type = get_string_or(*rope, word, "default", source); type != "default")
        fail("{}: {} of type '{}' is not supported (only 'default')", source, key, type);
  }
}

// The input of o_proj, and how many linears there are in all.
void check_products(std::string_view source, const ModelConfig& config) {
  const int64_t attention = int64_t{config.heads} * config.head_dim;
  if (attention > kMaxSize)
    fail("{}: num_attention_heads {} of head_dim {} give {} channels, more than {}", source,
         config.heads, config.head_dim, attention, kMaxSize);
  const int64_t linears = config.layers * (4 + 3 * int64_t{config.experts});
  if (linears > kMaxLinears)
    fail("{}: num_hidden_layers {} with {} experts each give {} linears, more than {}", source,
         config.layers, config.experts, linears, kMaxLinears);
}

void refuse_unsupported(const Json& config, std::string_view source, const ModelConfig& out) {
  const std::string activation = get_string_or(config, "hidden_act", "silu", source);
  if (activation != "silu" && activation != "swish")
    fail("{}: hidden_act '{}' is not supported (only 'silu')", source, activation);
  const auto window = config.find("sliding_window");
  if (window != config.end() && window->is_number() && window->get<double>() < out.max_positions)
    fail(
        "{}: sliding_window {} is not supported (must be null or at least max_position_embeddings "
        "{})",
        source, window->dump(), out.max_positions);
}

}  // namespace

ModelConfig parse_config(const Json& config, std::string_view source) {
  if (!config.is_object()) fail("{}: must be a JSON object", source);
  ModelConfig out;
  out.family = &find_family(architecture_of(config, source), source);
  out.vocabulary = size_field(config, "vocab_size", source, int64_t{1} << 24);
  out.hidden = size_field(config, "hidden_size", source, kMaxSize);
  out.intermediate = size_field(config, "intermediate_size", source, kMaxSize);
  out.layers = size_field(config, "num_hidden_layers", source, kMaxCount);
  out.heads = size_field(config, "num_attention_heads", source, kMaxCount);
  out.kv_heads = size_field_or(config, "num_key_value_heads", out.heads, source, kMaxCount);
  out.max_positions =
      size_field_or(config, "max_position_embeddings", 2048, source, int64_t{1} << 27);
  if (out.heads % out.kv_heads != 0)
    fail("{}: num_attention_heads {} must be a multiple of num_key_value_heads {}", source,
         out.heads, out.kv_heads);
  const auto head_dim = config.find("head_dim");
  if (head_dim != config.end() && !head_dim->is_null()) {
    out.head_dim = size_field(config, "head_dim", source, 4096);
  } else {
    if (out.hidden % out.heads != 0)
      fail(
          "{}: hidden_size {} must be a multiple of num_attention_heads {} when head_dim is absent",
          source, out.hidden, out.heads);
    out.head_dim = out.hidden / out.heads;
  }
  if (out.head_dim % 2 != 0) fail("{}: head_dim {} must be even", source, out.head_dim);
  out.norm_epsilon = static_cast<float>(
      get_number_or(config, "rms_norm_eps", 1e-6, {.source = source, .min = 0, .max = 1}));
  out.tied_embeddings = get_bool_or(config, "tie_word_embeddings", false, source);
  if (!out.family->experts_key.empty()) {
    out.experts = size_field(config, out.family->experts_key, source, kMaxCount);
    out.experts_per_token = size_field(config, "num_experts_per_tok", source, out.experts);
  }
  check_products(source, out);
  read_rope(config, source, out);
  out.eos_ids = parse_eos_ids(config, out.vocabulary, source);
  refuse_unsupported(config, source, out);
  return out;
}

}  // namespace atom::model
