#include "quantizer/recipe.h"

#include <gtest/gtest.h>

#include "testing/expect_error.h"

namespace atom::quantizer {
namespace {

using atom::testing::expect_error;
using format::KvKind;

Recipe parse(const std::string& text) {
  Recipe recipe;
  apply_json(recipe, parse_json(text), "r.json");
  return recipe;
}

model::ModelConfig llama(int hidden, int intermediate, int layers = 2) {
  const Json json{{"architectures", {"LlamaForCausalLM"}},
                  {"vocab_size", 32},
                  {"hidden_size", hidden},
                  {"intermediate_size", intermediate},
                  {"num_hidden_layers", layers},
                  {"num_attention_heads", 2}};
  return model::parse_config(json, "config.json");
}

TEST(Recipe, DefaultsAreThePublishedOnes) {
  const Recipe r = preset("w4a4");
  EXPECT_EQ(r.kept, 128);
  EXPECT_EQ(r.group, 128);
  EXPECT_FLOAT_EQ(r.clip_weights, 0.85f);
  EXPECT_FLOAT_EQ(r.clip_activations, 0.9f);
  EXPECT_EQ(r.kept_format, format::kInt8);
  EXPECT_EQ(r.order, Order::kEnergy);
  EXPECT_EQ(r.rounding, Rounding::kGptq);
  EXPECT_EQ(r.kv, std::vector{KvKind::kInt4});
  Recipe w4a8 = preset("w4a8");  // the same but for the inputs
  EXPECT_EQ(w4a8.clip_activations, 1.0f);
  w4a8.preset = "w4a4";
  w4a8.clip_activations = r.clip_activations;
  EXPECT_EQ(to_json(w4a8), to_json(r));
  for (const char* name : {"w16a16", "w8a8", "w4a16"}) {
    EXPECT_EQ(preset(name).kv, std::vector{KvKind::kF16}) << name;
    EXPECT_EQ(preset(name).kept, 0) << name;
    EXPECT_EQ(preset(name).order, Order::kNone) << name;
  }
  for (const char* name : {"fp4", "mxfp4", "nvfp4"}) {  // the same without clips
    Recipe fp4 = preset(name);
    EXPECT_EQ(fp4.clip_weights, 1.0f);
    EXPECT_EQ(fp4.clip_activations, 1.0f);
    fp4.preset = "w4a4";
    fp4.clip_weights = r.clip_weights;
    fp4.clip_activations = r.clip_activations;
    EXPECT_EQ(to_json(fp4), to_json(r)) << name;
  }
  EXPECT_EQ(preset("w4a16").rounding, Rounding::kGptq);
  EXPECT_EQ(preset("w4a16").clip_weights, 1.0f);
  EXPECT_EQ(preset("w8a8").rounding, Rounding::kNearest);
  expect_error([] { preset("w3a3"); }, {"w3a3", "w4a4"});
}

TEST(Recipe, BestFitsWhatIsNotNamedToWhatIs) {
  const Recipe w4a4 = parse(R"({"method": "best"})");
  EXPECT_EQ(w4a4.method, Method::kBest);
  EXPECT_EQ(w4a4.transform,
            (Transforms{
                .equalize = true, .heads = true, .residual = true, .down = true, .center = true}));
  EXPECT_FALSE(parse(R"({"method": "best", "kv": "f16"})").transform.center);
  EXPECT_EQ(w4a4.clip_weights, 0.0f);
  EXPECT_EQ(w4a4.clip_activations, 0.0f);
  EXPECT_EQ(w4a4.kept, 128);
  EXPECT_EQ(to_json(w4a4), to_json(preset("w4a4", Method::kBest)));

  // What is named stays; what would contradict it is not added.
  EXPECT_FALSE(parse(R"({"method": "best", "transform": "none"})").transform.any());
  EXPECT_EQ(parse(R"({"method": "best", "clip_weights": 0.5})").clip_weights, 0.5f);
  EXPECT_EQ(parse(R"({"method": "best", "rounding": "rtn"})").clip_activations, 0.9f);
  EXPECT_EQ(parse(R"({"method": "best", "group": "row"})").clip_activations, 0.9f);
  EXPECT_FALSE(parse(R"({"method": "best", "kept_format": "f16"})").transform.any());

  // Nothing that is not rounded is transformed.
  EXPECT_FALSE(parse(R"({"method": "best", "preset": "w16a16"})").transform.any());
  EXPECT_EQ(parse(R"({"method": "best", "preset": "w16a16", "kv": "int4"})").transform,
            (Transforms{.equalize = true, .heads = true, .center = true}));
  EXPECT_FALSE(parse(R"({"method": "best", "preset": "w4a16"})").transform.down);
  EXPECT_FALSE(parse(R"({"method": "best", "preset": "w4a16"})").transform.heads);
  EXPECT_TRUE(
      parse(R"({"method": "best", "preset": "w4a16", "kv": ["f16", "int8"]})").transform.heads);

  // Clips of FP4 where they exist.
  EXPECT_EQ(preset("fp4", Method::kBest).clip_weights, 0.0f);
  EXPECT_EQ(preset("fp4", Method::kBest).clip_activations, 0.0f);
  EXPECT_EQ(preset("nvfp4", Method::kBest).clip_weights, 0.0f);
  EXPECT_EQ(preset("nvfp4", Method::kBest).clip_activations, 1.0f);
  EXPECT_EQ(preset("mxfp4", Method::kBest).clip_weights, 1.0f);
  EXPECT_EQ(preset("mxfp4", Method::kBest).transform, w4a4.transform);
  EXPECT_EQ(parse(R"({"method": "best", "preset": "fp4", "rounding": "rtn"})").clip_activations,
            1.0f);

  // What int4 has, and no other format.
  EXPECT_TRUE(w4a4.signed_scales);
  EXPECT_FALSE(preset("fp4", Method::kBest).signed_scales);
  EXPECT_TRUE(preset("fp4", Method::kBest).refine);
  EXPECT_FALSE(parse(R"({"method": "best", "rounding": "rtn"})").refine);
  EXPECT_FALSE(preset("w8a8", Method::kBest).refine);
  EXPECT_TRUE(w4a4.open_page);
  EXPECT_EQ(w4a4.clip_kv, 0.95f);
  const Recipe kv8 = parse(R"({"method": "best", "kv": "int8"})");
  EXPECT_FALSE(kv8.open_page);
  EXPECT_EQ(kv8.clip_kv, 1.0f);
  EXPECT_TRUE(parse(R"({"method": "best", "kv": ["f16", "int4"]})").open_page);
  const Recipe k8v4 = parse(R"({"method": "best", "kv": "k8v4"})");
  EXPECT_EQ(k8v4.kv, std::vector{KvKind::kInt8Int4});
  EXPECT_TRUE(k8v4.open_page);
  EXPECT_EQ(k8v4.clip_kv, 0.95f);
  EXPECT_TRUE(k8v4.transform.center);
  EXPECT_EQ(to_json(k8v4)["kv"], "k8v4");
  const Recipe cache = parse(R"({"method": "best", "preset": "w16a16", "kv": ["k8v4", "f16"]})");
  EXPECT_EQ(to_json(cache)["kv"], Json({"k8v4", "f16"}));
  EXPECT_TRUE(cache.transform.heads);
  EXPECT_TRUE(cache.open_page);

  // A field alone changes only itself.
  Recipe published;
  apply_json(published, parse_json(R"({"kept": 32})"), "r.json");
  EXPECT_EQ(published.method, Method::kPublished);
  EXPECT_FALSE(published.transform.any());
  expect_error([] { parse(R"({"method": "better"})"); }, {"method", "better", "published, best"});
}

TEST(Recipe, EveryFieldIsRead) {
  const Recipe r =
      parse(R"({"method": "published", "rounding": "rtn", "group": "row", "clip_weights": 0.5,
      "clip_activations": 1, "kept": 32, "kept_format": "f16", "order": "none", "transform": "none",
      "kv": ["f16", "int4"], "head": "int4.g128", "scales": "signed", "clip_kv": 0.9,
      "open_page": "int8", "refine": false})");
  EXPECT_EQ(r.rounding, Rounding::kNearest);
  EXPECT_EQ(r.group, 0);
  EXPECT_EQ(r.clip_weights, 0.5f);
  EXPECT_EQ(r.clip_activations, 1.0f);
  EXPECT_EQ(r.kept, 32);
  EXPECT_EQ(r.kept_format, format::kF16);
  EXPECT_EQ(r.order, Order::kNone);
  EXPECT_EQ(r.kv, (std::vector{KvKind::kF16, KvKind::kInt4}));
  EXPECT_TRUE(r.signed_scales);
  EXPECT_EQ(r.clip_kv, 0.9f);
  EXPECT_TRUE(r.open_page);
  EXPECT_FALSE(r.refine);
  EXPECT_TRUE(parse(R"({"refine": true})").refine);
  EXPECT_EQ(r.head, format::int4(128));
}

TEST(Recipe, JsonRoundTrip) {
  for (const std::string& name : preset_names())
    for (const Method method : {Method::kPublished, Method::kBest}) {
      const Json json = to_json(preset(name, method));
      Recipe back = preset("w4a4");
      apply_json(back, json, "r.json");
      EXPECT_EQ(to_json(back), json) << name;
    }
  EXPECT_EQ(to_json(preset("w4a4")).at("clip_weights").dump(), "0.85");
}

TEST(Recipe, TransformsAndSearches) {
  const Recipe r = parse(R"({"transform": ["down", "equalize"], "clip_weights": "search",
                             "clip_activations": "search"})");
  EXPECT_EQ(r.transform, (Transforms{.equalize = true, .down = true}));
  EXPECT_EQ(r.clip_weights, 0.0f);
  EXPECT_EQ(r.clip_activations, 0.0f);
  const Json json = to_json(r);
  EXPECT_EQ(json.at("transform"), Json({"equalize", "down"}));
  EXPECT_EQ(json.at("clip_weights"), "search");
  Recipe back = preset("w4a4");
  apply_json(back, json, "r.json");
  EXPECT_EQ(to_json(back), json);
  EXPECT_FALSE(parse(R"({"transform": "none"})").transform.any());

