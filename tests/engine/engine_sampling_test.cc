// Penalties, bias, min_tokens and logprobs of an engine's requests.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "engine/engine_fixture.h"

namespace atom::engine {
namespace {

class EngineSampling : public EngineTest {};

// Greedy ids are the largest of the logits with the penalties that the text so far brings.
TEST_P(EngineSampling, PenaltiesAndBiasMoveLogits) {
  Engine engine(model(), {.max_sequences = 4, .check_each_step = true});
  Random random(37);
  Request plain{.prompt = random_ids(random, 20),
                .sampling = {.temperature = 0, .max_tokens = 40, .ignore_eos = true},
                .cache_salt = "",
                .deadline = {}};
  plain.sampling.logprobs = kVocabulary;
  Request moved = plain;
  moved.sampling.frequency_penalty = 0.25f;
  moved.sampling.presence_penalty = 0.5f;
  moved.sampling.logit_bias = {{3, 1.5f}, {5, -std::numeric_limits<float>::infinity()}};
  const RequestId a = submit(engine, plain), b = submit(engine, moved);
  run_out(engine);
  EXPECT_NE(answer(a).ids, answer(b).ids);
  std::map<int32_t, int> counts;
  for (size_t i = 0; i < answer(b).ids.size(); ++i) {
    int32_t best = -1;
    double most = -INFINITY;
    for (const Logprob& one : answer(b).logprobs[i].most) {
      double value = double{one.logprob} - 0.25 * counts[one.id] - 0.5 * (counts[one.id] > 0);
      if (one.id == 3) value += 1.5;
      if (one.id != 5 && value > most) most = value, best = one.id;
    }
    EXPECT_EQ(answer(b).ids[i], best) << i;
    ++counts[answer(b).ids[i]];
  }
}

TEST_P(EngineSampling, RepetitionPenaltyAndMinTokens) {
  Engine engine(model(), {.max_sequences = 4, .check_each_step = true});
  Random random(38);
  Request request{.prompt = random_ids(random, 20),
                  .sampling = {.temperature = 0,
                               .repetition_penalty = 1e6f,
                               .max_tokens = 60,
                               .ignore_eos = true},
                  .cache_salt = "",
                  .deadline = {}};
  const RequestId once = submit(engine, request);
  request.sampling.repetition_penalty = 1;
  const std::vector<int32_t> text = alone(request);
  request.sampling.stop_ids = {text[0], text[1]};
  request.sampling.ignore_eos = false;
  const RequestId at_once = submit(engine, request);
  request.sampling.min_tokens = 10;
  const RequestId later = submit(engine, request);
  run_out(engine);
  // Positive logits of ids that were there become nothing: as long as another one is positive, none comes again.
  const std::set<int32_t> distinct(answer(once).ids.begin(), answer(once).ids.begin() + 20);
  EXPECT_EQ(distinct.size(), 20u);
  for (const int32_t id : request.prompt) EXPECT_FALSE(distinct.contains(id)) << id;
  EXPECT_TRUE(answer(at_once).ids.empty());
  EXPECT_EQ(answer(at_once).finish, Finish::kStop);
  ASSERT_GE(answer(later).ids.size(), 10u);
  for (int i = 0; i < 10; ++i) {
    EXPECT_NE(answer(later).ids[i], text[0]);
    EXPECT_NE(answer(later).ids[i], text[1]);
  }
}

// What was said of each id when it came, is said of it in a prompt, bit for bit: whatever the chunks and neighbours.
TEST_P(EngineSampling, LogprobsOfATextAreThoseOfAPrompt) {
  Random random(39);
  Request request{.prompt = random_ids(random, 70),
                  .sampling = {.temperature = 1,
                               .seed = 3,
                               .max_tokens = 60,
                               .ignore_eos = true,
                               .logprobs = 2},
                  .cache_salt = "",
                  .deadline = {}};
  Engine engine(model(), {.max_sequences = 3, .max_rows = 48, .check_each_step = true});
  const RequestId first = submit(engine, request);
  run_out(engine);
  const std::vector<Logprobs> of_text = answer(first).logprobs;
  ASSERT_EQ(of_text.size(), 60u);
  double sum = 0;
  for (const Logprobs& one : of_text) {
    ASSERT_EQ(one.most.size(), 2u);
    EXPECT_GE(one.most[0].logprob, one.most[1].logprob);
    EXPECT_EQ(one.rank == 1, one.of.id == one.most[0].id || one.of.logprob == one.most[0].logprob);
    EXPECT_LE(one.of.logprob, one.most[0].logprob);
    sum += one.of.logprob;
  }
  EXPECT_LT(sum, -60.0);  // 96 ids, far from certain

  Request again = request;
  again.prompt.insert(again.prompt.end(), answer(first).ids.begin(), answer(first).ids.end());
  again.sampling = {.temperature = 0, .max_tokens = 1, .prompt_logprobs = 2};
  const RequestId beside = submit(engine, random_request(random, 90, 30));
  const RequestId second = submit(engine, again);
  run_out(engine);
  EXPECT_EQ(answer(beside).ends, 1);
  EXPECT_EQ(answer(second).cached, 0);
  const std::vector<Logprobs>& of_prompt = answer(second).prompt_logprobs;
  ASSERT_EQ(of_prompt.size(), again.prompt.size() - 1);
  for (size_t i = 0; i < of_text.size(); ++i) {
    const Logprobs& here = of_prompt[request.prompt.size() - 1 + i];
    EXPECT_EQ(here.of.id, of_text[i].of.id);
    EXPECT_EQ(here.of.logprob, of_text[i].of.logprob) << i;
    EXPECT_EQ(here.rank, of_text[i].rank);
    for (size_t j = 0; j < 2; ++j) EXPECT_EQ(here.most[j].id, of_text[i].most[j].id);
  }
  double share = 0;
  Request all = request;
  all.sampling.max_tokens = 1;
  all.sampling.logprobs = kVocabulary;
  const RequestId whole = submit(engine, all);
  run_out(engine);
  for (const Logprob& one : answer(whole).logprobs.at(0).most)
    share += std::exp(double{one.logprob});
  EXPECT_NEAR(share, 1, kVocabulary * 0x1p-20);  // f32 logarithms of up to about 8
}

TEST_P(EngineSampling, APreemptionDoesNotRepeatThePromptsLogprobs) {
  Random random(40);
  Engine engine(model(), {.max_sequences = 4, .max_rows = 64, .pages = 5, .check_each_step = true});
  std::vector<RequestId> ids;
  for (int i = 0; i < 4; ++i) {
    Request request{.prompt = random_ids(random, 100),
                    .sampling = {.temperature = 0, .max_tokens = 90, .ignore_eos = true},
                    .cache_salt = "",
                    .deadline = {}};
    request.sampling.prompt_logprobs = 0;
    ids.push_back(submit(engine, request));
  }
  run_out(engine);
  EXPECT_GT(engine.stats().preemptions, 0);
  for (const RequestId id : ids) {
    EXPECT_EQ(answer(id).prompt_logprobs.size(), 99u) << id;
    EXPECT_EQ(answer(id).cached, 0) << id;
  }
}

INSTANTIATE_TEST_SUITE_P(All, EngineSampling,
                         ::testing::Values(format::KvKind::kF16, format::KvKind::kInt4),
                         [](const auto& info) { return std::string(format::name(info.param)); });

}  // namespace
}  // namespace atom::engine
