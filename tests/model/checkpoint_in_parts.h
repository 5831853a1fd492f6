// A small checkpoint whose tensors are changed at will, for tests of what loading refuses.
//
//   Checkpoint checkpoint;
//   checkpoint.quantize_qkv();
//   checkpoint.erase(kK + ".weight_scale");
//   expect_refused(checkpoint, {.message = {kK + ".weight_scale"}});
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <ostream>
#include <string>
#include <vector>

#include "backend/open.h"
#include "base/file.h"
#include "checkpoint/safetensors.h"
#include "format/float16.h"
#include "model/weights.h"
#include "testing/expect_error.h"
#include "testing/temp_folder.h"

namespace atom::model {

using checkpoint::ModelFiles;
using tensor::DType;
using testing::expect_error;
using testing::TempFolder;

inline constexpr int kHidden = 32;
inline constexpr int kVocabulary = 8;
inline constexpr int kKept = 16;
inline const std::string kQ = "model.layers.0.self_attn.q_proj";
inline const std::string kK = "model.layers.0.self_attn.k_proj";
inline const std::string kV = "model.layers.0.self_attn.v_proj";
inline const std::string kOrder = "model.layers.0.self_attn.qkv_input.order";
inline const std::string kEmbedding = "model.embed_tokens.weight";

// One layer of 32 channels, 2 heads of 16, 1 KV head; tensors by name, to be changed at will.
class Checkpoint {
 public:
  Checkpoint() {
    config = {{"architectures", {"LlamaForCausalLM"}},
              {"vocab_size", kVocabulary},
              {"hidden_size", kHidden},
              {"intermediate_size", kHidden},
              {"num_hidden_layers", 1},
              {"num_attention_heads", 2},
              {"num_key_value_heads", 1},
              {"tie_word_embeddings", false}};
    const std::string layer = "model.layers.0.";
    for (const char* name :
         {"self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"})
      floats(layer + name + ".weight", {kHidden, kHidden}, 0.5f);
    floats(kK + ".weight", {16, kHidden}, 0.5f);
    floats(kV + ".weight", {16, kHidden}, 0.5f);
    floats(layer + "input_layernorm.weight", {kHidden}, 1);
    floats(layer + "post_attention_layernorm.weight", {kHidden}, 1);
    floats("model.norm.weight", {kHidden}, 1);
    floats(kEmbedding, {kVocabulary, kHidden}, 0.25f);
    floats("lm_head.weight", {kVocabulary, kHidden}, 0.75f);
  }

  // All elements are `value`.
  void floats(const std::string& name, tensor::Shape shape, float value) {
    put(name, DType::F32, shape,
        std::vector<float>(static_cast<size_t>(shape.elements()), value).data());
  }
  void halves(const std::string& name, tensor::Shape shape, float value) {
    put(name, DType::F16, shape,
        std::vector<uint16_t>(static_cast<size_t>(shape.elements()), format::f32_to_f16(value))
            .data());
  }
  void codes(const std::string& name, tensor::Shape shape, int8_t value) {
    put(name, DType::I8, shape,
        std::vector<int8_t>(static_cast<size_t>(shape.elements()), value).data());
  }
  void bytes(const std::string& name, tensor::Shape shape, uint8_t value) {
    put(name, DType::U8, shape,
        std::vector<uint8_t>(static_cast<size_t>(shape.elements()), value).data());
  }
  void integers(const std::string& name, tensor::Shape shape, const std::vector<int32_t>& values) {
    put(name, DType::I32, shape, values.data());
  }
  template <typename T>
  void set(const std::string& name, size_t at, T value) {
    std::memcpy(tensors_.at(name).bytes.data() + at * sizeof(T), &value, sizeof(T));
  }
  void erase(const std::string& name) { tensors_.erase(name); }

