// The keys of a GGUF file as the config.json that they came from.
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <initializer_list>

#include "base/error.h"
#include "checkpoint/gguf_model.h"
#include "checkpoint/gguf_names.h"

namespace atom::checkpoint {
namespace {

constexpr int64_t kMostOfAKey = int64_t{1} << 30;

constexpr std::array kArchitectures = {
    GgufArchitecture{.name = "llama",
                     .model_type = "llama",
                     .dense = "LlamaForCausalLM",
                     .mixture = "MixtralForCausalLM",
                     .interleaved = true,
                     .router = "block_sparse_moe.gate",
                     .expert_gate = "block_sparse_moe.experts.{}.w1",
                     .expert_up = "block_sparse_moe.experts.{}.w3",
                     .expert_down = "block_sparse_moe.experts.{}.w2",
                     .experts_key = "num_local_experts"},
    GgufArchitecture{.name = "qwen2", .model_type = "qwen2", .dense = "Qwen2ForCausalLM"},
    GgufArchitecture{.name = "qwen3", .model_type = "qwen3", .dense = "Qwen3ForCausalLM"},
    GgufArchitecture{.name = "qwen3moe",
                     .model_type = "qwen3_moe",
                     .mixture = "Qwen3MoeForCausalLM",
                     .router = "mlp.gate",
                     .expert_gate = "mlp.experts.{}.gate_proj",
                     .expert_up = "mlp.experts.{}.up_proj",
                     .expert_down = "mlp.experts.{}.down_proj",
                     .experts_key = "num_experts"},
    GgufArchitecture{
        .name = "phi3", .model_type = "phi3", .dense = "Phi3ForCausalLM", .fused = true}};

constexpr std::array kModules = {GgufModule{"attn_norm", "input_layernorm"},
                                 GgufModule{"attn_q", "self_attn.q_proj"},
                                 GgufModule{"attn_k", "self_attn.k_proj"},
                                 GgufModule{"attn_v", "self_attn.v_proj"},
                                 GgufModule{"attn_output", "self_attn.o_proj"},
                                 GgufModule{"attn_q_norm", "self_attn.q_norm"},
                                 GgufModule{"attn_k_norm", "self_attn.k_norm"},
                                 GgufModule{"ffn_norm", "post_attention_layernorm"},
                                 GgufModule{"ffn_gate", "mlp.gate_proj"},
                                 GgufModule{"ffn_up", "mlp.up_proj"},
                                 GgufModule{"ffn_down", "mlp.down_proj"}};

// Keys of a model's computation that nothing here reads: with another value than these the results
// would be others than the file's.
struct FixedKey {
  std::string_view key;
  double value;
};
constexpr std::array kFixedKeys = {FixedKey{"logit_scale", 1},
                                   FixedKey{"embedding_scale", 1},
                                   FixedKey{"residual_scale", 1},
                                   FixedKey{"attn_logit_softcapping", 0},
                                   FixedKey{"final_logit_softcapping", 0},
                                   FixedKey{"attention.scale", 0},
                                   FixedKey{"attention.max_alibi_bias", 0},
                                   FixedKey{"attention.clamp_kqv", 0},
                                   FixedKey{"expert_shared_count", 0},
                                   FixedKey{"expert_weights_scale", 1},
                                   FixedKey{"expert_gating_func", 1},  // softmax
                                   FixedKey{"leading_dense_block_count", 0},
                                   FixedKey{"nextn_predict_layers", 0},
                                   FixedKey{"rope.scaling.yarn_log_multiplier", 0},
                                   FixedKey{"rope.scaling.yarn_ext_factor", 1},
                                   FixedKey{"rope.scaling.yarn_attn_factor", 1}};

}  // namespace

const GgufArchitecture* find_gguf_architecture(std::string_view name) {
  for (const GgufArchitecture& row : kArchitectures)
    if (row.name == name) return &row;
  return nullptr;
}

const GgufArchitecture* gguf_architecture_of(std::string_view family) {
  if (family == "MistralForCausalLM") family = "LlamaForCausalLM";
  for (const GgufArchitecture& row : kArchitectures)
    if (row.dense == family || row.mixture == family) return &row;
  return nullptr;
}

std::span<const GgufModule> gguf_modules() { return kModules; }

std::string_view module_of_gguf(std::string_view name) {
  for (const auto& [gguf, module] : kModules)
    if (gguf == name) return module;
  return {};
}

std::string_view gguf_architectures() { return "llama, qwen2, qwen3, qwen3moe, phi3"; }

int64_t GgufModel::need(const std::string& key) const {
  const auto value = file_.integer(key, {.min = 1, .max = kMostOfAKey});
  if (!value) file_.refuse_key(key, "it is missing");
  return *value;
}

void GgufModel::read_config() {
  constexpr std::string_view kKey = "general.architecture";
  const std::string_view name = file_.text(kKey).value_or("");
  architecture_ = find_gguf_architecture(name);
  if (architecture_ == nullptr)
    file_.refuse_key(kKey,
                     fmt::format("it must be one of {}, but is '{}'", gguf_architectures(), name));
  const std::string prefix = std::string(name) + ".";
  for (const FixedKey& fixed : kFixedKeys) {
    const std::string key = prefix + std::string(fixed.key);
    if (const auto value = file_.number(key); value && *value != fixed.value)
      file_.refuse_key(key, fmt::format("only {} is supported, but it is {}", fixed.value, *value));
  }
  read_sizes(prefix);
  read_experts(prefix);
  read_rope(prefix);
  read_eos();
}

void GgufModel::read_sizes(std::string_view prefix) {
  const auto key = [&](std::string_view below) { return std::string(prefix) + std::string(below); };
  const auto size = [&](std::string_view below) {
    return file_.integer(key(below), {.min = 1, .max = kMostOfAKey});
  };
  constexpr std::string_view kTable = "token_embd.weight";
  const GgufTensor* table = file_.find(kTable);
  if (table == nullptr) file_.refuse_tensor(kTable, "it is missing");
  if (table->shape.rank() != 2)
    file_.refuse_tensor(
        kTable, fmt::format("it must be a matrix, but has the shape {}", table->shape.to_string()));
  const int64_t hidden = need(key("embedding_length")), heads = need(key("attention.head_count"));
  const int64_t head_dim = size("attention.key_length").value_or(hidden / heads);
  config_ = {{"vocab_size", table->shape[0]},
             {"hidden_size", hidden},
             {"intermediate_size", need(key("feed_forward_length"))},
             {"num_hidden_layers", need(key("block_count"))},
             {"num_attention_heads", heads},
             {"num_key_value_heads", size("attention.head_count_kv").value_or(heads)},
             {"head_dim", head_dim},
             {"hidden_act", "silu"},
             {"max_position_embeddings", need(key("context_length"))}};
  for (const char* same : {"attention.value_length", "rope.dimension_count"})
    if (const int64_t value = size(same).value_or(head_dim); value != head_dim)
      file_.refuse_key(
          key(same), fmt::format("it must be the size of a head, {}, but is {}", head_dim, value));
  const std::string epsilon = key("attention.layer_norm_rms_epsilon");
  const std::optional<double> value = file_.number(epsilon);
  if (!value) file_.refuse_key(epsilon, "it is missing");
  config_["rms_norm_eps"] = *value;
  config_["tie_word_embeddings"] = file_.find("output.weight") == nullptr;
  const auto window =
      file_.integer(key("attention.sliding_window"), {.min = 0, .max = kMostOfAKey});
  if (window.value_or(0) > 0) config_["sliding_window"] = *window;  // Phi-3's files say 0 for none
  if (file_.find("blk.0.attn_q.bias") != nullptr) config_["attention_bias"] = true;
  if (file_.find("blk.0.ffn_down.bias") != nullptr) config_["mlp_bias"] = true;
}

void GgufModel::read_experts(std::string_view prefix) {
  const auto key = [&](std::string_view below) { return std::string(prefix) + std::string(below); };
  const int64_t experts = file_.integer(key("expert_count"), {.min = 0, .max = 65536}).value_or(0);
  const std::string_view family = experts > 0 ? architecture_->mixture : architecture_->dense;
  if (family.empty())
    file_.refuse_key(key("expert_count"),
                     fmt::format("{} experts are not supported with the architecture {}", experts,
                                 architecture_->name));
  config_["architectures"] = Json::array({family});
  config_["model_type"] = architecture_->model_type;
  if (experts == 0) return;
  if (!architecture_->dense.empty()) config_["model_type"] = "mixtral";
  config_[std::string(architecture_->experts_key)] = experts;
  config_["num_experts_per_tok"] = need(key("expert_used_count"));
  constexpr std::string_view kInner = "expert_feed_forward_length";
  if (file_.has(key(kInner))) config_["moe_intermediate_size"] = need(key(kInner));
  // Whether the weights of the chosen experts sum to 1; Mixtral's always do.
  const std::string norm = key("expert_weights_norm");
  const bool sums = file_.boolean(norm).value_or(true);
  if (architecture_->dense.empty()) config_["norm_topk_prob"] = sums;
  if (!architecture_->dense.empty() && !sums) file_.refuse_key(norm, "only true is supported");
}

// Divisors of the frequency of each pair.
std::vector<double> GgufModel::pair_factors(std::string_view name) const {
  const GgufTensor& stored = *file_.find(name);
  const int64_t pairs = config_["head_dim"].get<int64_t>() / 2;
  if (stored.shape.rank() != 1 || stored.shape[0] != pairs ||
      stored.type->dtype != tensor::DType::F32)
    file_.refuse_tensor(name, fmt::format("it must be a vector of {} F32, but is {} {}", pairs,
                                          stored.type->name, stored.shape.to_string()));
  const std::vector<float> values = tensor::widen({tensor::DType::F32, stored.shape, stored.bytes});
  return {values.begin(), values.end()};
}

void GgufModel::read_rope(std::string_view prefix) {
  const auto key = [&](std::string_view below) { return std::string(prefix) + std::string(below); };
  config_["rope_theta"] = file_.number(key("rope.freq_base")).value_or(10000);
  const std::string type_key = key("rope.scaling.type"), strength = key("rope.scaling.attn_factor");
  const std::string type(file_.text(type_key).value_or("none"));
  const std::optional<double> magnitude = file_.number(strength);
  const auto require_type = [&](std::initializer_list<std::string_view> allowed) {
    if (std::find(allowed.begin(), allowed.end(), type) == allowed.end())
      file_.refuse_key(type_key, fmt::format("it must be {} here, but is '{}'",
                                             fmt::join(allowed, " or "), type));
  };
  if (file_.find("rope_freqs.weight") != nullptr) {
    require_type({"none"});
    return read_fixed_factors(magnitude.value_or(1));
  }
  Json scaling = Json::object();
  if (file_.find("rope_factors_short.weight") != nullptr &&
      file_.find("rope_factors_long.weight") != nullptr) {
    require_type({"none", "longrope"});
    scaling = {{"rope_type", "longrope"},
               {"short_factor", pair_factors("rope_factors_short.weight")},
               {"long_factor", pair_factors("rope_factors_long.weight")}};
    if (magnitude) scaling["attention_factor"] = *magnitude;
  } else {
    require_type({"none", "linear", "yarn"});
    if (type != "yarn" && magnitude.value_or(1) != 1)
      file_.refuse_key(strength, fmt::format("only 1 is supported here, but it is {}", *magnitude));
    if (type == "none") return;
    scaling = scaled_rope(key("rope.scaling."), type, magnitude);
  }
  if (const auto original = file_.integer(key("rope.scaling.original_context_length"),
                                          {.min = 1, .max = kMostOfAKey}))
    scaling["original_max_position_embeddings"] = *original;
  config_["rope_scaling"] = std::move(scaling);
}

// The same divisors at every length; nothing changes where all are 1.
void GgufModel::read_fixed_factors(double magnitude) {
  const std::vector<double> factors = pair_factors("rope_freqs.weight");
  if (std::all_of(factors.begin(), factors.end(), [](double x) { return x == 1; })) return;
  config_["rope_scaling"] = {
      {"rope_type", "longrope"},
      {"short_factor", factors},
      {"long_factor", factors},
      {"attention_factor", magnitude},
      {"original_max_position_embeddings", config_["max_position_embeddings"]}};
}

// Linear or yarn. The file's magnitude multiplies the one that yarn gives a factor; Hugging Face's replaces it.
Json GgufModel::scaled_rope(const std::string& prefix, const std::string& type,
                            const std::optional<double>& magnitude) const {
  const std::string key = prefix + "factor";
  const std::optional<double> factor = file_.number(key);
  if (!factor) file_.refuse_key(key, "it is missing");
  Json scaling = {{"rope_type", type}, {"factor", *factor}};
  if (type != "yarn") return scaling;
  for (const char* name : {"beta_fast", "beta_slow"})
    if (const auto value = file_.number(prefix + "yarn_" + name)) scaling[name] = *value;
  if (magnitude.value_or(1) != 1)
    scaling["attention_factor"] = *magnitude * (0.1 * std::log(std::max(*factor, 1.0)) + 1);
  return scaling;
}

// Tokens that end a text, and the one that opens it.
void GgufModel::read_eos() {
  const int64_t ids = config_["vocab_size"].get<int64_t>();
  const auto id = [&](const char* name) {
    return file_.integer(std::string("tokenizer.ggml.") + name, {.min = 0, .max = ids - 1});
  };
  if (const auto bos = id("bos_token_id")) config_["bos_token_id"] = *bos;
  Json list = Json::array();
  for (const char* name : {"eos_token_id", "eot_token_id", "eom_token_id"})
    if (const auto value = id(name);
        value && std::find(list.begin(), list.end(), *value) == list.end())
      list.push_back(*value);
  if (list.size() == 1) config_["eos_token_id"] = list[0];
  if (list.size() > 1) config_["eos_token_id"] = std::move(list);
}

}  // namespace atom::checkpoint
