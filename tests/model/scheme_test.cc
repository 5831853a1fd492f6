#include "model/scheme.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace atom::model {
namespace {

using format::KvKind;

ModelConfig config(int experts = 1) {
  Json json =
      parse_json(R"({"architectures": ["LlamaForCausalLM"], "vocab_size": 100, "hidden_size": 64,
    "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4})");
  if (experts > 1) {
    json["architectures"] = {"MixtralForCausalLM"};
    json["num_local_experts"] = experts;
    json["num_experts_per_tok"] = 2;
  }
  return parse_config(json, "config.json");
}

Scheme everywhere(const ModelConfig& config, const LinearScheme& linear, KvKind kv) {
  Scheme scheme{.quantized = true};
  for (const std::string& module : linear_modules(config)) scheme.linears[module] = linear;
  scheme.kv.assign(config.layers, kv);
  return scheme;
}

Scheme round_trip(const Scheme& scheme, const ModelConfig& config) {
  const Json json = {{"quantization_config", scheme_json(scheme, config)}};
  // Through text, as a checkpoint does it.
  return parse_scheme(parse_json(json.dump()), config, KvKind::kF32, "config.json");
}

const LinearScheme kW4A4{.weight = format::int4(128),
                         .input = format::int4(128),
                         .kept_weight = format::kInt8,
                         .kept_input = format::kInt8,
                         .kept = 16,
                         .clip = 0.9f};

TEST(Scheme, W4A4SurvivesItsText) {
  for (const int experts : {1, 4}) {
    const ModelConfig c = config(experts);
    const Scheme scheme = everywhere(c, kW4A4, KvKind::kInt4);
    const Json json = scheme_json(scheme, c);
    EXPECT_EQ(json["quant_method"], "atom");
    EXPECT_EQ(json["config_groups"].size(), 1);
    const Scheme back = round_trip(scheme, c);
    EXPECT_EQ(back.linears, scheme.linears);
    EXPECT_EQ(back.kv, scheme.kv);
    EXPECT_FALSE(back.compressed_tensors_names);
  }
}

TEST(Scheme, DifferentLinearsAndLayersSurvive) {
  const ModelConfig c = config();
  Scheme scheme = everywhere(c, kW4A4, KvKind::kInt8);
  scheme.linears["model.layers.0.mlp.down_proj"].kept = 32;
  scheme.linears["model.layers.1.self_attn.o_proj"] = {.weight = format::kInt8,
                                                       .input = format::kInt8};
  scheme.linears.erase("model.layers.1.mlp.up_proj");
  scheme.linears["lm_head"] = {.weight = format::int4(128)};
  scheme.kv[1] = KvKind::kF16;
  const Scheme back = round_trip(scheme, c);
  EXPECT_EQ(back.linears, scheme.linears);
  EXPECT_EQ(back.kv, scheme.kv);
}

TEST(Scheme, CommonFormatsUseTheCommonVocabulary) {
  const ModelConfig c = config();
  const Scheme w8a8 =
      everywhere(c, {.weight = format::kInt8, .input = format::kInt8}, KvKind::kF16);
  EXPECT_EQ(scheme_json(w8a8, c)["quant_method"], "compressed-tensors");
  EXPECT_EQ(scheme_json(w8a8, c)["format"], "int-quantized");
  const Scheme w4a16 = everywhere(c, {.weight = format::int4(128)}, KvKind::kF16);
  EXPECT_EQ(scheme_json(w4a16, c)["format"], "pack-quantized");
  EXPECT_TRUE(round_trip(w4a16, c).compressed_tensors_names);
  EXPECT_EQ(round_trip(w4a16, c).linears, w4a16.linears);
  // An INT4 cache is beyond it.
  EXPECT_EQ(
      scheme_json(everywhere(c, {.weight = format::int4(128)}, KvKind::kInt4), c)["quant_method"],
      "atom");
}

TEST(Scheme, KvAloneSurvives) {
  const ModelConfig c = config();
  Scheme scheme{.quantized = true, .kv = {KvKind::kInt4, KvKind::kInt4}};
  const Scheme back = round_trip(scheme, c);
  EXPECT_TRUE(back.linears.empty());
  EXPECT_EQ(back.kv, scheme.kv);
}

TEST(Scheme, PlainCheckpointHasThePlainCache) {
  const Scheme scheme = parse_scheme(Json::object(), config(), KvKind::kF32, "config.json");
  EXPECT_FALSE(scheme.quantized);
  EXPECT_EQ(scheme.kv, (std::vector<KvKind>{KvKind::kF32, KvKind::kF32}));
}

std::string message(const std::function<void(Json&)>& damage) {
  const ModelConfig c = config();
  Json q = scheme_json(everywhere(c, kW4A4, KvKind::kInt4), c);
  damage(q);
  try {
    parse_scheme({{"quantization_config", q}}, c, KvKind::kF32, "config.json");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Scheme, RefusesWhatItDoesNotUnderstand) {
  EXPECT_NE(message([](Json& q) { q["quant_method"] = "gptq"; }).find("gptq"), std::string::npos);
  EXPECT_NE(message([](Json& q) { q["rotation"] = true; }).find("rotation"), std::string::npos);
  EXPECT_NE(message([](Json& q) { q["kv_cache_scheme"]["num_bits"] = 3; }).find("kv_cache_scheme"),
            std::string::npos);
  const auto group = [](Json& q) -> Json& { return q["config_groups"]["group_0"]; };
  EXPECT_NE(message([&](Json& q) { group(q)["weights"]["num_bits"] = 3; }).find("\"num_bits\":3"),
            std::string::npos);
  EXPECT_NE(message([&](Json& q) { group(q)["weights"]["symmetric"] = false; }).find("symmetric"),
            std::string::npos);
  EXPECT_NE(message([&](Json& q) {
              group(q)["targets"] = {"model.layers.9.mlp.up_proj"};
            }).find("layers.9"),
            std::string::npos);
  EXPECT_NE(
      message([&](Json& q) { group(q)["input_activations"]["clip_ratio"] = 2; }).find("clip_ratio"),
      std::string::npos);
}

}  // namespace
}  // namespace atom::model
