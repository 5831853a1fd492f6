#include "model/scheme.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "base/error.h"
#include "testing/expect_error.h"

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

const LinearScheme kW4A8{.weight = format::int4_progressive(64),
                         .input = format::kInt8,
                         .kept_weight = format::kInt8,
                         .kept_input = format::kInt8,
                         .kept = 32};

LinearScheme fp4(format::Format format) {
  return {.weight = format,
          .input = format,
          .kept_weight = format::kInt8,
          .kept_input = format::kInt8,
          .kept = 16};
}

TEST(Scheme, Fp4SurvivesItsText) {
  const ModelConfig c = config();
  for (const format::Format f :
       {format::e2m1(32), format::e2m1(64), format::e2m1(128), format::kMxfp4, format::kNvfp4}) {
    LinearScheme linear = fp4(f);
    if (f.kind == format::Kind::kE2M1) linear.clip = 0.9f;
    const Scheme scheme = everywhere(c, linear, KvKind::kInt4);
    EXPECT_EQ(scheme_json(scheme, c)["quant_method"], "atom");
    EXPECT_EQ(round_trip(scheme, c).linears, scheme.linears) << format::name(f);
    linear.kept = 0;
    linear.kept_weight = linear.kept_input = {};
    const Scheme whole = everywhere(c, linear, KvKind::kF16);
    EXPECT_EQ(scheme_json(whole, c)["quant_method"], "atom");
    EXPECT_EQ(round_trip(whole, c).linears, whole.linears) << format::name(f);
  }
}

TEST(Scheme, OtherFourBitFloatsAreRefused) {
  const ModelConfig c = config();
  const Json good = scheme_json(everywhere(c, fp4(format::kNvfp4), KvKind::kF16), c);
  const auto refuse = [&](const char* key, const Json& value, const char* message) {
    for (const char* side : {"weights", "input_activations"}) {
      Json q = {{"quantization_config", good}};
      q["quantization_config"]["config_groups"]["group_0"][side][key] = value;
      atom::testing::expect_error([&] { parse_scheme(q, c, KvKind::kF32, "config.json"); },
                                  {"config.json", message});
    }
  };
  refuse("group_size", 8, "no supported format expresses");
  refuse("group_size", "16", "no supported format expresses");
  refuse("strategy", "group", "no supported format expresses");
  refuse("scale_dtype", "torch.uint8", "no supported format expresses");
  refuse("symmetric", false, "no supported format expresses");
  refuse("num_bits", 8, "scale_dtype");
  refuse("zp_dtype", "torch.uint8", "zp_dtype");
  refuse("progressive", true, "config.json");
  const auto refuse_change = [&](const std::function<void(Json&)>& change,
                                 std::initializer_list<std::string_view> message) {
    Json q = good;
    change(q);
    atom::testing::expect_error(
        [&] {
          parse_scheme({{"quantization_config", q}}, c, KvKind::kF32, "config.json");
        },
        message);
  };
  const auto group = [](Json& q) -> Json& { return q["config_groups"]["group_0"]; };
  refuse_change([&](Json& q) { group(q)["input_activations"]["clip_ratio"] = 0.9; },
                {"clip_ratio", "nvfp4"});
  refuse_change([&](Json& q) { group(q)["input_activations"]["dynamic"] = "local"; }, {"dynamic"});
  refuse_change(
      [](Json& q) {
        q["quant_method"] = "compressed-tensors";
        q["format"] = "pack-quantized";
      },
      {"four-bit floats", "atom"});
  refuse_change([&](Json& q) { group(q)["kept_weights"] = group(q)["weights"]; },
                {"kept channels", "nvfp4"});
}

