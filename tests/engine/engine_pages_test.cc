// Pages of an engine's requests: equal prompts are computed once, failed requests leave nothing behind, long ones fit.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "backend/forwarding.h"
#include "engine/engine_fixture.h"
#include "testing/sanitized.h"

namespace atom::engine {
namespace {

// Counts rows and recordings, and makes rows of one id NaN.
class WatchingBackend final : public backend::ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;
  void embed(const backend::EmbedArgs& args) override {
    ForwardingBackend::embed(args);
    rows += args.rows;
    most_rows = std::max(most_rows, args.rows);
    for (int row = 0; row < args.rows; ++row)
      if (args.ids[row] == poison)
        args.y[static_cast<size_t>(row) * 128] = std::numeric_limits<float>::quiet_NaN();
  }
  std::unique_ptr<backend::Recording> record(backend::StepFunction step) override {
    ++recorded;
    return ForwardingBackend::record(std::move(step));
  }
  int rows = 0, most_rows = 0, recorded = 0;
  int32_t poison = -1;
};

class EnginePages : public EngineTest {
 protected:
  EnginePages()
      : watching_(*backend_),
        watched_(model::make_random_model(
            watching_, {.config = config_of(), .scheme = scheme_of(config_of(), GetParam())})) {}

  const model::Model& watched() const { return *watched_.model; }
  static Request request_of(std::vector<int32_t> prompt, int max_tokens = 5) {
    return {.prompt = std::move(prompt),
            .sampling = {.temperature = 1, .max_tokens = max_tokens, .ignore_eos = true},
            .cache_salt = "",
            .deadline = {}};
  }

