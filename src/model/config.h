// Dimensions and traits of a transformer, read from a Hugging Face config.json.
//
//   const ModelConfig config = parse_config(files.config(), "model/config.json");
//
// Model families are rows of data (families.cc): names of tensors and what the layer contains.
// There is one forward for all of them (forward.h).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace atom::model {

// Names of a layer's tensors below "model.layers.N."; "{}" stands for the expert.
struct Family {
  std::string_view architecture;  // config.json "architectures"[0]
  std::string_view gate;          // SwiGLU gate, up and down of the feed-forward network
  std::string_view up;
  std::string_view down;
  std::string_view router;       // empty: dense
  std::string_view experts_key;  // config.json key of the number of experts; empty: dense
  std::string_view ffn_site;     // names the shared input of gate and up
  bool renormalize = true;       // the weights of the chosen experts sum to 1
};

// Error naming the file and the architecture when no row fits.
const Family& find_family(std::string_view architecture, std::string_view source);

// Architectures that can be read, for messages and `atom doctor`.
std::vector<std::string> supported_architectures();

struct ModelConfig {
  const Family* family = nullptr;
  int vocabulary = 0;
  int hidden = 0;
  int intermediate = 0;  // of one expert, for mixtures
  int layers = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int max_positions = 0;
  float norm_epsilon = 0;
  double rope_theta = 0;
  bool tied_embeddings = false;
  int experts = 1;  // 1: dense
  int experts_per_token = 1;
  std::vector<int> eos_ids;

  int qkv_size() const { return (heads + 2 * kv_heads) * head_dim; }
  int attention_size() const { return heads * head_dim; }
  bool mixture() const { return experts > 1; }
};

// Reads both spellings of RoPE: rope_theta + rope_scaling, and rope_parameters. torch_dtype and
// dtype are not read: each tensor's own type decides. Error: unknown architecture, a field out of
// range, a feature without support (named), inconsistent sizes, more linears than a model has.
ModelConfig parse_config(const Json& config, std::string_view source);

}  // namespace atom::model