  // q, k and v: int8 with 16 kept channels and an order.
  void quantize_qkv() {
    const Json numbers{{"num_bits", 8}, {"type", "int"}, {"symmetric", true}};
    Json weights = numbers, inputs = numbers;
    weights.update({{"strategy", "channel"}, {"dynamic", false}});
    inputs.update({{"strategy", "token"}, {"dynamic", true}});
    const Json group{{"targets", {kQ, kK, kV}},     {"weights", weights},
                     {"input_activations", inputs}, {"kept_channels", kKept},
                     {"kept_weights", weights},     {"kept_input_activations", inputs}};
    config["quantization_config"] = {{"quant_method", "atom"},
                                     {"version", 1},
                                     {"format", "atom"},
                                     {"config_groups", {{"group_0", group}}}};
    for (const std::string& module : {kQ, kK, kV}) {
      const int n = module == kQ ? kHidden : 16;
      codes(module + ".weight", {n, kHidden - kKept}, -127);
      floats(module + ".weight_scale", {n, 1}, 0.01f);
      codes(module + ".kept_weight", {n, kKept}, 127);
      floats(module + ".kept_scale", {n}, 0.02f);
    }
    std::vector<int32_t> order(kHidden);
    std::iota(order.rbegin(), order.rend(), 0);
    integers(kOrder, {kHidden}, order);
  }
  // The same with progressive int4 weights: value 0.25 * 3 * -8.
  void make_qkv_progressive() {
    quantize_qkv();
    Json& weights = group()["weights"];
    weights["num_bits"] = 4;
    weights["strategy"] = "group";
    weights["group_size"] = 32;
    weights["progressive"] = true;
    for (const std::string& module : {kQ, kK, kV}) {
      const int n = module == kQ ? kHidden : 16;
      erase(module + ".weight");
      erase(module + ".weight_scale");
      integers(module + ".weight_packed", {n, 2}, std::vector<int32_t>(static_cast<size_t>(n) * 2));
      put(module + ".weight_multiplier", DType::I8, {n, 1},
          std::vector<int8_t>(static_cast<size_t>(n), 3).data());
      floats(module + ".weight_row_scale", {n}, 0.25f);
    }
  }
  // The same with nvfp4: value -6 * 3 / 4.
  void make_qkv_nvfp4() {
    quantize_qkv();
    Json number{{"num_bits", 4},     {"type", "float"},  {"strategy", "tensor_group"},
                {"symmetric", true}, {"group_size", 16}, {"scale_dtype", "torch.float8_e4m3fn"},
                {"dynamic", false}};
    group()["weights"] = number;
    number["dynamic"] = true;
    group()["input_activations"] = number;
    for (const std::string& module : {kQ, kK, kV}) {
      const int n = module == kQ ? kHidden : 16;
      erase(module + ".weight");
      bytes(module + ".weight_packed", DType::U8, {n, 8}, 0xff);
      bytes(module + ".weight_scale", DType::F8_E4M3, {n, 1}, 0x44);  // 3
      floats(module + ".weight_global_scale", {1}, 4.0f);
    }
  }
  void bytes(const std::string& name, DType dtype, tensor::Shape shape, uint8_t value) {
    put(name, dtype, shape,
        std::vector<uint8_t>(static_cast<size_t>(shape.elements()), value).data());
  }
  Json& group() { return config["quantization_config"]["config_groups"]["group_0"]; }

  ModelFiles open(const TempFolder& folder) const {
    write_file_atomically(folder / "config.json", config.dump());
    std::vector<checkpoint::TensorInfo> infos;
    for (const auto& [name, tensor] : tensors_) infos.push_back({name, tensor.dtype, tensor.shape});
    checkpoint::SafetensorsWriter writer(folder / "model.safetensors", infos);
    for (const auto& [name, tensor] : tensors_) writer.write(name, tensor.bytes);
    writer.commit();
    return ModelFiles::open(folder.path());
  }

  Json config;

 private:
  struct Tensor {
    DType dtype;
    tensor::Shape shape;
    std::vector<std::byte> bytes;
  };
  void put(const std::string& name, DType dtype, const tensor::Shape& shape, const void* from) {
    Tensor tensor{dtype, shape, std::vector<std::byte>(tensor::byte_size(dtype, shape))};
    std::memcpy(tensor.bytes.data(), from, tensor.bytes.size());
    tensors_.insert_or_assign(name, std::move(tensor));
  }

  std::map<std::string, Tensor> tensors_;
};

inline void load(const Checkpoint& checkpoint) {
  const TempFolder folder;
  const ModelFiles files = checkpoint.open(folder);
  const auto backend = backend::open_backend("reference", {});
  load_model(files, *backend, {});
}

inline LinearTensors head(const Checkpoint& checkpoint) {
  const TempFolder folder;
  const ModelFiles files = checkpoint.open(folder);
  const ModelConfig config = parse_config(files.config(), "config.json");
  return read_head(files, config,
                   parse_scheme(files.config(), config, format::KvKind::kF32, "config.json"));
}

struct Damage {
  const char* name;
  std::function<void(Checkpoint&)> apply;
  std::vector<std::string> message;  // parts of it
};

inline void expect_refused(const Checkpoint& checkpoint, const Damage& damage) {
  for (const std::string& part : damage.message) expect_error([&] { load(checkpoint); }, {part});
}

inline void PrintTo(const Damage& damage, std::ostream* out) { *out << damage.name; }

inline const auto kDamageName = [](const auto& info) { return std::string(info.param.name); };

inline constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
inline constexpr float kInfinity = std::numeric_limits<float>::infinity();

}  // namespace atom::model
