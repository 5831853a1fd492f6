// Saturated codes of activations are counted where and when they should be, and counting changes no result.
#include "engine/saturation.h"

#include <gtest/gtest.h>

#include <cstring>
#include <optional>

#include "backend/forwarding.h"
#include "base/error.h"
#include "engine/engine_fixture.h"

namespace atom::engine {
namespace {

using backend::Activation;
using backend::ForwardingBackend;

// Counts by itself, from the definition: after each producer, by what export_codes() gives.
class CountingBackend final : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;
  void norm(const backend::NormArgs& args) override {
    ForwardingBackend::norm(args);
    count(args.y);
  }
  void attention(const backend::AttentionArgs& args) override {
    ForwardingBackend::attention(args);
    count(args.y);
  }
  void gate(const backend::GateArgs& args) override {
    ForwardingBackend::gate(args);
    count(args.y);
  }
  void embed(const backend::EmbedArgs& args) override {  // a step begins
    ForwardingBackend::embed(args);
    producer = 0;
    if (steps++ % period != 0) producer = -1;
  }

  int period = 1, steps = 0, producer = -1;
  Saturation expected;

 private:
  void count(const Activation& x) {
    if (producer < 0 || producer == static_cast<int>(expected.size()) * model::kSites) return;
    SiteCodes& codes = expected[static_cast<size_t>(producer / model::kSites)].at(
        static_cast<size_t>(producer % model::kSites));
    ++producer;
    const auto k = static_cast<size_t>(x.spec->k());
    std::vector<int8_t> all(k * static_cast<size_t>(x.rows));
    std::vector<float> scales(static_cast<size_t>(x.rows) *
                              static_cast<size_t>(format::groups(x.spec->segments)));
    export_codes(x, all.data(), scales.data());
    const int8_t* at = all.data();
    for (int row = 0; row < x.rows; ++row)
      for (const format::Segment& s : x.spec->segments.at) {
        if (format::is_integer(s.format)) codes.sampled += s.size;
        const int low = format::bits(s.format) == 8 ? -127 : -8,
                  high = format::bits(s.format) == 8 ? 127 : 7;
        const int group = format::group_size(s.format, s.size);
        for (int begin = 0; begin < s.size && format::is_integer(s.format); begin += group) {
          int ends = 0;
          for (int i = begin; i < std::min(begin + group, s.size); ++i)
            if (at[i] == low || at[i] == high) ++ends;
          codes.saturated += std::max(ends - 1, 0);
        }
        at += s.size;
      }
  }
};

struct Case {
  const char* name;
  format::Format input;
  int kept = 0, experts = 1;
};

class SaturationTest : public ::testing::TestWithParam<Case> {
 protected:
  SaturationTest() {
    model::ModelConfig config = config_of();
    if (GetParam().experts > 1) {
      config.family = &model::find_family("MixtralForCausalLM", "test");
      config.experts = GetParam().experts;
      config.experts_per_token = 2;
    }
    model::Scheme scheme = scheme_of(config, format::KvKind::kInt4);
    for (auto& [module, linear] : scheme.linears) {
      linear.input = GetParam().input;
      linear.clip = 0.6f;
      linear.kept = GetParam().kept;
      if (linear.kept > 0) linear.kept_weight = linear.kept_input = format::kInt8;
    }
    random_model_ = model::make_random_model(watching_, {.config = config, .scheme = scheme});
    watching_.expected.resize(static_cast<size_t>(config.layers));
  }
  // What requests of several steps get, decoding and prompts.
  std::map<RequestId, std::vector<int32_t>> answers(Engine& engine) {
    std::map<RequestId, std::vector<int32_t>> out;
    Random random(51);
    for (int i = 0; i < 3; ++i) {
      Request request = random_request(random, 40, 12);
      request.sampling.logprobs = 3;
      RequestId id = engine.submit(request, [&out](const Event& event) {
        std::vector<int32_t>& words = out[event.request];
        if (event.id) words.push_back(*event.id);
        if (!event.logprobs) return;
        int32_t bits = 0;
        std::memcpy(&bits, &event.logprobs->of.logprob, sizeof bits);
        words.push_back(bits);
      });
      out[id];
    }
    run_out(engine);
    return out;
  }

  Executor executor_{{.threads = 2}};
  std::unique_ptr<backend::Backend> backend_ =
      backend::open_backend("cpu", {.executor = &executor_});
  CountingBackend watching_{*backend_};
  model::RandomModel random_model_;
};

TEST_P(SaturationTest, CountsWhatTheDefinitionSaysAndChangesNothing) {
  std::optional<std::map<RequestId, std::vector<int32_t>>> first;
  for (const int period : {0, 1, 3}) {
    watching_.period = std::max(period, 1);
    watching_.steps = 0;
    watching_.expected.assign(watching_.expected.size(), {});
    Engine engine(*random_model_.model,
                  {.max_sequences = 4, .max_rows = 24, .saturation_steps = period});
    const auto got = answers(engine);
    if (!first) first = got;
    EXPECT_EQ(*first, got);
    const std::shared_ptr<const Saturation> counted = engine.stats().saturation;
    ASSERT_EQ(counted != nullptr, period != 0 && GetParam().input != format::kF32);
    if (!counted) continue;
    int64_t all = 0;
    for (size_t layer = 0; layer < counted->size(); ++layer)
      for (size_t site = 0; site < model::kSites; ++site) {
        SCOPED_TRACE(fmt::format("period {}, layer {}, site {}", period, layer, site));
        const SiteCodes a = (*counted)[layer].at(site), b = watching_.expected[layer].at(site);
        EXPECT_EQ(a.saturated, b.saturated);
        EXPECT_EQ(a.sampled, b.sampled);
        EXPECT_GT(a.sampled, 0);
        all += a.saturated;
      }
    if (format::bits(GetParam().input) == 4) {
      EXPECT_GT(all, 0);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, SaturationTest,
                         ::testing::Values(Case{"w4a4", format::int4(32), 16},
                                           Case{"w4a8", format::kInt8}, Case{"w4a16", format::kF32},
                                           Case{"mixture", format::int4(32), 0, 4}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace atom::engine
