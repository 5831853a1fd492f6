// On a backend that runs ahead of the host, generate() enqueues the step of an id before it knows the id; nobody sees a difference.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "backend/open.h"
#include "base/executor.h"
#include "base/file.h"
#include "base/json.h"
#include "engine/ahead_backend.h"
#include "engine/generate.h"
#include "testing/expect_error.h"

namespace atom::engine {
namespace {

using testing::expect_error;

class GenerateAhead : public ::testing::Test {
 protected:
  GenerateAhead() {
    const auto folder = std::filesystem::path(ATOM_TEST_DATA) / "model" / "llama-gqa";
    const checkpoint::ModelFiles files = checkpoint::ModelFiles::open(folder);
    model_ = model::load_model(files, *cpu_, {});
    ahead_model_ = model::load_model(files, ahead_, {});
    prompt_ = parse_json(read_file(folder / "expected.json"))["ids"].get<std::vector<int32_t>>();
  }

  // The same twice: ids, finish reason, what the caller saw and when it said no.
  GenerateResult run(const GenerateOptions& options) {
    const GenerateResult expected = generate(*model_, prompt_, options);
    ahead_.steps = 0;
    const GenerateResult result = generate(*ahead_model_, prompt_, options);
    EXPECT_EQ(result.ids, expected.ids);
    EXPECT_STREQ(result.finish_reason, expected.finish_reason);
    return result;
  }
  int first_position() const { return static_cast<int>(prompt_.size()); }  // of a new id

  Executor executor_{{.threads = 2}};
  std::unique_ptr<backend::Backend> cpu_ = backend::make_cpu_backend({.executor = &executor_});
  AheadBackend ahead_{backend::make_cpu_backend({.executor = &executor_})};
  std::unique_ptr<model::Model> model_, ahead_model_;
  std::vector<int32_t> prompt_;
};

const GenerateOptions kGreedyAhead = {.max_tokens = 8, .temperature = 0, .ignore_eos = true};

TEST_F(GenerateAhead, GivesTheSameIds) {
  run(kGreedyAhead);
  for (const uint64_t seed : {1, 2, 3})
    run({.max_tokens = 24,
         .temperature = 1.5f,
         .top_k = 20,
         .top_p = 0.95f,
         .seed = seed,
         .ignore_eos = true});
}

TEST_F(GenerateAhead, EnqueuesAStepBeforeItWaitsForTheIdOfTheOneBefore) {
  GenerateOptions options = kGreedyAhead;
  options.max_tokens = 3;
  options.on_token = [&](int32_t) {
    ahead_.trace.emplace_back("token");
    return true;
  };
  generate(*ahead_model_, prompt_, options);
  EXPECT_EQ(ahead_.trace,
            (std::vector<std::string>{"ask", "step 32", "ask", "wait", "token", "step 33", "ask",
                                      "wait", "token", "wait", "token"}));
}

TEST_F(GenerateAhead, NeverGoesBeyondTheLastPosition) {
  GenerateOptions options = kGreedyAhead;
  options.max_tokens = model_->config.max_positions - first_position();
  EXPECT_EQ(run(options).ids.size(), static_cast<size_t>(options.max_tokens));
  EXPECT_EQ(ahead_.last_position, model_->config.max_positions - 2);  // the last id has no step
  EXPECT_EQ(ahead_.steps, options.max_tokens - 1);

  options.max_tokens = 1;
  run(options);
  EXPECT_EQ(ahead_.steps, 0);
}

TEST_F(GenerateAhead, TakesAtMostOneStepTooMany) {
  const std::vector<int32_t> greedy = run(kGreedyAhead).ids;
  GenerateOptions options = kGreedyAhead;
  options.ignore_eos = false;
  options.eos_ids = {greedy[3]};
  const GenerateResult stopped = run(options);
  EXPECT_STREQ(stopped.finish_reason, "stop");
  // The id that ends the text is the (ids + 1)-th; its step was enqueued in vain.
  EXPECT_EQ(ahead_.steps, static_cast<int>(stopped.ids.size()) + 1);

  options = kGreedyAhead;
  int seen = 0;
  options.on_token = [&](int32_t) { return ++seen % 3 != 0; };  // both runs stop at their third
  EXPECT_STREQ(run(options).finish_reason, "cancelled");
  EXPECT_EQ(seen, 6);
  EXPECT_EQ(ahead_.steps, 3);
}

TEST_F(GenerateAhead, SaysWhereLogitsAreNotFinite) {
  ahead_.fails_at = 2;
  std::vector<int32_t> seen;
  GenerateOptions options = kGreedyAhead;
  options.on_token = [&](int32_t id) {
    seen.push_back(id);
    return true;
  };
  const std::string position = std::to_string(first_position() + 1);  // of the second new id
  expect_error([&] { generate(*ahead_model_, prompt_, options); }, {"not finite", position});
  EXPECT_EQ(seen.size(), 2u);
}

}  // namespace
}  // namespace atom::engine
