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
    make_compatible(recipe);
    EXPECT_TRUE(recipe.transform.equalize && !recipe.transform.down) << name;
    EXPECT_TRUE(to_scheme(recipe, config, notices).compressed_tensors_names) << name;
  }
  EXPECT_FALSE(to_scheme(preset("w8a8", Method::kBest), config, notices).compressed_tensors_names);
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

}  // namespace
}  // namespace atom::quantizer
