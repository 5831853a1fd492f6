#include "model/plain_tensors.h"

#include "base/error.h"
#include "model/scheme.h"

namespace atom::model {
namespace {

constexpr const char* kEmbedding = "model.embed_tokens.weight";
constexpr const char* kHead = "lm_head.weight";

class Headers {
 public:
  explicit Headers(const checkpoint::ModelFiles& files) : files_(files) {}

  void require(const std::string& name, const tensor::Shape& shape) const {
    const checkpoint::TensorHeader view = files_.header(name);
    if (!(view.shape == shape))
      fail("{}: tensor '{}' must have shape {} by config.json and has {}", files_.folder().string(),
           name, shape.to_string(), view.shape.to_string());
    if (!tensor::is_floating(view.dtype))
      fail("{}: tensor '{}' must be F32, F16 or BF16 and is {}", files_.folder().string(), name,
           tensor::dtype_name(view.dtype));
  }

  void linear(const std::string& module, int n, int k) const {
    require(module + ".weight", {n, k});
    if (files_.has(module + ".bias")) require(module + ".bias", {n});
  }

 private:
  const checkpoint::ModelFiles& files_;
};

void require_layer(const Headers& headers, const ModelConfig& config, int index) {
  const auto module = [&](std::string_view below) { return module_name(index, below); };
  const Family& family = *config.family;
  const int kv_size = config.kv_heads * config.head_dim;
  headers.require(module("input_layernorm.weight"), {config.hidden});
  headers.require(module("post_attention_layernorm.weight"), {config.hidden});
  if (family.qk_norm)
    for (const char* norm : {"self_attn.q_norm.weight", "self_attn.k_norm.weight"})
      headers.require(module(norm), {config.head_dim});
  if (family.qkv_bias) {
    headers.require(module("self_attn.q_proj.bias"), {config.attention_size()});
    headers.require(module("self_attn.k_proj.bias"), {kv_size});
    headers.require(module("self_attn.v_proj.bias"), {kv_size});
  }
  headers.linear(module("self_attn.q_proj"), config.attention_size(), config.hidden);
  headers.linear(module("self_attn.k_proj"), kv_size, config.hidden);
  headers.linear(module("self_attn.v_proj"), kv_size, config.hidden);
  headers.linear(module("self_attn.o_proj"), config.hidden, config.attention_size());
  if (config.mixture()) headers.linear(module(family.router), config.experts, config.hidden);
  for (int e = 0; e < config.experts; ++e) {
    const auto expert = [&](std::string_view pattern) {
      return expert_module_name(index, pattern, e);
    };
    headers.linear(expert(family.gate), config.intermediate, config.hidden);
    headers.linear(expert(family.up), config.intermediate, config.hidden);
    headers.linear(expert(family.down), config.hidden, config.intermediate);
  }
}

}  // namespace

std::string embedding_tensor(const checkpoint::ModelFiles& files, const ModelConfig& config) {
  return !files.has(kEmbedding) && config.tied_embeddings && files.has(kHead) ? kHead : kEmbedding;
}

bool has_own_head(const checkpoint::ModelFiles& files, const ModelConfig& config) {
  return files.has(kHead) && (!config.tied_embeddings || !files.has(kEmbedding));
}

void require_plain_tensors(const checkpoint::ModelFiles& files, const ModelConfig& config) {
  const Headers headers(files);
  headers.require(embedding_tensor(files, config), {config.vocabulary, config.hidden});
  headers.require("model.norm.weight", {config.hidden});
  if (!config.tied_embeddings && !files.has(kHead))
    fail("{}: tensor '{}' is missing and tie_word_embeddings is false", files.folder().string(),
         kHead);
  if (has_own_head(files, config)) headers.require(kHead, {config.vocabulary, config.hidden});
  for (int i = 0; i < config.layers; ++i) require_layer(headers, config, i);
}

}  // namespace atom::model
