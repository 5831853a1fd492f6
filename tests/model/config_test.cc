#include "model/config.h"

#include <gtest/gtest.h>

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
  json["num_hidden_layers"] = 5;  // 5 * (4 + 3 * 65536) = 983060 < 2^20
  EXPECT_EQ(parse_config(json, "config.json").layers, 5);
  json["num_hidden_layers"] = 6;
  EXPECT_NE(message(json).find("1179672"), std::string::npos) << message(json);
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
        BadField{"hidden_size", 0, "hidden_size"}, BadField{"hidden_size", -64, "-64"},
        BadField{"hidden_size", 64.5, "64.5"}, BadField{"hidden_size", "64", "hidden_size"},
        BadField{"hidden_size", 1e18, "hidden_size"}, BadField{"hidden_size", 131073, "131073"},
        BadField{"intermediate_size", 131073, "131073"}, BadField{"hidden_size", 66, "66"},
        BadField{"num_key_value_heads", 3, "3"}, BadField{"head_dim", 15, "15"},
        BadField{"rms_norm_eps", -1, "rms_norm_eps"},
        BadField{"rope_scaling", {{"type", "yarn"}}, "yarn"},
        BadField{"rope_scaling", "yarn", "rope_scaling"},
        BadField{"rope_parameters", {{"rope_type", "llama3"}}, "llama3"},
        BadField{"rope_parameters", 5, "rope_parameters"},
        BadField{"rope_parameters", {{"full_attention", {{"rope_type", "linear"}}}}, "linear"},
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