  WatchingBackend watching_;
  model::RandomModel watched_;
};

TEST_P(EnginePages, EqualPromptsAreComputedOnce) {
  Engine engine(watched(),
                {.max_sequences = 8, .max_rows = 100, .pages = 64, .check_each_step = true});
  Random random(50);
  const int pages = atom::testing::kSanitized ? 3 : 7, beyond = 10, copies = 8;
  Request request = request_of(random_ids(random, pages * 64 + beyond));
  std::map<RequestId, Request> requests;
  for (int i = 0; i < copies; ++i) {
    request.sampling.seed = static_cast<uint64_t>(i);
    requests[submit(engine, request)] = request;
  }
  int most_held = 0;
  while (engine.step()) most_held = std::max(most_held, engine.stats().pages_held);
  EXPECT_EQ(most_held, pages + copies);
  // The last of the new ids has no row.
  EXPECT_EQ(watching_.rows, pages * 64 + copies * (beyond + request.sampling.max_tokens - 1));
  for (const auto& [id, one] : requests) EXPECT_EQ(answer(id).ids, alone(one)) << id;
}

// Who waits for a page lets others pass, and computes it itself when the one that would have does not.
TEST_P(EnginePages, AWaitForAPageEnds) {
  Engine engine(watched(),
                {.max_sequences = 4, .max_rows = 90, .pages = 40, .check_each_step = true});
  Random random(51);
  const Request request = request_of(random_ids(random, 200));
  const Request other = request_of(random_ids(random, 20));
  const RequestId first = submit(engine, request), second = submit(engine, request),
                  third = submit(engine, request), passes = submit(engine, other);
  engine.step();
  EXPECT_EQ(engine.stats().running, 1);  // its 90 rows leave none to the others
  engine.cancel(first);                  // one page of it is there
  for (int i = 0; i < 2; ++i) engine.step();
  EXPECT_EQ(engine.stats().waiting,
            1);  // the third, for the page that the second has just computed
  EXPECT_EQ(engine.stats().running, 2);
  engine.step();
  EXPECT_EQ(engine.stats().waiting, 0);
  run_out(engine);
  EXPECT_EQ(answer(second).ids, alone(request));
  EXPECT_EQ(answer(third).ids, alone(request));
  EXPECT_EQ(answer(third).cached, 192);
  EXPECT_EQ(answer(passes).ids, alone(other));
}

TEST_P(EnginePages, NanFailsItsRequestAndLeavesNoPages) {
  Engine engine(watched(),
                {.max_sequences = 4, .max_rows = 150, .pages = 40, .check_each_step = true});
  Random random(52);
  Request poisoned = request_of(random_ids(random, 200));
  for (int32_t& id : poisoned.prompt) id = id == 5 ? 6 : id;
  Request beside = request_of(random_ids(random, 60), 20);
  for (int32_t& id : beside.prompt) id = id == 5 ? 6 : id;
  beside.sampling.logit_bias = {{5, -std::numeric_limits<float>::infinity()}};
  poisoned.prompt[20] = 5;
  watching_.poison = 5;
  const RequestId good = submit(engine, beside), bad = submit(engine, poisoned);
  run_out(engine);
  EXPECT_EQ(answer(bad).finish, Finish::kError);
  EXPECT_NE(answer(bad).error.find("not finite at position 199"), std::string::npos);
  EXPECT_EQ(answer(good).ids.size(), 20u);
  watching_.poison = -1;
  const RequestId good_again = submit(engine, beside), bad_again = submit(engine, poisoned);
  run_out(engine);
  EXPECT_EQ(answer(good).ids, answer(good_again).ids);
  EXPECT_EQ(answer(bad_again).cached, 0);
  EXPECT_EQ(answer(bad_again).ids, alone(poisoned));
}

// Rows whose logits go to the host are few in a step in which a text goes on, and as many as there are rows otherwise.
TEST_P(EnginePages, ScoredPromptsDoNotHoldUpTexts) {
  Engine engine(watched(),
                {.max_sequences = 4, .max_rows = 256, .pages = 40, .check_each_step = true});
  Random random(53);
  Request scored = request_of(random_ids(random, 300));
  scored.sampling.prompt_logprobs = 0;
  submit(engine, request_of({1, 2, 3}, 10));
  engine.step();
  submit(engine, scored);
  for (int i = 0; i < 3; ++i) engine.step();
  EXPECT_EQ(watching_.most_rows, 65);
  run_out(engine);
  const RequestId alone_now = submit(engine, scored);
  run_out(engine);
  EXPECT_EQ(watching_.most_rows, 256);
  EXPECT_EQ(answer(alone_now).prompt_logprobs.size(), 299u);
}

// Those that come later find no place before the copies that wait for a page.
TEST_P(EnginePages, WhoPassesLeavesPlaces) {
  Engine engine(watched(),
                {.max_sequences = 4, .max_rows = 512, .pages = 64, .check_each_step = true});
  Random random(54);
  const Request copy = request_of(random_ids(random, 200), 3);
  for (int i = 0; i < 4; ++i) submit(engine, copy);
  for (int i = 0; i < 3; ++i) submit(engine, request_of(random_ids(random, 20), 30));
  engine.step();
  EXPECT_EQ(engine.stats().running, 1);
  engine.step();
  EXPECT_EQ(engine.stats().running, 4);
  EXPECT_EQ(engine.stats().cached_tokens, 3 * 192);
  run_out(engine);
}

// A prompt that would get no row of those that are scored takes neither place nor pages.
TEST_P(EnginePages, ScoredPromptsWaitForTheirTurn) {
  Engine engine(watched(),
                {.max_sequences = 6, .max_rows = 256, .pages = 40, .check_each_step = true});
  Random random(55);
  submit(engine, request_of({1, 2, 3}, 10));
  engine.step();
  for (int i = 0; i < 3; ++i) {
    Request scored = request_of(random_ids(random, 100), 2);
    scored.sampling.prompt_logprobs = 0;
    submit(engine, scored);
  }
  engine.step();
  EXPECT_EQ(engine.stats().running, 2);
  const RequestId plain = submit(engine, request_of({4, 5, 6}, 2));
  engine.step();
  EXPECT_EQ(engine.stats().running,
            4);  // the second, whose turn it is beside the first, and the plain one
  run_out(engine);
  EXPECT_EQ(answer(plain).ids.size(), 2u);
}

// One recording for each number of texts, whatever comes between; a GPU replays them.
TEST_P(EnginePages, StepsAreRecordedOnce) {
  Engine engine(watched(), {.max_sequences = 4, .pages = 40, .check_each_step = true});
  Random random(54);
  std::map<RequestId, Request> requests;
  for (int i = 0; i < 6; ++i) {
    const Request request = request_of(random_ids(random, 20), 10 + 7 * (i % 3));
    requests[submit(engine, request)] = request;
  }
  run_out(engine);
  EXPECT_GE(watching_.recorded, 1);
  EXPECT_LE(watching_.recorded, 4);
  for (const auto& [id, request] : requests) EXPECT_EQ(answer(id).ids, alone(request)) << id;
}

TEST_P(EnginePages, TheEndOfAnEngineEndsItsRequests) {
  RequestId running = 0, waiting = 0;
  {
    Engine engine(watched(), {.max_sequences = 1, .check_each_step = true});
    running = submit(engine, request_of({1, 2, 3}, 10));
    waiting = submit(engine, request_of({1, 2, 3}, 10));
    engine.step();
  }
  for (const RequestId id : {running, waiting}) {
    EXPECT_EQ(answer(id).ends, 1);
    EXPECT_EQ(answer(id).finish, Finish::kCancelled);
  }
}

INSTANTIATE_TEST_SUITE_P(All, EnginePages,
                         ::testing::Values(format::KvKind::kF16, format::KvKind::kInt4),
                         [](const auto& info) { return std::string(format::name(info.param)); });

// 32768 positions in four bits: what was read in long chunks is read in single rows, by another request too.
TEST(LongContext, AnInt4CacheHoldsALongPrompt) {
  const int length = atom::testing::kSanitized ? 2048 : 32768;
  model::ModelConfig config = config_of();
  config.layers = config.heads = config.kv_heads = 1;
  config.max_positions = length;
  Executor executor({.threads = 2});
  const auto backend = backend::open_backend("cpu", {.executor = &executor});
  const model::RandomModel random_model = model::make_random_model(
      *backend, {.config = config, .scheme = scheme_of(config, format::KvKind::kInt4)});
  Random random(54);
  Request request{.prompt = random_ids(random, length - 20),
                  .sampling = {.temperature = 0, .max_tokens = 20, .ignore_eos = true},
                  .cache_salt = "",
                  .deadline = {}};
  Engine engine(
      *random_model.model,
      {.max_sequences = 2, .max_rows = 2048, .pages = length / 64 + 2, .check_each_step = true});
  std::vector<int32_t> ids[2];
  int cached[2] = {};
  for (int i = 0; i < 2; ++i) {
    engine.submit(request, [&, i](const Event& event) {
      if (event.id) ids[i].push_back(*event.id);
      cached[i] = event.prompt_cached;
      EXPECT_NE(event.finish, Finish::kError) << event.error;
    });
    run_out(engine);
  }
  EXPECT_EQ(ids[0].size(), 20u);
  EXPECT_EQ(ids[0], ids[1]);
  EXPECT_EQ(cached[0], 0);
  EXPECT_EQ(cached[1], (length - 21) / 64 * 64);
  EXPECT_EQ(engine.stats().pages_held, 0);
}

}  // namespace
}  // namespace atom::engine
