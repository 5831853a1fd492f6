// A model folder as the GGUF file that llama.cpp's converter would make of it, for tests: F16, BF16 and F32 as they are, but
// vectors in F32; rows of LLaMA's q and k interleaved; experts stacked.
//
//   write_file_atomically("m.gguf", gguf_of_folder("models/llama"));
#pragma once

#include <array>
#include <cmath>
#include <filesystem>
#include <map>
#include <numbers>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "checkpoint/model_files.h"
#include "checkpoint/raw_gguf.h"

namespace atom::testing {

class GgufOfFolder {
 public:
  explicit GgufOfFolder(const std::filesystem::path& folder)
      : files_(checkpoint::ModelFiles::open(folder)), config_(files_.config()) {
    const std::string family = config_.at("architectures").at(0).get<std::string>();
    architecture_ = family == "Qwen2ForCausalLM"      ? "qwen2"
                    : family == "Qwen3ForCausalLM"    ? "qwen3"
                    : family == "Qwen3MoeForCausalLM" ? "qwen3moe"
                    : family == "Phi3ForCausalLM"     ? "phi3"
                                                      : "llama";
    add_keys();
    add_rope();
    for (const std::string& name : files_.tensor_names()) add_tensor(name);
    for (const auto& [name, stack] : stacks_)
      raw_.tensor_of({.name = name, .dims = stack.dims, .type = stack.type}, stack.data);
  }
  std::string bytes() const { return raw_.bytes(); }

 private:
  struct Stack {
    std::vector<uint64_t> dims;
    uint32_t type = 0;
    std::string data;
  };

  std::string key(const std::string& below) const { return architecture_ + "." + below; }
  int64_t heads() const { return config_.at("num_attention_heads"); }
  int64_t kv_heads() const { return config_.value("num_key_value_heads", heads()); }
  int64_t head_dim() const {
    return config_.value("head_dim", config_.at("hidden_size").get<int64_t>() / heads());
  }

  void add_keys() {
    raw_.text("general.architecture", architecture_);
    constexpr std::array<std::pair<const char*, const char*>, 8> kKeys = {
        {{"max_position_embeddings", "context_length"},
         {"hidden_size", "embedding_length"},
         {"num_hidden_layers", "block_count"},
         {"intermediate_size", "feed_forward_length"},
         {"num_local_experts", "expert_count"},
         {"num_experts", "expert_count"},
         {"num_experts_per_tok", "expert_used_count"},
         {"moe_intermediate_size", "expert_feed_forward_length"}}};
    for (const auto& [from, to] : kKeys)
      if (config_.contains(from)) raw_.u32(key(to), config_.at(from).get<uint32_t>());
    raw_.u32(key("attention.head_count"), static_cast<uint32_t>(heads()));
    raw_.u32(key("attention.head_count_kv"), static_cast<uint32_t>(kv_heads()));
    raw_.u32(key("attention.key_length"), static_cast<uint32_t>(head_dim()));
    raw_.f32(key("attention.layer_norm_rms_epsilon"), config_.at("rms_norm_eps").get<float>());
    if (config_.contains("norm_topk_prob"))
      raw_.boolean(key("expert_weights_norm"), config_.at("norm_topk_prob").get<bool>() ? 1 : 0);
  }

  void add_factors(const std::string& name, const Json& list) {
    std::string data;
    for (const Json& factor : list) data += checkpoint::RawGguf::number(factor.get<float>());
    raw_.tensor_of({.name = name, .dims = {list.size()}}, data);
  }

  // Divisors that "Llama 3.1" gives the frequencies.
  Json llama3_factors(const Json& rope, double theta) const {
    const double factor = rope.at("factor"), low = rope.at("low_freq_factor"),
                 high = rope.at("high_freq_factor"),
                 original = rope.at("original_max_position_embeddings");
    Json out = Json::array();
    for (int64_t i = 0; i < head_dim() / 2; ++i) {
      const double length =
          2 * std::numbers::pi *
          std::pow(theta, 2.0 * static_cast<double>(i) / static_cast<double>(head_dim()));
      const double smooth = (original / length - low) / (high - low);
      out.push_back(length < original / high  ? 1.0
                    : length > original / low ? factor
                                              : 1 / ((1 - smooth) / factor + smooth));
    }
    return out;
  }

