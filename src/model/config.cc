#include "model/config.h"

#include <algorithm>

#include "base/error.h"
#include "model/generation_config.h"
#include "model/rope_config.h"

namespace atom::model {
namespace {

// Inputs of a linear (hidden, intermediate, heads * head_dim): products of 8-bit codes are summed in
// s32, and 2^17 * 127 * 127 < 2^31.
constexpr int64_t kMaxSize = int64_t{1} << 17;
constexpr int64_t kMaxCount = int64_t{1} << 16;    // layers, heads, experts
constexpr int64_t kMaxLinears = int64_t{1} << 18;  // of a whole model: 100 MB of names

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
         it == config.end() ? "missing" : shown_json(*it));
  // Programs disagree on which of several counts.
  for (const Json& name : *it)
    if (name != (*it)[0])
      fail("{}: 'architectures' must name one model and is {}", source, shown_json(*it));
  return (*it)[0].get<std::string>();
}

// Not used, since each tensor has its own type; but what is no word comes from a damaged file.
void check_dtype(const Json& config, std::string_view source) {
  for (const char* key : {"torch_dtype", "dtype"}) get_string_or(config, key, "", source);
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

// "layer_types" says it for each layer; window 0: no layer has one.
void read_layer_types(const Json& config, std::string_view source, int window, ModelConfig& out) {
  const auto it = config.find("layer_types");
  if (it == config.end() || it->is_null() || out.family->window == WindowRule::kNone) return;
  const Json& types = *it;
  if (!types.is_array() || types.size() != static_cast<size_t>(out.layers))
    fail("{}: layer_types must be a list of one word for each of the {} layers and is {}", source,
         out.layers, shown_json(types));
  for (size_t i = 0; i < types.size(); ++i) {
    const bool slides = types[i] == "sliding_attention";
    if (!slides && types[i] != "full_attention")
      fail("{}: layer_types of layer {} must be sliding_attention or full_attention and is {}",
           source, i, shown_json(types[i]));
    if (slides && window == 0)
      fail("{}: layer_types of layer {} is sliding_attention, but no sliding_window is in use",
           source, i);
    if (slides || window == 0) continue;
    if (out.family->window != WindowRule::kAskedFrom)
      fail("{}: layer_types of layer {} is full_attention, but all layers of {} have the window",
           source, i, out.family->architecture);
    out.windows[i] = 0;
  }
}

// The window of the layers that have one; 0: none has.
int window_of(const Json& config, std::string_view source, const Family& family) {
  const auto size = config.find("sliding_window");
  const bool null = size != config.end() && size->is_null();
  const int window =
      null || (size == config.end() && family.usual_window == 0)
          ? 0
          : size_field_or(config, "sliding_window", family.usual_window, source, int64_t{1} << 30);
  const bool asked = family.window == WindowRule::kAsked || family.window == WindowRule::kAskedFrom;
  if (asked && !get_bool_or(config, "use_sliding_window", false, source)) return 0;
  if (asked && window == 0)
    fail("{}: use_sliding_window is true, so sliding_window must be a number and is null", source);
  return window;
}

void read_windows(const Json& config, std::string_view source, ModelConfig& out) {
  const WindowRule rule = out.family->window;
  const int window = window_of(config, source, *out.family);
  const bool matters = window > 0 && window < std::max(out.stated_positions, most_positions(out));
  if (matters && rule == WindowRule::kNone)
    fail(
        "{}: sliding_window {} is not supported for {} (must be null or at least "
        "max_position_embeddings {})",
        source, window, out.family->architecture, out.max_positions);
  if (window > 0) out.windows.assign(static_cast<size_t>(out.layers), window);
  if (const auto types = config.find("layer_types");
      rule == WindowRule::kAskedFrom && window > 0 && (types == config.end() || types->is_null())) {
    const int64_t first =
        get_int_or(config, "max_window_layers", 28, {.source = source, .min = 0, .max = kMaxCount});
    std::fill_n(out.windows.begin(), std::min<int64_t>(first, out.layers), 0);
  }
  read_layer_types(config, source, window, out);
  if (!matters) out.windows.clear();
}

void require_stated(const Json& config, std::string_view source, const Family& family) {
  if (!family.strict) return;
  const auto stated = [](const Json& object, const char* key) {
    const auto it = object.find(key);
    return it != object.end() && !it->is_null();
  };
  const auto require = [&](bool there, std::string_view key) {
    if (!there)
      fail("{}: the field \"{}\" must be there for {}, because programs disagree on its default",
           source, key, family.architecture);
  };
  for (const char* key : {"num_key_value_heads", "rms_norm_eps"}) require(stated(config, key), key);
  require(!family.qk_norm || stated(config, "head_dim"), "head_dim");
  bool theta = stated(config, "rope_theta");
  if (const auto rope = config.find("rope_parameters"); rope != config.end() && rope->is_object()) {
    theta = theta || stated(*rope, "rope_theta");
    if (const auto full = rope->find("full_attention"); full != rope->end() && full->is_object())
      theta = theta || stated(*full, "rope_theta");
  }
  require(theta, "rope_theta");
}

void read_mixture(const Json& config, std::string_view source, ModelConfig& out) {
  const Family& family = *out.family;
  if (family.experts_key.empty()) return;
  out.experts = size_field(config, family.experts_key, source, kMaxCount);
  out.experts_per_token = size_field(config, "num_experts_per_tok", source, out.experts);
  if (!family.renormalize_key.empty())
    out.renormalize = get_bool_or(config, family.renormalize_key, false, source);
  if (!family.sparse_step) return;
  if (const int64_t step = get_int_or(config, "decoder_sparse_step", 1, {.source = source});
      step != 1)
    fail("{}: decoder_sparse_step {} is not supported (only 1: every layer is a mixture)", source,
         step);
  const auto dense = config.find("mlp_only_layers");
  if (dense != config.end() && !dense->is_null() && *dense != Json::array())
    fail("{}: mlp_only_layers {} is not supported (only []: every layer is a mixture)", source,
         shown_json(*dense));
}

void refuse_unsupported(const Json& config, std::string_view source) {
  const std::string activation = get_string_or(config, "hidden_act", "silu", source);
  if (activation != "silu" && activation != "swish")
    fail("{}: hidden_act '{}' is not supported (only 'silu')", source, activation);
}

}  // namespace

ModelConfig parse_config(const Json& config, std::string_view source) {
  if (!config.is_object()) fail("{}: must be a JSON object and is {}", source, shown_json(config));
  ModelConfig out;
  out.family = &find_family(architecture_of(config, source), source);
  require_stated(config, source, *out.family);
  check_dtype(config, source);
  out.vocabulary = size_field(config, "vocab_size", source, int64_t{1} << 24);
  out.hidden = size_field(config, "hidden_size", source, kMaxSize);
  out.intermediate = size_field(config, out.family->intermediate_key, source, kMaxSize);
  out.layers = size_field(config, "num_hidden_layers", source, kMaxCount);
  out.heads = size_field(config, "num_attention_heads", source, kMaxCount);
  out.kv_heads = size_field_or(config, "num_key_value_heads", out.heads, source, kMaxCount);
  out.stated_positions =
      size_field_or(config, "max_position_embeddings", 2048, source, int64_t{1} << 27);
  out.max_positions = out.stated_positions;
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
  read_mixture(config, source, out);
  check_products(source, out);
  read_rope(config, source, out);
  out.eos_ids = parse_eos_ids(config, out.vocabulary, source);
  read_windows(config, source, out);
  refuse_unsupported(config, source);
  return out;
}

}  // namespace atom::model
