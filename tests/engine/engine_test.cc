// Many requests together get what each gets alone, whatever the others do.
#include "engine/engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "backend/forwarding.h"
#include "base/error.h"
#include "engine/engine_fixture.h"
#include "testing/expect_error.h"
#include "testing/sanitized.h"

namespace atom::engine {
namespace {

using atom::testing::expect_error;

TEST_P(EngineTest, ABatchGetsWhatEachGetsAlone) {
  Engine engine(model(),
                {.max_sequences = 64, .max_rows = 96, .pages = 256, .check_each_step = true});
  Random random(31);
  std::map<RequestId, Request> requests;
  for (int i = 0; i < (atom::testing::kSanitized ? 12 : 64); ++i) {
    const Request request = random_request(random, 150, 30);
    requests[submit(engine, request)] = request;
  }
  run_out(engine);
  for (const auto& [id, request] : requests) {
    EXPECT_EQ(answer(id).ids, alone(request)) << "request " << id;
    EXPECT_EQ(answer(id).ends, 1);
  }
  EXPECT_EQ(engine.stats().pages_held, 0);
  EXPECT_EQ(engine.stats().running + engine.stats().waiting, 0);
}

// Too few pages for all: some start anew, and nobody can tell.
TEST_P(EngineTest, PreemptionDoesNotShow) {
  Engine engine(model(), {.max_sequences = 8, .max_rows = 64, .pages = 9, .check_each_step = true});
  Random random(32);
  std::map<RequestId, Request> requests;
  for (int i = 0; i < 12; ++i) {
    Request request = random_request(random, 100, 10);
    request.sampling.max_tokens = 100;
    request.sampling.ignore_eos = true;
    requests[submit(engine, request)] = request;
  }
  run_out(engine);
  for (const auto& [id, request] : requests) EXPECT_EQ(answer(id).ids, alone(request)) << id;
  EXPECT_GT(engine.stats().preemptions, 0);
  EXPECT_EQ(engine.stats().pages_held, 0);
}

TEST_P(EngineTest, ACommonBeginningIsComputedOnce) {
  Random random(33);
  Request first{.prompt = random_ids(random, 200),
                .sampling = {.temperature = 0, .max_tokens = 5},
                .cache_salt = "",
                .deadline = {}};
  Request second = first, salted = first;
  second.prompt[150] ^= 1;
  salted.cache_salt = "another tenant";
  for (const bool cache : {true, false}) {
    Engine engine(
        model(), {.max_sequences = 4, .pages = 40, .prefix_cache = cache, .check_each_step = true});
    std::vector<RequestId> ids;
    for (const Request& request : {first, first, second, salted}) {
      ids.push_back(submit(engine, request));
      run_out(engine);
    }
    EXPECT_EQ(answer(ids[0]).cached, 0);
    EXPECT_EQ(answer(ids[1]).cached, cache ? 192 : 0);
    EXPECT_EQ(answer(ids[2]).cached, cache ? 128 : 0);
    EXPECT_EQ(answer(ids[3]).cached, 0);
    EXPECT_EQ(answer(ids[0]).ids, answer(ids[1]).ids);
    EXPECT_EQ(answer(ids[0]).ids, alone(first));
    EXPECT_EQ(answer(ids[2]).ids, alone(second));
    EXPECT_EQ(answer(ids[3]).ids, alone(first));
  }
}

// A prompt in chunks of any size gives the same ids, and decoding sequences do not wait for it.
TEST_P(EngineTest, ChunksOfAPromptDoNotShow) {
  Random random(34);
  const Request request{.prompt = random_ids(random, 300),
                        .sampling = {.temperature = 0, .max_tokens = 20, .ignore_eos = true},
                        .cache_salt = "",
                        .deadline = {}};
  const std::vector<int32_t> expected = alone(request);
  for (const int rows : {2, 7, 64, 512}) {
    if (rows < 64 && atom::testing::kSanitized) continue;
    Engine engine(model(), {.max_sequences = 2, .max_rows = rows, .check_each_step = true});
    const RequestId beside =
        submit(engine, {.prompt = {1, 2, 3},
                        .sampling = {.temperature = 0, .max_tokens = 40, .ignore_eos = true},
                        .cache_salt = "",
                        .deadline = {}});
    engine.step();
    if (rows < 3) engine.step();
    const RequestId id = submit(engine, request);
    for (int step = 0; step < 3; ++step) {
      const size_t before = answer(beside).ids.size();
      engine.step();
      EXPECT_EQ(answer(beside).ids.size(), before + 1);
    }
    run_out(engine);
    EXPECT_EQ(answer(id).ids, expected) << rows << " rows a step";
  }
}

TEST_P(EngineTest, CancelAndDeadlineFreePagesAtOnce) {
  Engine engine(model(),
                {.max_sequences = 2, .pages = 16, .prefix_cache = false, .check_each_step = true});
  Random random(35);
  Request request{.prompt = random_ids(random, 130),
                  .sampling = {.temperature = 0, .max_tokens = 100, .ignore_eos = true},
                  .cache_salt = "",
                  .deadline = {}};
  const RequestId running = submit(engine, request);
  request.deadline = 5.0;
  const RequestId late = submit(engine, request);
  const RequestId waiting = submit(engine, request);
  for (int i = 0; i < 4; ++i) engine.step(1);
  EXPECT_EQ(engine.stats().running, 2);
  EXPECT_GT(engine.stats().pages_held, 5);
  const int held = engine.stats().pages_held;
  EXPECT_TRUE(engine.cancel(running));
  EXPECT_LT(engine.stats().pages_held, held);
  EXPECT_FALSE(engine.cancel(running));
  EXPECT_EQ(answer(running).finish, Finish::kCancelled);
  engine.step(6);
  EXPECT_EQ(answer(late).finish, Finish::kDeadline);
  EXPECT_EQ(answer(waiting).finish, Finish::kDeadline);
  EXPECT_EQ(engine.stats().pages_held, 0);
  EXPECT_FALSE(engine.step(7));
}

// Random arrivals, cancellations and shortages: one end each, whole texts equal, nothing left.
TEST_P(EngineTest, AnyMixtureEndsWell) {
  Random random(36);
  for (int round = 0; round < (atom::testing::kSanitized ? 1 : 4); ++round) {
    Engine engine(model(), {.max_sequences = between(random, 1, 6),
                            .max_rows = between(random, 6, 80),
                            .max_positions = 256,
                            .pages = between(random, 4, 12),
                            .prefix_cache = random.below(4) != 0,
                            .check_each_step = true});
    const std::vector<int32_t> common = random_ids(random, 100);
    std::map<RequestId, Request> requests;
    std::set<RequestId> cancelled;
    for (int turn = 0; turn < 120; ++turn) {
      if (random.below(4) == 0) {
        Request request = random_request(random, 60, 40);
        if (random.below(2) == 0)
          request.prompt.insert(request.prompt.begin(), common.begin(),
                                common.begin() + between(random, 1, 100));
        requests[submit(engine, request)] = request;
      }
      if (random.below(12) == 0 && !requests.empty()) {
        const RequestId id = 1 + random.below(requests.size());
        if (engine.cancel(id)) cancelled.insert(id);
      }
      engine.step();
    }
    run_out(engine);
    EXPECT_EQ(engine.stats().pages_held, 0);
    for (const auto& [id, request] : requests) {
      EXPECT_EQ(answer(id).ends, 1) << id;
      const std::vector<int32_t> whole = alone(request);
      const std::vector<int32_t>& got = answer(id).ids;
      if (cancelled.contains(id)) {
        ASSERT_LE(got.size(), whole.size());
        EXPECT_TRUE(std::equal(got.begin(), got.end(), whole.begin()));
      } else {
        EXPECT_EQ(got, whole) << id;
      }
    }
    answers_.clear();
  }
}

// Fails once, when told to.
class FailingBackend final : public backend::ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;
  void sample(const backend::SampleArgs& args) override {
    if (std::exchange(fails, false)) fail("the device is on fire");
    ForwardingBackend::sample(args);
  }
  bool fails = false;
};

TEST_P(EngineTest, AFailingDeviceFailsTheStepOnly) {
  FailingBackend failing(*backend_);
  const model::RandomModel random_model = model::make_random_model(
      failing, {.config = config_of(), .scheme = scheme_of(config_of(), GetParam())});
  Engine engine(*random_model.model, {.max_sequences = 2, .check_each_step = true});
  const Request request{
      .prompt = {1, 2, 3},
      .sampling = {.temperature = 1, .seed = 4, .max_tokens = 6, .ignore_eos = true},
      .cache_salt = "",
      .deadline = {}};
  const RequestId a = submit(engine, request), b = submit(engine, request),
                  waiting = submit(engine, request);
  engine.step();
  failing.fails = true;
  EXPECT_TRUE(engine.step());
  for (const RequestId id : {a, b}) {
    EXPECT_EQ(answer(id).finish, Finish::kError);
    EXPECT_EQ(answer(id).error, "the device is on fire");
    EXPECT_EQ(answer(id).ids.size(), 1u);
  }
  EXPECT_EQ(engine.stats().pages_held, 0);
  run_out(engine);
  EXPECT_EQ(answer(waiting).finish, Finish::kLength);
  EXPECT_EQ(answer(waiting).ids, alone(request));
}

TEST_P(EngineTest, AThrowingSinkEndsItsRequestOnly) {
  Engine engine(model(), {.max_sequences = 2, .check_each_step = true});
  const Request request{.prompt = {1, 2, 3},
                        .sampling = {.temperature = 1, .seed = 4, .max_tokens = 6},
                        .cache_salt = "",
                        .deadline = {}};
  int told = 0;
  engine.submit(request, [&](const Event&) {
    ++told;
    throw std::runtime_error("the line is cut");
  });
  const RequestId beside = submit(engine, request);
  run_out(engine);
  EXPECT_EQ(told, 1);
  EXPECT_EQ(answer(beside).ids, alone(request));
  EXPECT_EQ(engine.stats().pages_held, 0);
}

TEST_P(EngineTest, RefusesWhatItCannotDo) {
  Engine engine(model(),
                {.max_sequences = 2, .pages = 4, .max_waiting = 2, .max_waiting_tokens = 50});
  const auto refused = [&](Request request, std::initializer_list<std::string_view> parts) {
    expect_error([&] { submit(engine, request); }, parts);
  };
  const Request good{
      .prompt = {1, 2, 3}, .sampling = {.max_tokens = 4}, .cache_salt = "", .deadline = {}};
  Request bad = good;
  bad.prompt = {};
  refused(bad, {"prompt is empty"});
  bad = good, bad.prompt[1] = kVocabulary;
  refused(bad, {"96", "vocabulary"});
  bad = good, bad.prompt[1] = -1;
  refused(bad, {"-1", "vocabulary"});
  bad = good, bad.sampling.max_tokens = 0;
  refused(bad, {"max_tokens", "0"});
  bad = good, bad.sampling.max_tokens = 510;
  refused(bad, {"510", "512 positions"});
  bad = good, bad.sampling.max_tokens = 254;
  refused(bad, {"254", "256 tokens"});
  bad = good, bad.sampling.temperature = std::nanf("");
  refused(bad, {"temperature"});
  bad = good, bad.sampling.top_p = 0;
  refused(bad, {"top_p", "0"});
  bad = good, bad.sampling.min_p = 1.5f;
  refused(bad, {"min_p", "1.5"});
  bad = good, bad.sampling.top_k = -1;
  refused(bad, {"top_k", "-1"});
  bad = good, bad.sampling.repetition_penalty = 0;
  refused(bad, {"repetition_penalty", "0"});
  bad = good, bad.sampling.presence_penalty = 2.5f;
  refused(bad, {"presence_penalty", "2.5"});
  bad = good, bad.sampling.logit_bias = {{96, 1.0f}};
  refused(bad, {"logit_bias", "96"});
  bad = good, bad.sampling.logit_bias = {{1, std::nanf("")}};
  refused(bad, {"logit_bias", "nan"});
  bad = good, bad.sampling.stop_ids = {-5};
  refused(bad, {"stop id", "-5"});
  bad = good, bad.sampling.min_tokens = 5;
  refused(bad, {"min_tokens", "5", "4"});
  bad = good, bad.sampling.logprobs = -1;
  refused(bad, {"logprobs", "-1"});
  bad = good, bad.sampling.prompt_logprobs = 97;
  refused(bad, {"prompt_logprobs", "97"});
  submit(engine, good);
  bad = good, bad.prompt.assign(60, 1);
  EXPECT_THROW(submit(engine, bad), Overloaded);
  submit(engine, good);
  EXPECT_THROW(submit(engine, good), Overloaded);
  run_out(engine);
  EXPECT_EQ(engine.stats().prompt_tokens, 6);
  expect_error([&] { Engine(model(), {.max_sequences = 8, .max_rows = 4}); }, {"4 rows", "8"});
  expect_error([&] { Engine(model(), {.max_positions = 513}); }, {"513", "512"});
}

INSTANTIATE_TEST_SUITE_P(All, EngineTest,
                         ::testing::Values(format::KvKind::kF16, format::KvKind::kInt4),
                         [](const auto& info) { return std::string(format::name(info.param)); });

}  // namespace
}  // namespace atom::engine
