// Dimensions and traits of a transformer, read from a Hugging Face config.json.
//
//   const ModelConfig config = parse_config(files.config(), "model/config.json");
//
// Model families are rows of data (families.cc): names of tensors and what the layer contains.
// There is one forward for all of them (forward.h).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace atom::model {

// Which layers of a family attend to a sliding window of config.json's "sliding_window".
enum class WindowRule : uint8_t {
  kNone,    // the family has none: one that would matter is refused
  kAlways,  // every layer, where sliding_window is a number
  kAsked,   // every layer, where use_sliding_window is true
  kAskedFrom,  // layers from max_window_layers on, or as "layer_types" says, where use_sliding_window is true
};

// Names of a layer's tensors below "model.layers.N."; "{}" stands for the expert.
struct Family {
  std::string_view architecture = {};  // config.json "architectures"[0]
  std::string_view gate = {};          // SwiGLU gate, up and down of the feed-forward network
  std::string_view up = {};
  std::string_view down = {};
  std::string_view router = {};       // empty: dense
  std::string_view experts_key = {};  // config.json key of the number of experts; empty: dense
  std::string_view ffn_site = {};     // names the shared input of gate and up
  // config.json key that says whether the weights of the chosen experts sum to 1; empty: they do
  std::string_view renormalize_key = {};
  std::string_view intermediate_key = "intermediate_size";  // of one expert, for mixtures
  WindowRule window = WindowRule::kNone;
  int usual_window = 0;   // where config.json has no "sliding_window"; 0: then there is none
  bool qkv_bias = false;  // q_proj, k_proj and v_proj must have one; others may have
  bool qk_norm = false;   // q_norm and k_norm: RMSNorm of each head before RoPE
  bool fused = false;     // qkv_proj and gate_up_proj hold the rows of q, k, v and of gate, up
  // Fields whose defaults programs disagree on must be there: num_key_value_heads, rms_norm_eps, rope_theta and, with
  // qk_norm, head_dim.
  bool strict = false;
  bool sparse_step = false;  // decoder_sparse_step and mlp_only_layers can make layers dense
};

// Error naming the file and the architecture when no row fits.
const Family& find_family(std::string_view architecture, std::string_view source);

// Architectures that can be read, for messages and `atom doctor`.
std::vector<std::string> supported_architectures();

// How RoPE's frequencies differ from theta^(-2 i / head_dim) (rope.h).
struct RopeScaling {
  enum class Kind : uint8_t { kNone, kLinear, kDynamic, kLlama3, kYarn, kLongrope };
  Kind kind = Kind::kNone;
  double factor = 1;
  int original_positions = 0;  // all kinds but linear
  int dynamic_positions = 0;   // dynamic: the length whose frequencies all texts get
  double low_frequency_factor = 1, high_frequency_factor = 4;  // llama3
  double beta_fast = 32, beta_slow = 1;                        // yarn
  bool truncate = true;              // yarn: the bounds of the ramp are whole pairs
  std::vector<double> pair_factors;  // longrope: pair i turns 1 / pair_factors[i] times as fast
  std::vector<double> long_pair_factors;  // the same of texts beyond the original length
  double attention_factor = 1;            // yarn, longrope: multiplies cosines and sines
  bool operator==(const RopeScaling&) const = default;
};

struct ModelConfig {
  const Family* family = nullptr;
  int vocabulary = 0;
  int hidden = 0;
  int intermediate = 0;  // of one expert, for mixtures
  int layers = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int max_positions = 0;  // a longer text is refused
  int stated_positions =
      0;  // max_position_embeddings; extend_positions() (rope_config.h) can change max_positions
  float norm_epsilon = 0;
  double rope_theta = 0;
  RopeScaling rope_scaling;
  std::vector<int> windows;  // positions that a query of the layer reads, 0: all; empty: all 0
  bool tied_embeddings = false;
  int experts = 1;  // 1: dense
  int experts_per_token = 1;
  bool renormalize = true;  // the weights of the chosen experts sum to 1
  std::vector<int> eos_ids;

  int qkv_size() const { return (heads + 2 * kv_heads) * head_dim; }
  int attention_size() const { return heads * head_dim; }
  bool mixture() const { return experts > 1; }
  int window(int layer) const { return windows.empty() ? 0 : windows[static_cast<size_t>(layer)]; }
};

// Reads both spellings of RoPE: rope_theta + rope_scaling, and rope_parameters (rope_config.h). torch_dtype and
// dtype must be words and are not used: each tensor's own type decides. Error: unknown architecture, a field out of
// range, a feature without support (named), inconsistent sizes, more linears than a model has.
ModelConfig parse_config(const Json& config, std::string_view source);

}  // namespace atom::model