  expect_error([] { parse(R"({"transform": ["heads", "turn"]})"); }, {"transform", "turn"});
  expect_error([] { parse(R"({"preset": "w4a16", "transform": ["down"]})"); }, {"down", "w4a16"});
  expect_error([] { parse(R"({"preset": "w16a16", "transform": ["residual"]})"); },
               {"residual", "w16a16"});
  expect_error([] { parse(R"({"transform": ["heads"], "kept_format": "f16"})"); }, {"kept_format"});
  expect_error([] { parse(R"({"clip_activations": "search", "rounding": "rtn"})"); },
               {"clip_activations", "gptq"});
}

TEST(Recipe, WrongFieldsAreRefusedAndChangeNothing) {
  expect_error([] { parse("[]"); }, {"r.json", "object"});
  expect_error([] { parse(R"({"scales": "both"})"); }, {"r.json", "scales", "both"});
  expect_error([] { parse(R"({"preset": "fp4", "scales": "signed"})"); }, {"scales", "fp4"});
  expect_error([] { parse(R"({"refine": 1})"); }, {"r.json", "refine"});
  expect_error([] { parse(R"({"refine": true, "rounding": "rtn"})"); }, {"refine", "gptq"});
  expect_error([] { parse(R"({"clip_kv": 0})"); }, {"r.json", "clip_kv", "[0.001, 1]"});
  expect_error([] { parse(R"({"clip_kv": 0.9, "kv": "int8"})"); }, {"clip_kv", "int4"});
  expect_error([] { parse(R"({"open_page": "f16"})"); }, {"r.json", "open_page", "f16"});
  expect_error([] { parse(R"({"open_page": "int8", "kv": "f16"})"); }, {"open_page", "int4"});
  expect_error([] { parse(R"({"klip": 1})"); }, {"r.json", "klip", "unknown"});
  expect_error([] { parse(R"({"group": 48})"); }, {"r.json", "group", "48"});
  expect_error([] { parse(R"({"group": "128"})"); }, {"r.json", "group", "128"});
  expect_error([] { parse(R"({"kept": 20})"); }, {"r.json", "kept", "16", "20"});
  expect_error([] { parse(R"({"kept": -16})"); }, {"r.json", "kept", "-16"});
  expect_error([] { parse(R"({"kept": 16.5})"); }, {"r.json", "kept", "16.5"});
  expect_error([] { parse(R"({"kept": {"qkv": 16, "o": 16, "down": 16}})"); },
               {"r.json", "kept", "lacks gate_up"});
  expect_error([] { parse(R"({"kept": {"qkv": 16, "o": 16, "gate_up": 0, "down": 8}})"); },
               {"r.json", "kept", "16", "8"});
  expect_error([] { parse(R"({"kept": {"qkv": 0, "o": "x", "gate_up": 0, "down": 0}})"); },
               {"r.json", "\"o\""});
  expect_error([] { parse(R"({"kept": {"qkv": 0, "o": 0, "gate_up": 0, "down": 0, "up": 16}})"); },
               {"r.json", "kept", "\"up\""});
  expect_error(
      [] { parse(R"({"preset": "w8a8", "kept": {"qkv": 0, "o": 16, "gate_up": 0, "down": 0}})"); },
      {"r.json", "kept", "w8a8", "16"});
  expect_error([] { parse(R"({"kept": {"search": 8}})"); }, {"r.json", "kept", "16", "8"});
  expect_error([] { parse(R"({"kept": {"search": 0}})"); }, {"r.json", "kept", "0"});
  expect_error([] { parse(R"({"kept": {"search": 16, "o": 16}})"); }, {"r.json", "kept"});
  expect_error([] { parse(R"({"preset": "w8a8", "kept": {"search": 16}})"); }, {"kept", "w8a8"});
  expect_error([] { parse(R"({"kept_format": "bf16"})"); }, {"r.json", "kept_format", "bf16"});
  expect_error([] { parse(R"({"clip_weights": 0})"); }, {"r.json", "clip_weights", "0"});
  expect_error([] { parse(R"({"clip_weights": 1.01})"); }, {"r.json", "clip_weights", "1.01"});
  expect_error([] { parse(R"({"clip_activations": "x"})"); }, {"r.json", "clip_activations"});
  expect_error([] { parse(R"({"order": "size"})"); }, {"r.json", "order", "size"});
  expect_error([] { parse(R"({"transform": "hadamard"})"); }, {"r.json", "transform", "hadamard"});
  expect_error([] { parse(R"({"kv": "f32"})"); }, {"r.json", "kv", "f32"});
  expect_error([] { parse(R"({"kv": "k4v8"})"); }, {"r.json", "kv", "k8v4", "k4v8"});
  EXPECT_NO_THROW(parse(R"({"kv": "k8v4", "clip_kv": 0.9, "open_page": "int8"})"));
  expect_error([] { parse(R"({"kv": []})"); }, {"r.json", "kv"});
  expect_error([] { parse(R"({"kv": ["int4", 8]})"); }, {"r.json", "kv", "8"});
  expect_error([] { parse(R"({"head": "int4.g32"})"); }, {"r.json", "head", "int4.g32"});
  expect_error([] { parse(R"({"rounding": null})"); }, {"r.json", "rounding"});
  expect_error([] { parse(R"({"preset": "w8a8", "kept": 16})"); },
               {"r.json", "kept", "w8a8", "16"});
  expect_error([] { parse(R"({"preset": "w8a8", "rounding": "gptq"})"); }, {"rounding", "w8a8"});
  expect_error([] { parse(R"({"preset": "w4a16", "order": "energy"})"); }, {"order", "w4a16"});
  expect_error([] { parse(R"({"preset": "w4a8", "group": "row"})"); }, {"group", "w4a8", "row"});

  expect_error([] { parse(R"({"preset": "fp4", "group": "row"})"); }, {"group", "fp4", "row"});
  expect_error([] { parse(R"({"preset": "mxfp4", "group": 32})"); }, {"group", "mxfp4", "32"});
  expect_error([] { parse(R"({"preset": "nvfp4", "group": 128})"); }, {"group", "nvfp4", "16"});
  expect_error([] { parse(R"({"preset": "mxfp4", "clip_weights": "search"})"); },
               {"clip_weights", "mxfp4"});
  expect_error([] { parse(R"({"preset": "nvfp4", "clip_activations": 0.9})"); },
               {"clip_activations", "nvfp4", "0.9"});
  expect_error([] { parse(R"({"preset": "mxfp4", "clip_activations": "search"})"); },
               {"clip_activations", "search"});

  Recipe recipe = preset("w4a4");
  expect_error([&] { apply_json(recipe, parse_json(R"({"kept": 32, "klip": 1})"), "r.json"); },
               {"klip"});
  EXPECT_EQ(to_json(recipe), to_json(preset("w4a4")));
}

