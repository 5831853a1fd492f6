// Checkpoints that break a rule, one at a time: each is refused with a sentence that names the
// tensor. The unbroken ones load.
#include "model/weights.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "backend/open.h"
#include "base/file.h"
#include "checkpoint/safetensors.h"
#include "testing/expect_error.h"
#include "testing/temp_folder.h"

namespace atom::model {
namespace {

using checkpoint::ModelFiles;
using tensor::DType;
using testing::expect_error;
using testing::TempFolder;

constexpr int kHidden = 32;
constexpr int kVocabulary = 8;
constexpr int kKept = 16;
const std::string kQ = "model.layers.0.self_attn.q_proj";
const std::string kK = "model.layers.0.self_attn.k_proj";
const std::string kV = "model.layers.0.self_attn.v_proj";
const std::string kOrder = "model.layers.0.self_attn.qkv_input.order";
const std::string kEmbedding = "model.embed_tokens.weight";

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
  void codes(const std::string& name, tensor::Shape shape, int8_t value) {
    put(name, DType::I8, shape,
        std::vector<int8_t>(static_cast<size_t>(shape.elements()), value).data());
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
      put(module + ".weight_multiplier", DType::U8, {n, 1},
          std::vector<uint8_t>(static_cast<size_t>(n), 3).data());
      floats(module + ".weight_row_scale", {n}, 0.25f);
    }
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

void load(const Checkpoint& checkpoint) {
  const TempFolder folder;
  const ModelFiles files = checkpoint.open(folder);
  const auto backend = backend::open_backend("reference", {});
  load_model(files, *backend, {});
}

LinearTensors head(const Checkpoint& checkpoint) {
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

void expect_refused(const Checkpoint& checkpoint, const Damage& damage) {
  for (const std::string& part : damage.message) expect_error([&] { load(checkpoint); }, {part});
}

void PrintTo(const Damage& damage, std::ostream* out) { *out << damage.name; }

const auto kDamageName = [](const auto& info) { return std::string(info.param.name); };

class PlainWeights : public ::testing::TestWithParam<Damage> {};
class QuantizedWeights : public ::testing::TestWithParam<Damage> {};
class ProgressiveWeights : public ::testing::TestWithParam<Damage> {};

TEST_P(PlainWeights, AreRefused) {
  Checkpoint checkpoint;
  ASSERT_NO_THROW(load(checkpoint));
  GetParam().apply(checkpoint);
  expect_refused(checkpoint, GetParam());
}

TEST_P(QuantizedWeights, AreRefused) {
  Checkpoint checkpoint;
  checkpoint.quantize_qkv();
  ASSERT_NO_THROW(load(checkpoint));
  GetParam().apply(checkpoint);
  expect_refused(checkpoint, GetParam());
}

TEST_P(ProgressiveWeights, AreRefused) {
  Checkpoint checkpoint;
  checkpoint.make_qkv_progressive();
  ASSERT_NO_THROW(load(checkpoint));
  GetParam().apply(checkpoint);
  expect_refused(checkpoint, GetParam());
}

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

const Damage kPlain[] = {
    {"Shape",
     [](Checkpoint& c) {
       c.floats(kQ + ".weight", {kHidden, 31}, 0);
     },
     {kQ + ".weight", "[32, 32]", "[32, 31]"}},
    {"Type",
     [](Checkpoint& c) {
       c.integers(kQ + ".weight", {kHidden, kHidden}, std::vector<int32_t>(kHidden * kHidden));
     },
     {kQ + ".weight", "must be F32, F16 or BF16 and is I32"}},
    {"Nan", [](Checkpoint& c) { c.set(kV + ".weight", 77, kNan); }, {kV + ".weight", "nan"}},
    {"NormInfinity",
     [](Checkpoint& c) { c.set("model.norm.weight", 31, -kInfinity); },
     {"model.norm.weight", "-inf"}},
    {"EmbeddingNan", [](Checkpoint& c) { c.set(kEmbedding, 0, kNan); }, {kEmbedding, "nan"}},
    {"BiasShape",
     [](Checkpoint& c) { c.floats(kK + ".bias", {17}, 0); },
     {kK + ".bias", "[16]", "[17]"}},
    {"Missing", [](Checkpoint& c) { c.erase(kK + ".weight"); }, {kK + ".weight"}},
    {"MissingNorm",
     [](Checkpoint& c) { c.erase("model.layers.0.post_attention_layernorm.weight"); },
     {"model.layers.0.post_attention_layernorm.weight"}},
    {"MissingHead",
     [](Checkpoint& c) { c.erase("lm_head.weight"); },
     {"lm_head.weight", "tie_word_embeddings is false"}},
};

const Damage kQuantized[] = {
    {"Code",
     [](Checkpoint& c) { c.set(kQ + ".weight", 511, int8_t{-128}); },
     {"'" + kQ + ".weight' holds the code -128, which is outside -127..127"}},
    {"KeptCode",
     [](Checkpoint& c) { c.set(kV + ".kept_weight", 0, int8_t{-128}); },
     {"'" + kV + ".kept_weight' holds the code -128, which is outside -127..127"}},
    {"CodeType",
     [](Checkpoint& c) {
       c.floats(kQ + ".weight", {kHidden, kHidden - kKept}, 0);
     },
     {kQ + ".weight", "must be I8 and is F32"}},
    {"KeptShape",
     [](Checkpoint& c) {
       c.codes(kQ + ".kept_weight", {kHidden, 15}, 0);
     },
     {kQ + ".kept_weight", "[32, 16]", "[32, 15]"}},
    {"KeptBeyondInputs",
     [](Checkpoint& c) { c.group()["kept_channels"] = 33; },
     {kQ, "kept_channels 33", "32 inputs"}},
    {"ScaleNan",
     [](Checkpoint& c) { c.set(kK + ".weight_scale", 3, kNan); },
     {kK + ".weight_scale", "nan"}},
    {"KeptScaleInfinity",
     [](Checkpoint& c) { c.set(kK + ".kept_scale", 15, kInfinity); },
     {kK + ".kept_scale", "inf"}},
    {"ScaleMissing", [](Checkpoint& c) { c.erase(kV + ".weight_scale"); }, {kV + ".weight_scale"}},
    {"OrderTwice",
     [](Checkpoint& c) { c.set(kOrder, 1, int32_t{31}); },
     {kOrder, "permutation of 0..31", "holds 31 at 1"}},
    {"OrderNegative", [](Checkpoint& c) { c.set(kOrder, 5, int32_t{-1}); }, {kOrder, "-1 at 5"}},
    {"OrderBeyond", [](Checkpoint& c) { c.set(kOrder, 5, int32_t{32}); }, {kOrder, "32 at 5"}},
    {"OrderShape",
     [](Checkpoint& c) {
       c.integers(kOrder, {2}, {1, 0});
     },
     {kOrder, "[32]", "[2]"}},
    {"InputsDisagree",
     [](Checkpoint& c) {
       Json other = c.group();
       c.group()["targets"] = {kQ, kK};
       other["targets"] = {kV};
       other["kept_input_activations"] = nullptr;
       c.config["quantization_config"]["config_groups"]["group_1"] = other;
     },
     {kQ, kV, "share the input 'model.layers.0.self_attn.qkv_input'"}},
};

const Damage kProgressive[] = {
    {"MultiplierZero",
     [](Checkpoint& c) { c.set(kQ + ".weight_multiplier", 31, uint8_t{0}); },
     {"'" + kQ + ".weight_multiplier' holds the multiplier 0, which is outside 1..15"}},
    {"MultiplierBeyond",
     [](Checkpoint& c) { c.set(kV + ".weight_multiplier", 0, uint8_t{16}); },
     {"'" + kV + ".weight_multiplier' holds the multiplier 16, which is outside 1..15"}},
    {"MultiplierType",
     [](Checkpoint& c) {
       c.codes(kQ + ".weight_multiplier", {kHidden, 1}, 1);
     },
     {kQ + ".weight_multiplier", "must be U8 and is I8"}},
    {"MultiplierMissing",
     [](Checkpoint& c) { c.erase(kK + ".weight_multiplier"); },
     {kK + ".weight_multiplier"}},
    {"RowScaleNan",
     [](Checkpoint& c) { c.set(kK + ".weight_row_scale", 3, kNan); },
     {kK + ".weight_row_scale", "nan"}},
    {"RowScaleInfinity",
     [](Checkpoint& c) { c.set(kK + ".weight_row_scale", 3, kInfinity); },
     {kK + ".weight_row_scale", "inf"}},
    {"RowScaleZero",
     [](Checkpoint& c) { c.set(kQ + ".weight_row_scale", 31, 0.0f); },
     {kQ + ".weight_row_scale", "holds 0", "positive"}},
    {"RowScaleNegative",
     [](Checkpoint& c) { c.set(kQ + ".weight_row_scale", 0, -0.5f); },
     {kQ + ".weight_row_scale", "holds -0.5", "positive"}},
    {"RowScaleShape",
     [](Checkpoint& c) {
       c.floats(kQ + ".weight_row_scale", {kHidden, 1}, 1);
     },
     {kQ + ".weight_row_scale", "[32]", "[32, 1]"}},
    {"Int4Input",
     [](Checkpoint& c) {
       c.group()["input_activations"].update(
           {{"num_bits", 4}, {"strategy", "group"}, {"group_size", 32}});
     },
     {"int4.g32.p", "int4.g32"}},
};

INSTANTIATE_TEST_SUITE_P(Progressive, ProgressiveWeights, ::testing::ValuesIn(kProgressive),
                         kDamageName);
INSTANTIATE_TEST_SUITE_P(Plain, PlainWeights, ::testing::ValuesIn(kPlain), kDamageName);
INSTANTIATE_TEST_SUITE_P(Quantized, QuantizedWeights, ::testing::ValuesIn(kQuantized), kDamageName);

TEST(Weights, TheTensorsDecideTheTypeNotTheConfig) {
  for (const char* key : {"torch_dtype", "dtype"}) {
    Checkpoint checkpoint;
    checkpoint.config[key] = "float16";
    const TempFolder folder;
    const ModelFiles files = checkpoint.open(folder);
    const ModelConfig config = parse_config(files.config(), "config.json");
    const LayerTensors layer = read_layer(
        files, config, parse_scheme(files.config(), config, format::KvKind::kF32, "c"), 0);
    EXPECT_EQ(layer.q.segments, format::whole(format::kF32, kHidden)) << key;
    EXPECT_EQ(to_f32(layer.q), std::vector<float>(kHidden * kHidden, 0.5f)) << key;
  }
}

TEST(Weights, MultipliersScaleTheirGroups) {
  Checkpoint checkpoint;
  checkpoint.make_qkv_progressive();
  checkpoint.set(kQ + ".weight_multiplier", 1, uint8_t{15});
  checkpoint.set(kQ + ".weight_row_scale", 2, 3.0f);
  const TempFolder folder;
  const ModelFiles files = checkpoint.open(folder);
  const ModelConfig config = parse_config(files.config(), "config.json");
  const LayerTensors layer =
      read_layer(files, config, parse_scheme(files.config(), config, format::KvKind::kF32, "c"), 0);
  EXPECT_EQ(layer.q.segments.at[0], (format::Segment{format::int4_progressive(32), 16}));
  // 16 values as eight to a word, a multiplier, a row scale; 16 int8 and a scale.
  EXPECT_EQ(layer.q.bytes(), kHidden * (8 + 1 + 4 + 16 + 4));
  const std::vector<float> q = to_f32(layer.q);
  EXPECT_EQ(q[0], 0.25f * 3 * -8);
  EXPECT_EQ(q[kHidden], 0.25f * 15 * -8);
  EXPECT_EQ(q[2 * kHidden + 15], 3.0f * 3 * -8);
  EXPECT_EQ(q[2 * kHidden + 16], 0.02f * 127);
}

TEST(Weights, ATiedHeadIsTheEmbedding) {
  Checkpoint checkpoint;  // holds both, with different values
  EXPECT_EQ(to_f32(head(checkpoint)).at(0), 0.75f);
  checkpoint.config["tie_word_embeddings"] = true;
  EXPECT_EQ(to_f32(head(checkpoint)).at(0), 0.25f);
  EXPECT_EQ(head(checkpoint).name, "lm_head");
}

TEST(Weights, ATiedPairMayBeStoredUnderEitherName) {
  Checkpoint checkpoint;
  checkpoint.config["tie_word_embeddings"] = true;
  checkpoint.erase(kEmbedding);
  EXPECT_EQ(to_f32(head(checkpoint)).at(0), 0.75f);
  EXPECT_NO_THROW(load(checkpoint));
}

TEST(Weights, AQuantizedHeadIsItsOwnThoughTied) {
  Checkpoint checkpoint;
  checkpoint.config["tie_word_embeddings"] = true;
  checkpoint.quantize_qkv();
  Json other{{"targets", {"lm_head"}}, {"weights", checkpoint.group()["weights"]}};
  checkpoint.config["quantization_config"]["config_groups"]["group_1"] = other;
  checkpoint.codes("lm_head.weight", {kVocabulary, kHidden}, 3);
  checkpoint.floats("lm_head.weight_scale", {kVocabulary, 1}, 2.0f);
  EXPECT_EQ(to_f32(head(checkpoint)), std::vector<float>(kVocabulary * kHidden, 6.0f));
  EXPECT_NO_THROW(load(checkpoint));
}

}  // namespace
}  // namespace atom::model
