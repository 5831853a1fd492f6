#include "model/config.h"
#include "model/rope_config.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"

namespace atom::model {
namespace {

Json llama() {
  return parse_json(R"({"architectures": ["LlamaForCausalLM"], "vocab_size": 100, "hidden_size": 64,
    "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 50000.0, "eos_token_id": [2, 3]})");
}

std::string message(const Json& json) {
  try {
    parse_config(json, "config.json");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Config, ReadsLlama) {
  const ModelConfig config = parse_config(llama(), "config.json");
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.qkv_size(), 8 * 16);
  EXPECT_EQ(config.rope_theta, 50000.0);
  EXPECT_EQ(config.eos_ids, (std::vector<int>{2, 3}));
  EXPECT_FALSE(config.mixture());
}

TEST(Config, ReadsNewerRopeSpelling) {
  Json json = llama();
  json.erase("rope_theta");
  json["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 1234.5}};
  EXPECT_EQ(parse_config(json, "config.json").rope_theta, 1234.5);
}

TEST(Config, ReadsRopeNestedUnderFullAttention) {
  Json json = llama();
  json.erase("rope_theta");
  json["rope_parameters"] = {
      {"full_attention", {{"rope_type", "default"}, {"rope_theta", 1234.5}}}};
  EXPECT_EQ(parse_config(json, "config.json").rope_theta, 1234.5);
}

TEST(Config, RopeThetaFallsBackToTheTopLevel) {
  Json json = llama();
  json["rope_parameters"] = {{"rope_type", "default"}};
  EXPECT_EQ(parse_config(json, "config.json").rope_theta, 50000.0);
  json["rope_parameters"] = {{"full_attention", {{"rope_type", "default"}}}};
  EXPECT_EQ(parse_config(json, "config.json").rope_theta, 50000.0);
  json["rope_parameters"] = nullptr;
  EXPECT_EQ(parse_config(json, "config.json").rope_theta, 50000.0);
  json.erase("rope_theta");
  EXPECT_EQ(parse_config(json, "config.json").rope_theta, 10000.0);
}

TEST(Config, AcceptsTheWidestInputs) {
  // 2^17 products of 127 * 127 still fit s32.
  static_assert(int64_t{131072} * 127 * 127 < int64_t{1} << 31);
  Json json = llama();
  json["hidden_size"] = json["intermediate_size"] = 131072;
  json["num_attention_heads"] = json["num_key_value_heads"] = 1024;
  json["head_dim"] = 128;
  EXPECT_EQ(parse_config(json, "config.json").attention_size(), 131072);
}

TEST(Config, RefusesProductsBeyondReason) {
  Json json = llama();
  json["num_attention_heads"] = 65536;  // times 4096 it is 2^28, and q, k, v together 3 * 2^28
  json["num_key_value_heads"] = 65536;
  json["head_dim"] = 4096;
  EXPECT_NE(message(json).find("65536 of head_dim 4096 give 268435456 channels"), std::string::npos)
      << message(json);

  json = llama();
  json["architectures"] = {"MixtralForCausalLM"};
  json["num_local_experts"] = 65536;
  json["num_experts_per_tok"] = 2;
  json["num_hidden_layers"] = 65536;
  EXPECT_NE(message(json).find("num_hidden_layers 65536 with 65536 experts each give 12885164032"),
            std::string::npos)
      << message(json);
  json["num_hidden_layers"] = 1;  // 4 + 3 * 65536 = 196612 < 2^18
  EXPECT_EQ(parse_config(json, "config.json").layers, 1);
  json["num_hidden_layers"] = 2;
  EXPECT_NE(message(json).find("393224"), std::string::npos) << message(json);
}

TEST(Config, WordsThatAreNotUsedMayBeAnyWord) {
  for (const Json& type : {Json("auto"), Json("torch.bfloat16"), Json(nullptr)}) {
    Json json = llama();
    json["torch_dtype"] = type;
    json["architectures"] = {"LlamaForCausalLM", "LlamaForCausalLM"};
    EXPECT_EQ(parse_config(json, "config.json").hidden, 64) << type;
  }
}

TEST(Config, ReadsMixture) {
  Json json = llama();
  json["architectures"] = {"MixtralForCausalLM"};
  json["num_local_experts"] = 6;
  json["num_experts_per_tok"] = 3;
  json["sliding_window"] = nullptr;
  const ModelConfig config = parse_config(json, "config.json");
  EXPECT_EQ(config.experts, 6);
  EXPECT_EQ(config.experts_per_token, 3);
}

TEST(Config, ReadsRopeScaling) {
  Json json = llama();
  json["rope_scaling"] = {{"rope_type", "llama3"},
                          {"factor", 8.0},
                          {"low_freq_factor", 1.0},
                          {"high_freq_factor", 4.0},
                          {"original_max_position_embeddings", 64}};
  RopeScaling scaling = parse_config(json, "config.json").rope_scaling;
  EXPECT_EQ(scaling.kind, RopeScaling::Kind::kLlama3);
  EXPECT_EQ(scaling.factor, 8);
  EXPECT_EQ(scaling.original_positions, 64);
  json["rope_scaling"] = {
      {"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 64}};
  scaling = parse_config(json, "config.json").rope_scaling;
  EXPECT_EQ(scaling.kind, RopeScaling::Kind::kYarn);
  EXPECT_DOUBLE_EQ(scaling.attention_factor, 0.1 * std::log(4.0) + 1);
}

// The numbers of Phi-3 with 128k, whose head_dim is cut to 16.
Json longrope() {
  return {{"type", "longrope"},
          {"short_factor", {1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7}},
          {"long_factor", {1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0}}};
}

TEST(Config, LongropeHasOneLengthOrTheOther) {
  Json json = llama();
  json["max_position_embeddings"] = 131072;
  json["original_max_position_embeddings"] = 4096;
  json["rope_scaling"] = longrope();
  for (const char* type : {"longrope", "su"}) {
    json["rope_scaling"]["type"] = type;
    ModelConfig config = parse_config(json, "config.json");
    EXPECT_EQ(config.max_positions, 4096);
    EXPECT_EQ(config.stated_positions, 131072);
    EXPECT_FALSE(extend_positions(config, 4096));
    EXPECT_EQ(config.rope_scaling.pair_factors[7], 1.7);
    EXPECT_TRUE(extend_positions(config, 4097));
    EXPECT_EQ(config.max_positions, 131072);
    EXPECT_EQ(config.rope_scaling.pair_factors[7], 8.0);
    EXPECT_FALSE(extend_positions(config, 200000));
    EXPECT_DOUBLE_EQ(config.rope_scaling.attention_factor, std::sqrt(1 + 5.0 / 12));  // 2^5, 2^12
  }
  json["rope_scaling"]["short_factor"].erase(0);
  EXPECT_NE(message(json).find("short_factor must be a list of 8 numbers"), std::string::npos)
      << message(json);
  json["rope_scaling"] = longrope();
  json["rope_scaling"]["long_factor"][3] = -4.5;
  EXPECT_NE(message(json).find("holds -4.5"), std::string::npos) << message(json);
  json["rope_scaling"] = longrope();
  json["rope_scaling"]["type"] = "yarn";  // what Phi-3's files once called another formula
  EXPECT_NE(message(json).find("'yarn' has a short_factor"), std::string::npos) << message(json);
}

TEST(Config, DynamicHasTheLengthThatIsAskedFor) {
  Json json = llama();
  json["rope_scaling"] = {{"type", "dynamic"}, {"factor", 4.0}};
  const ModelConfig given = parse_config(json, "config.json");
  const int original = given.stated_positions;
  EXPECT_EQ(given.max_positions, original);
  EXPECT_EQ(most_positions(given), 4 * original);
  const struct {
    int64_t asked;
    int granted;
  } cases[] = {{1, original},
               {original, original},
               {original + 1, original + 1},
               {4 * original, 4 * original},
               {int64_t{1} << 40, 4 * original}};
  for (const auto& [asked, granted] : cases) {
    ModelConfig config = given;
    EXPECT_EQ(extend_positions(config, asked), granted > original) << asked;
    EXPECT_EQ(config.max_positions, granted);
    EXPECT_EQ(config.rope_scaling.dynamic_positions, granted);
    EXPECT_EQ(config.stated_positions, original);
  }
}

// Their frequencies are the same for every length: only the room grows.
TEST(Config, LinearAndYarnReachAsFarAsTheirFactor) {
  for (const char* type : {"linear", "yarn"}) {
    Json json = llama();
    json["rope_scaling"] = {
        {"type", type}, {"factor", 2.5}, {"original_max_position_embeddings", 256}};
    json["max_position_embeddings"] = 256;
    ModelConfig config = parse_config(json, "config.json");
    const RopeScaling scaling = config.rope_scaling;
    EXPECT_EQ(config.max_positions, 256) << type;
    EXPECT_FALSE(extend_positions(config, 257)) << type;
    EXPECT_EQ(config.max_positions, 640) << type;
    EXPECT_EQ(config.rope_scaling, scaling) << type;
  }
  ModelConfig plain = parse_config(llama(), "config.json");
  EXPECT_EQ(most_positions(plain), plain.max_positions);
  EXPECT_FALSE(extend_positions(plain, 1 << 20));
  EXPECT_EQ(plain.max_positions, plain.stated_positions);
}

TEST(Config, FieldsMayNotContradictEachOther) {
  const auto expect = [](Json json, const Json& change, const char* part) {
    json.update(change);
    EXPECT_NE(message(json).find(part), std::string::npos) << message(json);
    EXPECT_NE(message(json).find("config.json"), std::string::npos);
  };
  expect(llama(), {{"rope_parameters", {{"rope_theta", 1234.5}}}},
         "rope_theta 1234.5 of rope_parameters contradicts the rope_theta 50000");
  expect(llama(), {{"rope_scaling", {{"type", "linear"}, {"rope_type", "yarn"}, {"factor", 2.0}}}},
         "rope_type 'yarn', but the type 'linear'");
  expect(llama(),
         {{"rope_scaling", {{"type", "linear"}, {"factor", 2.0}}},
          {"rope_parameters", {{"rope_type", "linear"}, {"factor", 4.0}}}},
         "rope_parameters contradicts rope_scaling");
  Json qwen = llama();
  qwen["architectures"] = {"Qwen2ForCausalLM"};
  expect(qwen, {{"layer_types", {"full_attention", "sliding_attention"}}},
         "layer 1 is sliding_attention, but no sliding_window is in use");
  expect(qwen, {{"use_sliding_window", true}, {"sliding_window", nullptr}},
         "sliding_window must be a number and is null");
  for (const Json& bad : {Json(0), Json(-1)})  // though it is not in use
    expect(qwen, {{"sliding_window", bad}}, "sliding_window");
}

TEST(Config, WindowsAreThoseOfTheFamily) {
  Json json = llama();
  json["sliding_window"] = 16;
  json["architectures"] = {"MistralForCausalLM"};
  EXPECT_EQ(parse_config(json, "config.json").windows, (std::vector<int>{16, 16}));
  json["layer_types"] = {"sliding_attention", "sliding_attention"};
  EXPECT_EQ(parse_config(json, "config.json").windows, (std::vector<int>{16, 16}));
  json["layer_types"] = {"sliding_attention", "full_attention"};
  EXPECT_NE(message(json).find("layer 1 is full_attention"), std::string::npos) << message(json);
  json["layer_types"] = {"sliding_attention", "chunked_attention"};
  EXPECT_NE(message(json).find("layer 1"), std::string::npos) << message(json);
  json["layer_types"] = {"full_attention"};
  EXPECT_NE(message(json).find("each of the 2 layers"), std::string::npos) << message(json);
  json.erase("layer_types");
  json["sliding_window"] = 128;  // no position is farther away
  EXPECT_TRUE(parse_config(json, "config.json").windows.empty());
  for (const Json& bad : {Json(0), Json(-4), Json(4.5), Json("16")}) {
    json["sliding_window"] = bad;
    EXPECT_NE(message(json).find("sliding_window"), std::string::npos) << bad;
  }

  json["architectures"] = {"Qwen2ForCausalLM"};
  json["sliding_window"] = 16;
  EXPECT_TRUE(parse_config(json, "config.json").windows.empty());
  json["use_sliding_window"] = true;
  json["max_window_layers"] = 1;
  EXPECT_EQ(parse_config(json, "config.json").windows, (std::vector<int>{0, 16}));
  json["layer_types"] = {"sliding_attention", "full_attention"};
  EXPECT_EQ(parse_config(json, "config.json").windows, (std::vector<int>{16, 0}));
  json.erase("layer_types");
  json.erase("sliding_window");
  json["max_position_embeddings"] = 8192;
  EXPECT_EQ(parse_config(json, "config.json").windows, (std::vector<int>{0, 4096}));
}

TEST(Config, MissesFieldsWithoutACommonDefault) {
  Json whole = llama();
  whole["architectures"] = {"MistralForCausalLM"};
  EXPECT_EQ(message(whole), "");
  for (const char* key : {"num_key_value_heads", "rms_norm_eps", "rope_theta"}) {
    Json json = whole;
    json.erase(key);
    EXPECT_NE(message(json).find(key), std::string::npos) << message(json);
  }
  whole.erase("rope_theta");
  whole["rope_parameters"] = {{"rope_theta", 5000.0}};
  EXPECT_EQ(parse_config(whole, "config.json").rope_theta, 5000);
}

TEST(Config, ReadsQwen3Moe) {
  Json json = llama();
  json["architectures"] = {"Qwen3MoeForCausalLM"};
  json["num_experts"] = 8;
  json["num_experts_per_tok"] = 2;
  json["moe_intermediate_size"] = 32;
  EXPECT_NE(message(json).find("\"head_dim\" must be there"), std::string::npos) << message(json);
  json["head_dim"] = 32;
  ModelConfig config = parse_config(json, "config.json");
  EXPECT_EQ(config.intermediate, 32);
  EXPECT_EQ(config.experts, 8);
  EXPECT_FALSE(config.renormalize);
  json["norm_topk_prob"] = true;
  json["decoder_sparse_step"] = 1;
  json["mlp_only_layers"] = Json::array();
  EXPECT_TRUE(parse_config(json, "config.json").renormalize);
  json["decoder_sparse_step"] = 2;
  EXPECT_NE(message(json).find("decoder_sparse_step 2"), std::string::npos) << message(json);
  json["decoder_sparse_step"] = 1;
  json["mlp_only_layers"] = {3};
  EXPECT_NE(message(json).find("mlp_only_layers [3]"), std::string::npos) << message(json);
}

struct BadField {
  const char* key;
  Json value;
  const char* expected;  // part of the message
};

class BadConfig : public ::testing::TestWithParam<BadField> {};

TEST_P(BadConfig, IsRefusedWithItsValue) {
  Json json = llama();
  json[GetParam().key] = GetParam().value;
  const std::string text = message(json);
  EXPECT_NE(text.find("config.json"), std::string::npos) << text;
  EXPECT_NE(text.find(GetParam().expected), std::string::npos) << text;
}

INSTANTIATE_TEST_SUITE_P(
    Fields, BadConfig,
    ::testing::Values(
        BadField{"architectures", {"GPT9"}, "GPT9"},
        BadField{"architectures", Json::array(), "architectures"},
        BadField{"architectures", {"LlamaForCausalLM", "GPT9"}, R"(["LlamaForCausalLM","GPT9"])"},
        BadField{"architectures", {"LlamaForCausalLM", "MistralForCausalLM"}, "Mistral"},
        BadField{"architectures", {"LlamaForCausalLM", 7}, R"(["LlamaForCausalLM",7])"},
        BadField{"torch_dtype", 7, "\"torch_dtype\" must be a string, but is 7"},
        BadField{"dtype", Json::array(), "\"dtype\" must be a string, but is []"},
        BadField{"hidden_size", 0, "hidden_size"}, BadField{"hidden_size", -64, "-64"},
        BadField{"hidden_size", 64.5, "64.5"}, BadField{"hidden_size", "64", "hidden_size"},
        BadField{"hidden_size", 1e18, "hidden_size"}, BadField{"hidden_size", 131073, "131073"},
        BadField{"intermediate_size", 131073, "131073"}, BadField{"hidden_size", 66, "66"},
        BadField{"num_key_value_heads", 3, "3"}, BadField{"head_dim", 15, "15"},
        BadField{"rms_norm_eps", -1, "rms_norm_eps"},
        BadField{"hidden_size", Json::parse("9223372036854775808"), "9223372036854775808"},
        BadField{"num_hidden_layers", 0, "num_hidden_layers"},
        BadField{"num_hidden_layers", -1, "-1"}, BadField{"num_hidden_layers", 2.5, "2.5"},
        BadField{"num_attention_heads", 0, "num_attention_heads"},
        BadField{"num_key_value_heads", -2, "-2"}, BadField{"vocab_size", -100, "-100"},
        BadField{"vocab_size", Json::parse("9223372036854775808"), "9223372036854775808"},
        BadField{"intermediate_size", 0.5, "0.5"}, BadField{"head_dim", -16, "-16"},
        BadField{"head_dim", 0, "head_dim"}, BadField{"max_position_embeddings", 0, "max_position"},
        BadField{"partial_rotary_factor", 0.5, "partial_rotary_factor"},
        BadField{"rope_scaling", {{"type", "cubic"}, {"factor", 2.0}}, "'cubic'"},
        BadField{"rope_scaling", {{"type", "longrope"}, {"factor", 2.0}}, "original_max_position"},
        BadField{"num_attention_heads", 4.5, "4.5"}, BadField{"num_key_value_heads", 0.5, "0.5"},
        BadField{"rope_scaling", {{"type", "linear"}}, "factor"},
        BadField{"rope_scaling", {{"type", "linear"}, {"factor", 0.5}}, "0.5"},
        BadField{"rope_scaling", {{"type", "linear"}, {"factor", -2.0}}, "-2"},
        BadField{"rope_scaling", {{"type", "dynamic"}, {"factor", "8"}}, "factor"},
        BadField{"rope_scaling",
                 {{"rope_type", "llama3"}, {"factor", 8.0}, {"low_freq_factor", 1.0}},
                 "original_max_position_embeddings"},
        BadField{"rope_scaling",
                 {{"rope_type", "llama3"},
                  {"factor", 8.0},
                  {"low_freq_factor", 4.0},
                  {"high_freq_factor", 4.0},
                  {"original_max_position_embeddings", 64}},
                 "high_freq_factor 4 must be greater than low_freq_factor 4"},
        BadField{"rope_scaling",
                 {{"rope_type", "yarn"},
                  {"factor", 8.0},
                  {"beta_fast", 1.0},
                  {"beta_slow", 2.0},
                  {"original_max_position_embeddings", 64}},
                 "beta_fast 1 must be at least beta_slow 2"},
        BadField{"rope_scaling",
                 {{"rope_type", "yarn"}, {"factor", 8.0}, {"original_max_position_embeddings", 0}},
                 "original_max_position_embeddings"},
        BadField{"rope_scaling", "yarn", "rope_scaling"},
        BadField{"rope_parameters", {{"rope_type", "llama3"}}, "factor"},
        BadField{"rope_parameters", 5, "rope_parameters"},
        BadField{"rope_parameters", {{"full_attention", {{"rope_type", "linear"}}}}, "factor"},
        BadField{"rope_parameters",
                 {{"full_attention", Json::object()}, {"sliding_attention", {{"rope_theta", 2.0}}}},
                 "sliding_attention"},
        BadField{
            "rope_parameters", {{"sliding_attention", {{"rope_theta", 2.0}}}}, "sliding_attention"},
        BadField{"rope_parameters", {{"full_attention", {{"more", Json::object()}}}}, "'more'"},
        BadField{"rope_parameters", {{"rope_theta", -3.5}}, "-3.5"},

        BadField{"hidden_act", "gelu", "gelu"}, BadField{"sliding_window", 16, "16"},
        BadField{"eos_token_id", 100, "100"}, BadField{"eos_token_id", {-1}, "-1"}));

}  // namespace
}  // namespace atom::model