TEST(Recipe, KeptChannelsAreClampedPerLinear) {
  std::vector<std::string> notices;
  Recipe recipe = preset("w4a4");
  recipe.kept = 1 << 20;
  const model::Scheme scheme = to_scheme(recipe, llama(64, 88), notices);
  // 64 inputs: 48 kept leave 16; 88 inputs: 80 kept leave 8.
  EXPECT_EQ(scheme.find("model.layers.1.self_attn.q_proj")->kept, 48);
  EXPECT_EQ(scheme.find("model.layers.1.self_attn.o_proj")->kept, 48);
  EXPECT_EQ(scheme.find("model.layers.0.mlp.up_proj")->kept, 48);
  EXPECT_EQ(scheme.find("model.layers.0.mlp.down_proj")->kept, 80);
  EXPECT_EQ(notices.size(), 2u);  // one per width
  EXPECT_NE(notices[0].find("clamped"), std::string::npos);

  recipe.kept = 16;
  notices.clear();
  EXPECT_EQ(to_scheme(recipe, llama(16, 88), notices).find("model.layers.0.mlp.up_proj")->kept, 16);
  EXPECT_TRUE(notices.empty());
}

TEST(Recipe, KeptChannelsOfEverySite) {
  const Recipe recipe =
      parse(R"({"method": "best", "kept": {"qkv": 32, "o": 16, "gate_up": 0, "down": 128}})");
  EXPECT_EQ(recipe.kept, KeptCounts(32, 16, 0, 128));
  EXPECT_TRUE(recipe.transform.residual);
  EXPECT_EQ(to_json(recipe)["kept"],
            parse_json(R"({"qkv": 32, "o": 16, "gate_up": 0, "down": 128})"));
  EXPECT_EQ(to_json(parse(to_json(recipe).dump())), to_json(recipe));

  std::vector<std::string> notices;
  const model::Scheme scheme = to_scheme(recipe, llama(64, 88), notices);
  for (const char* module : {"q_proj", "k_proj", "v_proj"})
    EXPECT_EQ(scheme.find("model.layers.1.self_attn." + std::string(module))->kept, 32) << module;
  EXPECT_EQ(scheme.find("model.layers.1.self_attn.o_proj")->kept, 16);
  EXPECT_EQ(scheme.find("model.layers.0.mlp.up_proj")->kept, 0);
  EXPECT_FALSE(format::is_integer(scheme.find("model.layers.0.mlp.gate_proj")->kept_weight));
  EXPECT_EQ(scheme.find("model.layers.0.mlp.down_proj")->kept, 80);
  ASSERT_EQ(notices.size(), 1u);
  EXPECT_NE(notices[0].find("from 128 to 80"), std::string::npos) << notices[0];

  const Recipe searched = parse(R"({"kept": {"search": 64}})");
  EXPECT_TRUE(searched.search_kept);
  EXPECT_EQ(searched.kept, 64);
  EXPECT_EQ(to_json(searched)["kept"], parse_json(R"({"search": 64})"));
  Recipe fixed = searched;
  apply_json(fixed, parse_json(R"({"kept": 64})"), "r.json");
  EXPECT_FALSE(fixed.search_kept);
  const std::vector<LayerChoice> counts = {{.kept = 16}, {.kept = {16, 32, 48, 64}, .down = false}};
  const model::Scheme by_layer = to_scheme(searched, llama(64, 88), notices, counts);
  EXPECT_EQ(by_layer.find("model.layers.0.mlp.down_proj")->kept, 16);
  EXPECT_EQ(by_layer.find("model.layers.1.self_attn.o_proj")->kept, 32);
  EXPECT_EQ(by_layer.find("model.layers.1.mlp.up_proj")->kept, 48);
  EXPECT_EQ(by_layer.find("model.layers.1.mlp.down_proj")->kept, 64);

  // Four equal counts are one number, and 0 everywhere leaves method best as free as the number 0.
  EXPECT_EQ(to_json(parse(R"({"kept": {"down": 48, "gate_up": 48, "o": 48, "qkv": 48}})"))["kept"],
            48);
  EXPECT_TRUE(parse(R"({"method": "best", "kept_format": "f16",
                        "kept": {"qkv": 0, "o": 0, "gate_up": 0, "down": 0}})")
                  .transform.any());
}

