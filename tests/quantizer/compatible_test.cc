// quantize --compatible: recipes whose checkpoints other programs read.
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/json.h"
#include "quantizer/recipe.h"

namespace atom::quantizer {
namespace {

TEST(Compatible, IsWhatCompressedTensorsHasWordsFor) {
  std::vector<std::string> notices;
  model::ModelConfig config;
  config.family = &model::find_family("LlamaForCausalLM", "test");
  config.layers = 2;
  config.hidden = 256;
  config.intermediate = 512;
  config.heads = config.kv_heads = 4;
  config.head_dim = 64;
  config.vocabulary = 96;
  for (const char* name : {"w8a8", "w4a16"}) {
    Recipe recipe = preset(name, Method::kBest);
    EXPECT_TRUE(recipe.transform.equalize && !recipe.transform.down) << name;
    EXPECT_TRUE(to_scheme(recipe, config, notices).compressed_tensors_names) << name;
    const Json before = to_json(recipe);
    make_compatible(recipe);
    EXPECT_EQ(to_json(recipe), before) << name;
  }
  Recipe own = preset("w8a8", Method::kBest);
  make_own_format(own);
  EXPECT_TRUE(own.transform.down);
  EXPECT_FALSE(to_scheme(own, config, notices).compressed_tensors_names);
  make_compatible(own);
  EXPECT_EQ(to_json(own), to_json(preset("w8a8", Method::kBest)));
  const auto refused = [](const char* json, const char* part) {
    Recipe recipe;
    apply_json(recipe, parse_json(json), "test");
    try {
      make_compatible(recipe);
      ADD_FAILURE() << json;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  };
  refused(R"({"preset": "w4a8"})", "preset w4a8");
  refused(R"({"preset": "w8a8", "kv": "int8"})", "the KV-cache");
  refused(R"({"preset": "w4a16", "head": "int8"})", "the head");
}

// Where compressed-tensors has no words anyway, nothing is given up for it.
TEST(Compatible, OnlyWhatOthersCouldReadGivesUpTheTransform) {
  const auto down = [](const char* json) {
    Recipe recipe;
    apply_json(recipe, parse_json(json), "test");
    return recipe.transform.down;
  };
  EXPECT_FALSE(down(R"({"preset": "w8a8", "method": "best"})"));
  EXPECT_FALSE(down(R"({"preset": "w8a8", "method": "best", "kv": "f16", "head": "f16"})"));
  EXPECT_TRUE(down(R"({"preset": "w8a8", "method": "best", "kv": "int8"})"));
  EXPECT_TRUE(down(R"({"preset": "w8a8", "method": "best", "head": "int8"})"));
  EXPECT_TRUE(down(R"({"preset": "w4a8", "method": "best"})"));
  EXPECT_TRUE(down(R"({"preset": "w8a8", "method": "best", "transform": ["down"]})"));
}

TEST(Compatible, OneFormHasNoOther) {
  const auto refused = [](Recipe recipe, const char* part) {
    const Json before = to_json(recipe);
    try {
      make_own_format(recipe);
      ADD_FAILURE() << part;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
    EXPECT_EQ(to_json(recipe), before);
  };
  refused(preset("w4a16", Method::kBest), "w4a16");
  refused(preset("w4a8", Method::kBest), "w4a8");
  refused(preset("w8a8", Method::kPublished), "published");
}

}  // namespace
}  // namespace atom::quantizer
