// Which numbers a checkpoint holds: the formats of each linear and its input, per layer, and of the
// KV-cache. Lives in config.json as `quantization_config` (docs/formats.md): quant_method
// "compressed-tensors" where that vocabulary can express the scheme, else "atom" in the same key
// style.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "format/format.h"
#include "format/linear_format.h"
#include "model/config.h"

namespace atom::model {

// Formats of one linear; sizes of the segments are given by k and `kept`.
struct LinearScheme {
  format::Format weight;  // normal segment; f32 stands for "as in the source" (16-bit)
  format::Format input = format::kF32;
  format::Format kept_weight;  // kept segment, when kept > 0
  format::Format kept_input = format::kF32;
  int kept = 0;       // channels
  float clip = 1.0f;  // of int4 inputs
  bool signed_scales =
      false;  // of int4 inputs: the scale takes the sign of the extreme value (backend::InputSpec)
  int hadamard = 0;  // block length of the input's Hadamard transform (backend::InputSpec); 0: none

  bool operator==(const LinearScheme&) const = default;
};

format::Segments weight_segments(const LinearScheme& scheme, int k);
format::Segments input_segments(const LinearScheme& scheme, int k);

inline constexpr std::string_view kKeyOffset = "self_attn.key_offset";  // [kv_heads * head_dim]
inline constexpr std::string_view kStreamBasis =
    "model.stream_basis";  // module of Q [hidden, hidden]

struct Scheme {
  bool quantized = false;                       // false: a plain Hugging Face checkpoint
  std::map<std::string, LinearScheme> linears;  // by module name; absent: 16 bits as in the source
  std::vector<format::KvKind> kv;               // one per layer
  int qk_hadamard = 0;                          // block length of the transform of Q and K; 0: none
  float kv_clip = 1.0f;     // of int4 sides of KV-caches (backend::AttentionArgs)
  bool open_page = false;   // of KV-caches with an int4 side (format::KvLayout)
  bool key_offset = false;  // every layer has the tensor kKeyOffset
  // The layers' stream is h Q, embedding and head are of h: the model has the tensor kStreamBasis.
  bool stream_basis = false;
  bool compressed_tensors_names = false;  // tensor names of the compressed-tensors dialect

  // Scheme of a module, nullptr when it is not quantized.
  const LinearScheme* find(const std::string& module) const;
};

// Full module names of layer `layer`: "model.layers.3.mlp.down_proj".
std::string module_name(int layer, std::string_view below);
std::string expert_module_name(int layer, std::string_view pattern, int expert);
// Every quantizable linear of the model (router and head not counted).
std::vector<std::string> linear_modules(const ModelConfig& config);

// `quantization_config` of a checkpoint; `config_json` is the whole config.json. Without one the
// scheme is plain with the KV format `plain_kv`. Error: other quant_methods, unknown keys that
// change the meaning, bad values.
Scheme parse_scheme(const Json& config_json, const ModelConfig& config, format::KvKind plain_kv,
                    std::string_view source);

// The value of `quantization_config`.
Json scheme_json(const Scheme& scheme, const ModelConfig& config);

}  // namespace atom::model