TEST(Recipe, SchemeOfEachPreset) {
  std::vector<std::string> notices;
  const model::ModelConfig config = llama(256, 512);
  EXPECT_FALSE(to_scheme(preset("w16a16"), config, notices).quantized);

  const model::Scheme w8a8 = to_scheme(preset("w8a8"), config, notices);
  EXPECT_TRUE(w8a8.compressed_tensors_names);
  EXPECT_EQ(w8a8.find("model.layers.0.self_attn.q_proj")->weight, format::kInt8);
  EXPECT_EQ(w8a8.find("model.layers.0.self_attn.q_proj")->input, format::kInt8);

  const model::Scheme w4a16 = to_scheme(preset("w4a16"), config, notices);
  EXPECT_TRUE(w4a16.compressed_tensors_names);
  EXPECT_EQ(w4a16.find("model.layers.0.self_attn.q_proj")->weight, format::int4(128));
  EXPECT_EQ(w4a16.find("model.layers.0.self_attn.q_proj")->input, format::kF32);

  const model::Scheme w4a8 = to_scheme(preset("w4a8"), config, notices);
  EXPECT_FALSE(w4a8.compressed_tensors_names);
  const model::LinearScheme* q_proj = w4a8.find("model.layers.0.self_attn.q_proj");
  EXPECT_EQ(q_proj->weight, format::int4_progressive(128));
  EXPECT_EQ(q_proj->input, format::kInt8);
  EXPECT_EQ(q_proj->kept_weight, format::kInt8);
  EXPECT_EQ(q_proj->kept_input, format::kInt8);
  EXPECT_GT(q_proj->kept, 0);
  EXPECT_EQ(q_proj->clip, 1.0f);
  EXPECT_EQ(w4a8.kv.at(0), KvKind::kInt4);

  const model::Scheme w4a4 = to_scheme(preset("w4a4"), config, notices);
  EXPECT_FALSE(w4a4.compressed_tensors_names);
  const model::LinearScheme& q = *w4a4.find("model.layers.0.self_attn.q_proj");
  EXPECT_EQ(q.input, format::int4(128));
  EXPECT_EQ(q.kept_input, format::kInt8);
  EXPECT_FLOAT_EQ(q.clip, 0.9f);
  EXPECT_TRUE(notices.empty());

  for (const auto& [name, format] : {std::pair{"fp4", format::e2m1(128)},
                                     {"mxfp4", format::kMxfp4},
                                     {"nvfp4", format::kNvfp4}}) {
    const model::Scheme fp4 = to_scheme(preset(name), config, notices);
    const model::LinearScheme& linear = *fp4.find("model.layers.0.self_attn.q_proj");
    EXPECT_EQ(linear.weight, format) << name;
    EXPECT_EQ(linear.input, format);
    EXPECT_EQ(linear.kept_input, format::kInt8);
    EXPECT_EQ(linear.clip, 1.0f);
    EXPECT_EQ(fp4.kv.at(0), KvKind::kInt4);
    EXPECT_FALSE(fp4.compressed_tensors_names);
  }

  Recipe row = preset("w4a4");
  row.group = 0;  // a clip counts only with groups
  EXPECT_EQ(to_scheme(row, config, notices).find("model.layers.0.self_attn.q_proj")->clip, 1.0f);

  Recipe mixed = preset("w16a16");
  mixed.kv = {KvKind::kInt4, KvKind::kF16};
  mixed.head = format::kInt8;
  const model::Scheme head = to_scheme(mixed, config, notices);
  EXPECT_TRUE(head.quantized);
  EXPECT_EQ(head.find("lm_head")->weight, format::kInt8);
  EXPECT_EQ(head.kv, mixed.kv);
  mixed.head = format::kF16;
  mixed.kv = {KvKind::kInt8Int4};
  const model::Scheme cache = to_scheme(mixed, config, notices);
  EXPECT_TRUE(cache.quantized);  // by the cache alone
  EXPECT_EQ(cache.kv, (std::vector{KvKind::kInt8Int4, KvKind::kInt8Int4}));
  mixed.kv = {KvKind::kInt4, KvKind::kF16, KvKind::kF16};
  expect_error([&] { to_scheme(mixed, config, notices); }, {"kv", "2", "3"});
}

TEST(Recipe, SchemesSurviveTheCheckpointsJson) {
  std::vector<std::string> notices;
  const model::ModelConfig config = llama(256, 320);
  for (const std::string& name : preset_names()) {
    const model::Scheme scheme = to_scheme(preset(name), config, notices);
    if (!scheme.quantized) continue;
    const Json json{{"quantization_config", model::scheme_json(scheme, config)}};
    const model::Scheme back = model::parse_scheme(json, config, KvKind::kF16, "config.json");
    EXPECT_EQ(back.linears, scheme.linears) << name;
    EXPECT_EQ(back.kv, scheme.kv) << name;
    EXPECT_EQ(back.compressed_tensors_names, scheme.compressed_tensors_names) << name;
  }
}

}  // namespace
}  // namespace atom::quantizer
