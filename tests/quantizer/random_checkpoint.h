// A small random checkpoint in a folder, with a few loud channels so that their order matters.
//
//   write_random_checkpoint(folder / "in", {.layers = 2});
//   const auto files = checkpoint::ModelFiles::open(folder / "in");
#pragma once

#include <cmath>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "base/random.h"
#include "checkpoint/safetensors.h"
#include "format/float16.h"

namespace atom::testing {

struct RandomModel {
  int layers = 2;
  int hidden = 64;
  int intermediate = 96;
  int heads = 4;
  int kv_heads = 2;
  int vocabulary = 61;
  int experts = 1;
  bool tied = true;
  bool bias = false;
  std::string nan_tensor;  // gets a NaN as its fourth value
  std::string reshaped;    // gets new_shape, which config.json does not know
  tensor::Shape new_shape;
};

inline Json random_config(const RandomModel& m) {
  Json config{{"architectures", {m.experts > 1 ? "MixtralForCausalLM" : "LlamaForCausalLM"}},
              {"model_type", m.experts > 1 ? "mixtral" : "llama"},
              {"vocab_size", m.vocabulary},
              {"hidden_size", m.hidden},
              {"intermediate_size", m.intermediate},
              {"num_hidden_layers", m.layers},
              {"num_attention_heads", m.heads},
              {"num_key_value_heads", m.kv_heads},
              {"max_position_embeddings", 256},
              {"rms_norm_eps", 1e-5},
              {"tie_word_embeddings", m.tied},
              {"torch_dtype", "bfloat16"}};
  if (m.experts > 1) {
    config["num_local_experts"] = m.experts;
    config["num_experts_per_tok"] = 2;
  }
  return config;
}

class RandomWriter {
 public:
  explicit RandomWriter(const RandomModel& m) : model_(m), random_(11) {}

  void matrix(const std::string& name, int n, int k) { add(name, {n, k}, 1.0 / std::sqrt(k), 0.0); }
  void gain(const std::string& name, int n) {
    add(name, {n}, 0.1, 1.0);
    // Loud channels.
    auto* bits = reinterpret_cast<uint16_t*>(bytes_.back().data());
    for (int i = 3; i < n; i += 17)
      bits[i] = format::f32_to_bf16(16 * format::bf16_to_f32(bits[i]));
  }
  void bias(const std::string& name, int n) { add(name, {n}, 0.1, 0.0); }

  void write(const std::filesystem::path& path) {
    checkpoint::SafetensorsWriter writer(path, infos_, {{"format", "pt"}});
    for (size_t i = 0; i < infos_.size(); ++i) writer.write(infos_[i].name, bytes_[i]);
    writer.commit();
  }

 private:
  void add(const std::string& name, tensor::Shape shape, double deviation, double mean) {
    if (name == model_.reshaped) shape = model_.new_shape;
    std::vector<std::byte> bytes(static_cast<size_t>(shape.elements()) * 2);
    auto* bits = reinterpret_cast<uint16_t*>(bytes.data());
    for (int64_t i = 0; i < shape.elements(); ++i)
      bits[i] = format::f32_to_bf16(static_cast<float>(mean + deviation * random_.normal()));
    if (name == model_.nan_tensor) bits[3] = 0x7fc0;
    infos_.push_back({name, tensor::DType::BF16, shape});
    bytes_.push_back(std::move(bytes));
  }

  RandomModel model_;
  Random random_;
  std::vector<checkpoint::TensorInfo> infos_;
  std::vector<std::vector<std::byte>> bytes_;
};

inline void write_random_checkpoint(const std::filesystem::path& folder, const RandomModel& m) {
  std::filesystem::create_directories(folder);
  write_file_atomically(folder / "config.json", random_config(m).dump(2));
  write_file_atomically(folder / "tokenizer_config.json", "{\"bos_token\": \"<s>\"}");
  const int dim = m.hidden / m.heads;
  RandomWriter w(m);
  w.matrix("model.embed_tokens.weight", m.vocabulary, m.hidden);
  for (int i = 0; i < m.layers; ++i) {
    const std::string at = "model.layers." + std::to_string(i) + ".";
    const auto linear = [&](const std::string& name, int n, int k) {
      w.matrix(at + name + ".weight", n, k);
      if (m.bias) w.bias(at + name + ".bias", n);
    };
    w.gain(at + "input_layernorm.weight", m.hidden);
    w.gain(at + "post_attention_layernorm.weight", m.hidden);
    linear("self_attn.q_proj", m.heads * dim, m.hidden);
    linear("self_attn.k_proj", m.kv_heads * dim, m.hidden);
    linear("self_attn.v_proj", m.kv_heads * dim, m.hidden);
    linear("self_attn.o_proj", m.hidden, m.heads * dim);
    if (m.experts == 1) {
      linear("mlp.gate_proj", m.intermediate, m.hidden);
      linear("mlp.up_proj", m.intermediate, m.hidden);
      linear("mlp.down_proj", m.hidden, m.intermediate);
      continue;
    }
    w.matrix(at + "block_sparse_moe.gate.weight", m.experts, m.hidden);
    for (int e = 0; e < m.experts; ++e) {
      const std::string expert = "block_sparse_moe.experts." + std::to_string(e) + ".";
      linear(expert + "w1", m.intermediate, m.hidden);
      linear(expert + "w3", m.intermediate, m.hidden);
      linear(expert + "w2", m.hidden, m.intermediate);
    }
  }
  w.gain("model.norm.weight", m.hidden);
  if (!m.tied) w.matrix("lm_head.weight", m.vocabulary, m.hidden);
  w.write(folder / "model.safetensors");
}

// Ids of a text, without structure.
inline std::vector<int32_t> random_ids(int count, int vocabulary, uint64_t seed = 5) {
  Random random(seed);
  std::vector<int32_t> ids;
  for (int i = 0; i < count; ++i)
    ids.push_back(static_cast<int32_t>(random.below(static_cast<uint64_t>(vocabulary))));
  return ids;
}

}  // namespace atom::testing