TEST(Scheme, KeptChannelsSurviveTheirText) {
  for (const auto& [experts, linear] : {std::pair{1, kW4A4}, {4, kW4A4}, {1, kW4A8}, {4, kW4A8}}) {
    const ModelConfig c = config(experts);
    const Scheme scheme = everywhere(c, linear, KvKind::kInt4);
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

TEST(Scheme, SignedScalesAndTheCachesRangeSurvive) {
  const ModelConfig c = config();
  LinearScheme linear{.weight = format::int4(32), .input = format::int4(32)};
  linear.signed_scales = true;
  Scheme scheme = everywhere(c, linear, KvKind::kInt4);
  EXPECT_FALSE(scheme_json(scheme, c).contains("kv_clip"));
  scheme.kv_clip = 0.9f;
  scheme.open_page = true;
  const Scheme back = round_trip(scheme, c);
  EXPECT_EQ(back.linears, scheme.linears);
  EXPECT_EQ(back.kv_clip, 0.9f);
  EXPECT_TRUE(back.open_page);
  const auto refuses = [&](const auto& change, std::initializer_list<std::string_view> words) {
    Json q = {{"quantization_config", scheme_json(scheme, c)}};
    change(q["quantization_config"]);
    atom::testing::expect_error([&] { parse_scheme(q, c, KvKind::kF32, "config.json"); }, words);
  };
  refuses([](Json& q) { q["kv_clip"] = 0; }, {"config.json", "kv_clip"});
  refuses([](Json& q) { q["kv_clip"] = 1.5; }, {"config.json", "kv_clip"});
  refuses([](Json& q) { q["kv_open_page"] = "f16"; }, {"config.json", "kv_open_page", "f16"});
  refuses([](Json& q) { q["kv_open_page"] = 8; }, {"config.json", "kv_open_page"});
  refuses([](Json& q) { q["config_groups"]["group_0"]["weights"]["signed_scales"] = true; },
          {"weights", "signed_scales"});
  refuses(
      [](Json& q) {
        Json& input = q["config_groups"]["group_0"]["input_activations"];
        input["num_bits"] = 8;
        input["strategy"] = "token";
        input.erase("group_size");
      },
      {"signed_scales", "int8"});
}

TEST(Scheme, TransformsSurviveAndAreNoCommonVocabulary) {
  const ModelConfig c = config();
  Scheme scheme = everywhere(c, {.weight = format::kInt8, .input = format::kInt8}, KvKind::kF16);
  scheme.linears["model.layers.0.mlp.down_proj"].hadamard = 128;
  scheme.qk_hadamard = 64;
  const Json json = scheme_json(scheme, c);
  EXPECT_EQ(json["quant_method"], "atom");
  const Scheme back = round_trip(scheme, c);
  EXPECT_EQ(back.linears, scheme.linears);
  EXPECT_EQ(back.qk_hadamard, 64);
  EXPECT_FALSE(back.stream_basis);
  scheme.stream_basis = true;
  EXPECT_TRUE(round_trip(scheme, c).stream_basis);
  EXPECT_FALSE(back.key_offset);
  scheme.key_offset = true;
  EXPECT_TRUE(round_trip(scheme, c).key_offset);

  for (const auto& bad : {Json(48), Json(256), Json(1), Json("128"), Json(2.5)}) {
    Json q = {{"quantization_config", json}};
    q["quantization_config"]["qk_hadamard"] = bad;
    atom::testing::expect_error([&] { parse_scheme(q, c, KvKind::kF32, "config.json"); },
                                {"config.json", "qk_hadamard"});
  }
  Json basis = {{"quantization_config", json}};
  basis["quantization_config"]["stream_basis"] = "yes";
  atom::testing::expect_error([&] { parse_scheme(basis, c, KvKind::kF32, "config.json"); },
                              {"config.json", "stream_basis"});
  scheme.linears["lm_head"] = scheme.linears["model.layers.0.mlp.down_proj"];
  atom::testing::expect_error([&] { round_trip(scheme, c); }, {"lm_head"});
  Json q = {{"quantization_config", json}};
  q["quantization_config"]["config_groups"]["group_0"]["weights"]["hadamard"] = 128;
  atom::testing::expect_error([&] { parse_scheme(q, c, KvKind::kF32, "config.json"); },
                              {"weights", "hadamard"});
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

std::string refusal(const std::function<void(Json&)>& damage) {
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

Json& group(Json& q) { return q["config_groups"]["group_0"]; }
Json& weights(Json& q) { return group(q)["weights"]; }
Json& inputs(Json& q) { return group(q)["input_activations"]; }

struct SchemeDamage {
  const char* name;
  std::function<void(Json&)> apply;
  const char* expected;  // part of the message
};

void PrintTo(const SchemeDamage& damage, std::ostream* out) { *out << damage.name; }

class BadScheme : public ::testing::TestWithParam<SchemeDamage> {};

TEST_P(BadScheme, IsRefused) {
  const std::string text = refusal(GetParam().apply);
  EXPECT_EQ(text.find("config.json"), 0u) << text;
  EXPECT_EQ(text.find('\n'), std::string::npos) << text;
  EXPECT_NE(text.find(GetParam().expected), std::string::npos) << text;
}

const SchemeDamage kDamages[] = {
    {"Method", [](Json& q) { q["quant_method"] = "gptq"; }, "gptq"},
    {"Key", [](Json& q) { q["rotation"] = true; }, "rotation"},
    {"Version", [](Json& q) { q["version"] = 2; }, "version 2 is not supported"},
    {"VersionWord", [](Json& q) { q["version"] = "1"; }, "version \"1\""},
    {"NoVersion", [](Json& q) { q.erase("version"); }, "version null"},
    {"Format", [](Json& q) { q["format"] = "float-quantized"; }, "\"float-quantized\""},
    {"NoFormat", [](Json& q) { q.erase("format"); }, "format null"},
    {"Sparsity",
     [](Json& q) {
       q["sparsity_config"] = {{"format", "x"}};
     },
     "sparsity_config"},
    {"KvBits", [](Json& q) { q["kv_cache_scheme"]["num_bits"] = 3; }, "kv_cache_scheme"},
    {"KvKey", [](Json& q) { q["kv_cache_scheme"]["shift"] = 1; }, "'shift'"},
    {"KvStatic", [](Json& q) { q["kv_cache_scheme"]["dynamic"] = false; }, "'dynamic' true"},
    {"GroupKey", [](Json& q) { group(q)["rotation"] = 1; }, "'rotation'"},
    {"GroupFormat", [](Json& q) { group(q)["format"] = "nvfp4-pack-quantized"; }, "nvfp4"},
    {"Outputs",
     [](Json& q) {
       group(q)["output_activations"] = {{"num_bits", 8}};
     },
     "output_activations"},
    {"Targets", [](Json& q) { group(q)["targets"] = {"model.layers.9.mlp.up_proj"}; }, "layers.9"},
    {"Bits", [](Json& q) { weights(q)["num_bits"] = 3; }, "\"num_bits\":3"},
    {"Asymmetric", [](Json& q) { weights(q)["symmetric"] = false; }, "symmetric"},
    {"WeightKey", [](Json& q) { weights(q)["codebook"] = 1; }, "'codebook'"},
    {"WeightDynamic", [](Json& q) { weights(q)["dynamic"] = true; }, "'dynamic' false"},
    {"WeightClip", [](Json& q) { weights(q)["clip_ratio"] = 0.5; }, "clip_ratio"},
    {"KeptKey", [](Json& q) { group(q)["kept_weights"]["codebook"] = 1; }, "'codebook'"},
    {"ActOrder", [](Json& q) { weights(q)["actorder"] = "group"; }, "'actorder' \"group\""},
    {"Block",
     [](Json& q) {
       weights(q)["block_structure"] = {128, 128};
     },
     "block_structure"},
    {"ScaleType", [](Json& q) { weights(q)["scale_dtype"] = "torch.uint8"; }, "scale_dtype"},
    {"ZeroType", [](Json& q) { weights(q)["zp_dtype"] = "torch.int8"; }, "zp_dtype"},
    {"GroupOfRow",
     [](Json& q) {
       weights(q)["strategy"] = "channel";  // group_size stays
     },
     "group_size"},
    {"StaticInput", [](Json& q) { inputs(q)["dynamic"] = false; }, "'dynamic' true"},
    {"InputWithoutDynamic", [](Json& q) { inputs(q).erase("dynamic"); }, "'dynamic' true"},
    {"LocalInput", [](Json& q) { inputs(q)["dynamic"] = "local"; }, "dynamic"},
    {"ProgressiveInput", [](Json& q) { inputs(q)["progressive"] = true; }, "'progressive' true"},
    {"ProgressiveKept", [](Json& q) { group(q)["kept_weights"]["progressive"] = true; },
     "'progressive' true"},
    {"KeptInt4", [](Json& q) { group(q)["kept_weights"] = weights(q); },
     "kept channels must have 8 or 16 bits, but are int4.g128"},
    {"KeptInputInt4",
     [](Json& q) {
       group(q)["kept_input_activations"] = inputs(q);
       group(q)["kept_input_activations"].erase("clip_ratio");
     },
     "kept channels must have 8 or 16 bits, but are int4.g128"},
    {"Clip", [](Json& q) { inputs(q)["clip_ratio"] = 2; }, "clip_ratio"},
};

INSTANTIATE_TEST_SUITE_P(Damages, BadScheme, ::testing::ValuesIn(kDamages),
                         [](const auto& info) { return std::string(info.param.name); });

// compressed-tensors has no word for them, so that the scheme is Atom's own even with 16-bit inputs.
TEST(Scheme, ProgressiveWeightsAreAtoms) {
  const ModelConfig c = config();
  const Scheme scheme = everywhere(c, {.weight = format::int4_progressive(128)}, KvKind::kF16);
  Json q = scheme_json(scheme, c);
  EXPECT_EQ(q["quant_method"], "atom");
  EXPECT_EQ(weights(q)["progressive"], true);
  EXPECT_EQ(weights(q)["group_size"], 128);
  EXPECT_EQ(round_trip(scheme, c).linears, scheme.linears);
  const auto refusal = [&](const std::function<void(Json&)>& damage) {
    Json bad = q;
    damage(bad);
    try {
      parse_scheme({{"quantization_config", bad}}, c, KvKind::kF32, "config.json");
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_NE(refusal([](Json& bad) {
              bad["quant_method"] = "compressed-tensors";
              bad["format"] = "pack-quantized";
            }).find("'progressive'"),
            std::string::npos);
  EXPECT_NE(refusal([](Json& bad) {
              weights(bad).erase("group_size");
              weights(bad)["strategy"] = "channel";
            }).find("\"progressive\":true"),
            std::string::npos);
  EXPECT_NE(refusal([](Json& bad) { weights(bad)["group_size"] = 16; }).find("int4.g16.p"),
            std::string::npos);
  EXPECT_NE(refusal([](Json& bad) { weights(bad)["progressive"] = 1; }).find("progressive"),
            std::string::npos);
}

// What compressed-tensors writes beside, all of it without effect on the numbers.
TEST(Scheme, HarmlessKeysAreAccepted) {
  const ModelConfig c = config();
  const Scheme w8a8 =
      everywhere(c, {.weight = format::kInt8, .input = format::kInt8}, KvKind::kF16);
  Json q = scheme_json(w8a8, c);
  q["version"] = "0.10.2";
  q["sparsity_config"] = Json::object();
  group(q)["output_activations"] = nullptr;
  group(q)["format"] = "int-quantized";
  for (Json* number : {&weights(q), &inputs(q)}) {
    (*number)["observer"] = "minmax";
    (*number)["observer_kwargs"] = Json::object();
    for (const char* key : {"group_size", "block_structure", "actorder", "scale_dtype", "zp_dtype"})
      (*number)[key] = nullptr;
  }
  const Scheme back = parse_scheme({{"quantization_config", q}}, c, KvKind::kF16, "config.json");
  EXPECT_EQ(back.linears, w8a8.linears);
}

}  // namespace
}  // namespace atom::model
