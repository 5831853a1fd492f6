#include "engine/generate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <set>
#include <string>

#include "backend/open.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "testing/expect_error.h"

namespace atom::engine {
namespace {

using testing::expect_error;

class GenerateTest : public ::testing::TestWithParam<std::string> {
 protected:
  GenerateTest() : executor_({.threads = 2}) {
    const char* plugin = std::getenv("ATOM_CUDA_PLUGIN");
    try {
      backend_ = backend::open_backend(
          GetParam(), {.executor = &executor_, .cuda_plugin = plugin == nullptr ? "" : plugin});
    } catch (const Error& error) {
      reason_ = error.what();
      return;
    }
    model_ = model::load_model(checkpoint::ModelFiles::open(folder()), *backend_, {});
    prompt_ = parse_json(read_file(folder() / "expected.json"))["ids"].get<std::vector<int32_t>>();
  }

  void SetUp() override {
    if (backend_ != nullptr) return;
    ASSERT_EQ(GetParam(), "cuda") << reason_;
    GTEST_SKIP() << reason_;
  }

  static std::filesystem::path folder() {
    return std::filesystem::path(ATOM_TEST_DATA) / "model" / "llama-gqa";
  }

  GenerateResult run(const GenerateOptions& options) { return generate(*model_, prompt_, options); }

  Executor executor_;
  std::string reason_;  // why there is no backend
  std::unique_ptr<backend::Backend> backend_;
  std::unique_ptr<model::Model> model_;
  std::vector<int32_t> prompt_;
};

const GenerateOptions kGreedy = {.max_tokens = 8, .temperature = 0, .ignore_eos = true};

TEST_P(GenerateTest, GreedyTakesTheLargestExpectedLogit) {
  const std::string bytes = read_file(folder() / "logits.f32");
  std::vector<float> logits(bytes.size() / sizeof(float));
  std::memcpy(logits.data(), bytes.data(), bytes.size());
  const auto last = logits.end() - model_->config.vocabulary;
  const int32_t best = static_cast<int32_t>(std::max_element(last, logits.end()) - last);

  const GenerateResult result = run(kGreedy);
  ASSERT_EQ(result.ids.size(), 8u);
  EXPECT_EQ(result.ids[0], best);
  EXPECT_STREQ(result.finish_reason, "length");
}

TEST_P(GenerateTest, ThePromptMayHoldWhatWasGenerated) {
  const GenerateResult whole = run(kGreedy);
  prompt_.insert(prompt_.end(), whole.ids.begin(), whole.ids.begin() + 5);
  GenerateOptions rest = kGreedy;
  rest.max_tokens = 3;
  EXPECT_EQ(run(rest).ids, std::vector<int32_t>(whole.ids.begin() + 5, whole.ids.end()));
}

TEST_P(GenerateTest, StepSizeDoesNotMatter) {
  const std::vector<int32_t> whole = run(kGreedy).ids;
  for (const int rows : {1, 7, 31}) {
    GenerateOptions options = kGreedy;
    options.max_rows = rows;
    EXPECT_EQ(run(options).ids, whole) << rows;
  }
}

TEST_P(GenerateTest, TheSeedDecidesTheDraws) {
  GenerateOptions options = {.max_tokens = 24, .temperature = 1.5f, .ignore_eos = true};
  options.seed = 7;
  const std::vector<int32_t> first = run(options).ids;
  EXPECT_EQ(run(options).ids, first);
  options.seed = 8;
  EXPECT_NE(run(options).ids, first);
}

TEST_P(GenerateTest, EndOfTextStopsUnlessIgnored) {
  const std::vector<int32_t> greedy = run(kGreedy).ids;
  GenerateOptions options = kGreedy;
  options.eos_ids = {greedy[3]};
  EXPECT_EQ(run(options).ids, greedy);

  options.ignore_eos = false;
  const GenerateResult stopped = run(options);
  const auto end = std::find_if(greedy.begin(), greedy.end(), [&](int32_t id) {
    return id == greedy[3] || id == model_->config.eos_ids[0];  // either may come earlier
  });
  EXPECT_EQ(stopped.ids, std::vector<int32_t>(greedy.begin(), end));
  EXPECT_STREQ(stopped.finish_reason, "stop");
}

TEST_P(GenerateTest, TheCallerSeesEveryIdAndMayCancel) {
  GenerateOptions options = kGreedy;
  std::vector<int32_t> seen;
  options.on_token = [&](int32_t id) {
    seen.push_back(id);
    return seen.size() < 3;
  };
  const GenerateResult result = run(options);
  EXPECT_EQ(result.ids.size(), 3u);
  EXPECT_EQ(seen, result.ids);
  EXPECT_STREQ(result.finish_reason, "cancelled");
}

TEST_P(GenerateTest, StopsBetweenTheStepsOfThePrompt) {
  GenerateOptions options = kGreedy;
  options.max_rows = 5;
  std::vector<int> seen;
  options.on_prompt = [&](int done) {
    seen.push_back(done);
    return done < 10;
  };
  const GenerateResult result = run(options);
  EXPECT_EQ(seen, (std::vector<int>{5, 10}));
  EXPECT_TRUE(result.ids.empty());
  EXPECT_STREQ(result.finish_reason, "cancelled");
}

TEST_P(GenerateTest, RefusesWhatDoesNotFit) {
  GenerateOptions options = kGreedy;
  options.max_tokens = 225;  // 32 + 225 = 257
  expect_error([&] { run(options); }, {"32 tokens", "225", "max_position_embeddings", "256"});
  options.max_tokens = 0;
  expect_error([&] { run(options); }, {"0 new tokens"});
  prompt_.back() = 101;
  expect_error([&] { run(kGreedy); }, {"101", "vocabulary"});
  prompt_.clear();
  expect_error([&] { run(kGreedy); }, {"prompt is empty"});
}

INSTANTIATE_TEST_SUITE_P(Backends, GenerateTest, ::testing::Values("reference", "cpu", "cuda"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace atom::engine
