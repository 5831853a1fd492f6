// A small random model on `cpu`, an engine's answers to requests, and what each request gets alone.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "backend/open.h"
#include "base/executor.h"
#include "engine/engine.h"
#include "engine/generate.h"
#include "model/random_model.h"
#include "testing/random_data.h"

namespace atom::engine {

using atom::testing::between;

inline constexpr int kVocabulary = 96;

inline model::ModelConfig config_of() {
  model::ModelConfig config;
  config.family = &model::find_family("LlamaForCausalLM", "test");
  config.vocabulary = kVocabulary;
  config.eos_ids = {7};
  config.hidden = 128;
  config.intermediate = 256;
  config.layers = 2;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_dim = 32;
  config.max_positions = 512;
  config.norm_epsilon = 1e-5f;
  config.rope_theta = 10000;
  config.experts = config.experts_per_token = 1;
  return config;
}

inline model::Scheme scheme_of(const model::ModelConfig& config, format::KvKind kv) {
  model::Scheme scheme;
  scheme.quantized = true;
  scheme.kv.assign(static_cast<size_t>(config.layers), kv);
  scheme.open_page = format::has_int4_side(kv);
  for (const std::string& module : model::linear_modules(config))
    scheme.linears.emplace(module,
                           model::LinearScheme{.weight = format::int4(32), .input = format::kInt8});
  return scheme;
}

// What a request got.
struct Answer {
  std::vector<int32_t> ids;
  Finish finish = Finish::kNot;
  std::string error;
  int ends = 0, cached = 0;
  std::vector<Logprobs> logprobs, prompt_logprobs;
};

class EngineTest : public ::testing::TestWithParam<format::KvKind> {
 protected:
  EngineTest()
      : backend_(backend::open_backend("cpu", {.executor = &executor_})),
        random_model_(model::make_random_model(
            *backend_, {.config = config_of(), .scheme = scheme_of(config_of(), GetParam())})) {}

  const model::Model& model() const { return *random_model_.model; }
  // A request whose answer begins to be filled in.
  RequestId submit(Engine& engine, const Request& request) {
    const auto answer = std::make_shared<Answer>();
    const RequestId id = engine.submit(request, [answer](const Event& event) {
      EXPECT_EQ(answer->ends, 0) << "an event after the last";
      if (event.id) answer->ids.push_back(*event.id);
      answer->cached = event.prompt_cached;
      if (event.logprobs) answer->logprobs.push_back(*event.logprobs);
      for (const Logprobs& one : event.prompt_logprobs) answer->prompt_logprobs.push_back(one);
      if (event.finish == Finish::kNot) return;
      answer->finish = event.finish;
      answer->error = event.error;
      ++answer->ends;
    });
    answers_[id] = answer;
    return id;
  }
  const Answer& answer(RequestId id) const { return *answers_.at(id); }
  std::vector<int32_t> alone(const Request& request) const {
    return generate(model(), request.prompt,
                    {.max_tokens = request.sampling.max_tokens,
                     .temperature = request.sampling.temperature,
                     .top_k = request.sampling.top_k,
                     .min_p = request.sampling.min_p,
                     .top_p = request.sampling.top_p,
                     .seed = request.sampling.seed,
                     .ignore_eos = request.sampling.ignore_eos,
                     .eos_ids = request.sampling.stop_ids})
        .ids;
  }

  Executor executor_{{.threads = 2}};
  std::unique_ptr<backend::Backend> backend_;
  model::RandomModel random_model_;
  std::map<RequestId, std::shared_ptr<Answer>> answers_;
};

inline std::vector<int32_t> random_ids(Random& random, int count) {
  std::vector<int32_t> ids(static_cast<size_t>(count));
  for (int32_t& id : ids) id = between(random, 0, kVocabulary - 1);
  return ids;
}

inline Request random_request(Random& random, int most_prompt, int most_new) {
  Request request{.prompt = random_ids(random, between(random, 1, most_prompt)),
                  .sampling = {},
                  .cache_salt = "",
                  .deadline = {}};
  SamplingOptions& s = request.sampling;
  s.temperature = random.below(2) == 0 ? 0.0f : 1.0f;
  if (random.below(3) == 0) s.top_k = 10;
  if (random.below(3) == 0) s.top_p = 0.8f;
  if (random.below(4) == 0) s.min_p = 0.3f;
  s.seed = random.next();
  s.max_tokens = between(random, 1, most_new);
  s.ignore_eos = random.below(2) == 0;
  if (random.below(2) == 0) s.stop_ids = random_ids(random, 2);
  return request;
}

inline void run_out(Engine& engine) {
  for (int steps = 0; engine.step(); ++steps) ASSERT_LT(steps, 20000) << "it does not end";
}

}  // namespace atom::engine
