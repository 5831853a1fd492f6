// generation_config.json: what counts, what is left out, what is refused.
#include "model/generation_config.h"

#include <gtest/gtest.h>

#include <string>

#include "base/error.h"

namespace atom::model {
namespace {

GenerationConfig parse(const std::string& text) {
  return parse_generation_config(parse_json(text), 100, "generation_config.json");
}

TEST(GenerationConfigTest, ReadsItsFields) {
  const GenerationConfig all = parse(
      R"({"temperature": 0.6, "top_p": 0.9, "top_k": 20, "min_p": 0.1, "repetition_penalty": 1.05,
          "max_new_tokens": 2048, "eos_token_id": [7, 3], "do_sample": false, "pad_token_id": "x"})");
  EXPECT_EQ(all.temperature, 0.6f);
  EXPECT_EQ(all.top_p, 0.9f);
  EXPECT_EQ(all.top_k, 20);
  EXPECT_EQ(all.min_p, 0.1f);
  EXPECT_EQ(all.repetition_penalty, 1.05f);
  EXPECT_EQ(all.max_new_tokens, 2048);
  EXPECT_EQ(all.eos_ids, (std::vector<int>{7, 3}));
}

TEST(GenerationConfigTest, WhatIsMissingOrNullIsNotThere) {
  for (const char* text : {"{}", R"({"temperature": null, "top_p": null, "eos_token_id": null})"}) {
    const GenerationConfig none = parse(text);
    EXPECT_FALSE(none.temperature || none.top_p || none.top_k || none.min_p ||
                 none.repetition_penalty || none.max_new_tokens)
        << text;
    EXPECT_TRUE(none.eos_ids.empty());
  }
  EXPECT_EQ(parse(R"({"top_k": -1})").top_k, 0);
  EXPECT_EQ(parse(R"({"temperature": 0, "eos_token_id": 99})").eos_ids, std::vector<int>{99});
}

TEST(GenerationConfigTest, WrongValuesAreNamed) {
  for (const auto& [field, value] : {std::pair{"temperature", "-0.1"},
                                     {"temperature", "101"},
                                     {"temperature", "\"1\""},
                                     {"temperature", "true"},
                                     {"top_p", "0"},
                                     {"top_p", "1.1"},
                                     {"top_p", "1e-300"},
                                     {"top_k", "-2"},
                                     {"top_k", "1.0"},
                                     {"top_k", "2147483648"},
                                     {"min_p", "-1"},
                                     {"min_p", "2"},
                                     {"repetition_penalty", "0"},
                                     {"repetition_penalty", "[]"},
                                     {"max_new_tokens", "0"},
                                     {"max_new_tokens", "{}"},
                                     {"eos_token_id", "100"},
                                     {"eos_token_id", "-1"},
                                     {"eos_token_id", "[1, 1.5]"},
                                     {"eos_token_id", "\"</s>\""},
                                     {"eos_token_id", "[[1]]"},
                                     {"eos_token_id", "true"},
                                     {"eos_token_id", "1e30"}}) {
    const std::string text = std::string("{\"") + field + "\": " + value + "}";
    try {
      parse(text);
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_TRUE(std::string(error.what()).starts_with("generation_config.json: ")) << text;
      EXPECT_NE(std::string(error.what()).find(field), std::string::npos) << error.what();
    }
  }
  EXPECT_THROW(parse("[]"), Error);
}

TEST(GenerationConfigTest, IdsAreAddedOnce) {
  std::vector<int> ids = {2};
  add_eos_ids(ids, {5, 2, 5, 3});
  EXPECT_EQ(ids, (std::vector<int>{2, 5, 3}));
}

}  // namespace
}  // namespace atom::model
