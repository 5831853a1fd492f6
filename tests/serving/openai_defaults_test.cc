// Defaults of the model for the fields that a request leaves out.
#include <gtest/gtest.h>

#include "serving/openai_request.h"
#include "serving/serving_fixture.h"

namespace atom::serving {
namespace {

const model::GenerationConfig kAllDefaults = {.temperature = 0.25f,
                                              .top_p = 0.5f,
                                              .top_k = 5,
                                              .min_p = 0.125f,
                                              .repetition_penalty = 1.5f,
                                              .max_new_tokens = 9,
                                              .eos_ids = {}};

class DefaultsTest : public ::testing::Test {
 protected:
  engine::SamplingOptions completion(const std::string& more) {
    return parse_completion(parse_json(R"({"prompt": "a")" + more + "}"), context_)
        .completion.sampling;
  }
  engine::SamplingOptions chat(const std::string& more) {
    return parse_chat(parse_json(R"({"messages": [{"role": "user", "content": "a"}])" + more + "}"),
                      context_)
        .completion.sampling;
  }

  const RequestLimits limits_{.context = 128, .vocabulary = 64};
  const std::vector<std::string> models_ = {"small"};
  const RenderChat render_ = [](const Json&) { return std::string("a"); };
  RequestContext context_{small_model().tokenizer, limits_, models_, render_, "", "", {}};
};

TEST_F(DefaultsTest, CountWhereTheRequestSaysNothing) {
  context_.defaults = kAllDefaults;
  for (const char* nothing :
       {"", R"(, "temperature": null, "top_p": null, "top_k": null, "min_p": null)"}) {
    const engine::SamplingOptions sampling = chat(nothing);
    EXPECT_EQ(sampling.temperature, 0.25f);
    EXPECT_EQ(sampling.top_p, 0.5f);
    EXPECT_EQ(sampling.top_k, 5);
    EXPECT_EQ(sampling.min_p, 0.125f);
    EXPECT_EQ(sampling.repetition_penalty, 1.5f);
    EXPECT_EQ(sampling.max_tokens, 9);
  }
  EXPECT_EQ(completion("").temperature, 0.25f);
  EXPECT_EQ(completion("").max_tokens, 16);  // as everywhere
}

TEST_F(DefaultsTest, GiveWayToWhatTheRequestSays) {
  context_.defaults = kAllDefaults;
  const engine::SamplingOptions sampling = chat(
      R"(, "temperature": 1, "top_p": 1, "top_k": -1, "min_p": 0, "repetition_penalty": 1, "max_tokens": 20)");
  EXPECT_EQ(sampling.temperature, 1);
  EXPECT_EQ(sampling.top_p, 1);
  EXPECT_EQ(sampling.top_k, 0);
  EXPECT_EQ(sampling.min_p, 0);
  EXPECT_EQ(sampling.repetition_penalty, 1);
  EXPECT_EQ(sampling.max_tokens, 20);
}

TEST_F(DefaultsTest, AreThoseOfTheApiWithoutAFile) {
  const engine::SamplingOptions sampling = chat("");
  EXPECT_EQ(sampling.temperature, 1);
  EXPECT_EQ(sampling.top_p, 1);
  EXPECT_EQ(sampling.top_k, 0);
  EXPECT_EQ(sampling.min_p, 0);
  EXPECT_EQ(sampling.repetition_penalty, 1);
  EXPECT_GT(sampling.max_tokens, 100);  // what the context leaves
  context_.defaults.max_new_tokens = 1 << 30;
  EXPECT_EQ(chat("").max_tokens, sampling.max_tokens);
}

}  // namespace
}  // namespace atom::serving