  void add_rope() {
    Json rope = Json::object();
    for (const char* name : {"rope_scaling", "rope_parameters"})
      if (config_.contains(name) && config_.at(name).is_object()) rope = config_.at(name);
    const double theta = rope.value("rope_theta", config_.value("rope_theta", 10000.0));
    raw_.f32(key("rope.freq_base"), static_cast<float>(theta));
    const std::string type = rope.value("rope_type", rope.value("type", std::string("default")));
    const char* const original = "original_max_position_embeddings";
    const int64_t length = rope.value(original, config_.value(original, int64_t{0}));
    if (type == "llama3") return add_factors("rope_freqs.weight", llama3_factors(rope, theta));
    if (length > 0)
      raw_.u32(key("rope.scaling.original_context_length"), static_cast<uint32_t>(length));
    if (type == "longrope") {
      add_factors("rope_factors_short.weight", rope.at("short_factor"));
      add_factors("rope_factors_long.weight", rope.at("long_factor"));
    } else if (type != "default") {
      raw_.text(key("rope.scaling.type"), type);
      raw_.f32(key("rope.scaling.factor"), rope.at("factor").get<float>());
    }
  }

  void add_tensor(const std::string& name) {
    const tensor::TensorView view = files_.tensor(name);
    const auto [stored, expert] = stored_name(name);
    std::string data(reinterpret_cast<const char*>(view.bytes.data()), view.bytes.size());
    uint32_t type = view.dtype == tensor::DType::F32   ? 0
                    : view.dtype == tensor::DType::F16 ? 1
                                                       : 30;
    if (view.shape.rank() == 1) {
      type = 0;
      data.clear();
      for (const float value : tensor::widen(view)) data += checkpoint::RawGguf::number(value);
    }
    if (architecture_ == "llama" && stored.find(".attn_q.") != std::string::npos)
      data = interleaved(data, heads());
    if (architecture_ == "llama" && stored.find(".attn_k.") != std::string::npos)
      data = interleaved(data, kv_heads());
    std::vector<uint64_t> dims(view.shape.dims().rbegin(), view.shape.dims().rend());
    if (!expert) return raw_.tensor_of({.name = stored, .dims = dims, .type = type}, data);
    Stack& stack = stacks_[stored];
    if (stack.dims.empty()) stack = {{dims[0], dims[1], 0}, type, ""};
    ++stack.dims[2];
    stack.data += data;
  }

  // Rows 0, half, 1, half + 1, ... of each head.
  std::string interleaved(const std::string& data, int64_t heads) const {
    const auto size = static_cast<size_t>(head_dim());
    const size_t row = data.size() / (static_cast<size_t>(heads) * size);
    std::string out;
    for (size_t i = 0; i < static_cast<size_t>(heads) * size; ++i)
      out += data.substr((i - i % size + i % 2 * (size / 2) + i % size / 2) * row, row);
    return out;
  }

  // The name in the file, and whether the tensor is one of a stack there.
  static std::pair<std::string, bool> stored_name(const std::string& name) {
    if (name == "model.embed_tokens.weight") return {"token_embd.weight", false};
    if (name == "model.norm.weight") return {"output_norm.weight", false};
    if (name == "lm_head.weight") return {"output.weight", false};
    const std::string rest = name.substr(std::string("model.layers.").size());
    const size_t dot = rest.find('.'), last = rest.rfind('.');
    const std::string layer = "blk." + rest.substr(0, dot) + ".", suffix = rest.substr(last);
    const std::string below = rest.substr(dot + 1, last - dot - 1);
    const std::string word = below.substr(below.rfind('.') + 1);
    const std::map<std::string, std::string> words = {{"input_layernorm", "attn_norm"},
                                                      {"post_attention_layernorm", "ffn_norm"},
                                                      {"q_proj", "attn_q"},
                                                      {"k_proj", "attn_k"},
                                                      {"v_proj", "attn_v"},
                                                      {"o_proj", "attn_output"},
                                                      {"q_norm", "attn_q_norm"},
                                                      {"k_norm", "attn_k_norm"},
                                                      {"qkv_proj", "attn_qkv"},
                                                      {"gate_up_proj", "ffn_up"},
                                                      {"gate_proj", "ffn_gate"},
                                                      {"up_proj", "ffn_up"},
                                                      {"down_proj", "ffn_down"},
                                                      {"w1", "ffn_gate"},
                                                      {"w3", "ffn_up"},
                                                      {"w2", "ffn_down"},
                                                      {"gate", "ffn_gate_inp"}};
    const bool expert = below.find(".experts.") != std::string::npos;
    return {layer + words.at(word) + (expert ? "_exps" : "") + suffix, expert};
  }

  checkpoint::ModelFiles files_;
  Json config_;
  std::string architecture_;
  checkpoint::RawGguf raw_;
  std::map<std::string, Stack> stacks_;
};

inline std::string gguf_of_folder(const std::filesystem::path& folder) {
  return GgufOfFolder(folder).bytes();
}

}  // namespace atom::testing
