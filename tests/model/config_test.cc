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

class BadConfig : public testing::TestWithParam<BadField> {};

TEST_P(BadConfig, IsRefusedWithItsValue) {
  Json json = llama();
  json[GetParam().key] = GetParam().value;
  const std::string text = message(json);
  EXPECT_NE(text.find("config.json"), std::string::npos) << text;
  EXPECT_NE(text.find(GetParam().expected), std::string::npos) << text;
}

INSTANTIATE_TEST_SUITE_P(
    Fields, BadConfig,
    testing::Values(BadField{"architectures", {"GPT9"}, "GPT9"},
                    BadField{"architectures", Json::array(), "architectures"},
                    BadField{"hidden_size", 0, "hidden_size"}, BadField{"hidden_size", -64, "-64"},
                    BadField{"hidden_size", 64.5, "64.5"},
                    BadField{"hidden_size", "64", "hidden_size"},
                    BadField{"hidden_size", 1e18, "hidden_size"}, BadField{"hidden_size", 66, "66"},
                    BadField{"num_key_value_heads", 3, "3"}, BadField{"head_dim", 15, "15"},
                    BadField{"rms_norm_eps", -1, "rms_norm_eps"},
                    BadField{"rope_scaling", {{"type", "yarn"}}, "yarn"},
                    BadField{"hidden_act", "gelu", "gelu"}, BadField{"sliding_window", 16, "16"},
                    BadField{"eos_token_id", 100, "100"}, BadField{"eos_token_id", {-1}, "-1"}));

}  // namespace
}  // namespace atom::model
