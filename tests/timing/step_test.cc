// Timed steps: every kind runs by itself, results stay finite, floors follow the formula. Times are not asserted.
#include "timing/step.h"
#include "timing/small_config.h"

#include <gtest/gtest.h>

#include <cmath>

#include "backend/open.h"
#include "base/executor.h"

namespace atom::timing {
namespace {

model::ModelConfig wide_heads(int experts) {
  model::ModelConfig config = small_config(experts);
  config.intermediate = 256;
  config.heads = 2;
  config.kv_heads = 1;
  config.head_dim = 64;
  return config;
}

model::RandomModel small_model(backend::Backend& backend, int experts) {
  model::Scheme scheme;
  scheme.kv.assign(2, format::KvKind::kInt4);
  scheme.open_page = true;
  const model::ModelConfig config = wide_heads(experts);
  for (const std::string& module : model::linear_modules(config))
    scheme.linears.emplace(module,
                           model::LinearScheme{.weight = format::kInt8, .input = format::kInt8});
  return model::make_random_model(backend, {.config = config, .scheme = scheme});
}

TEST(StepBench, TimesEveryKindAndStaysFinite) {
  Executor executor({.threads = 2});
  const auto backend = backend::open_backend("cpu", {.executor = &executor});
  for (const int experts : {1, 4}) {
    const model::RandomModel random = small_model(*backend, experts);
    StepBench bench(*random.model, {.batch = 3, .context = 50});
    int asked = 0;
    const StepTimes times =
        bench.measure({.rounds = 2, .burst = 0.001, .between = [&] { ++asked; }});
    EXPECT_GT(asked, 0);
    EXPECT_GT(times.step.best, 0);
    EXPECT_GE(times.step.median, times.step.best);
    EXPECT_GT(times.sample, 0);
    for (int i = 0; i < kKinds; ++i)
      EXPECT_EQ(times.kinds[static_cast<size_t>(i)] > 0,
                experts > 1 || static_cast<Kind>(i) != Kind::kRouting);
    for (const float logit : bench.logits()) EXPECT_TRUE(std::isfinite(logit));
  }
}

TEST(StepBench, AnInterruptEndsIt) {
  const auto backend = backend::open_backend("reference", {});
  const model::RandomModel random = small_model(*backend, 1);
  StepBench bench(*random.model, {.batch = 1, .context = 8});
  EXPECT_THROW(bench.measure({.rounds = 1, .burst = 0.001, .between = [] { throw 1; }}), int);
}

TEST(StepFloors, AreBytesOverTheCeiling) {
  const auto backend = backend::open_backend("reference", {});
  const model::RandomModel random = small_model(*backend, 4);
  const backend::Ceilings none,
      ceilings{.read_bytes = 1e9, .operations16 = 1e30, .operations8 = 1e30};
  EXPECT_EQ(step_floors(*random.model, random.bytes, {1, 64}, none).sum(), 0);
  const StepFloors one = step_floors(*random.model, random.bytes, {1, 64}, ceilings);
  // One row reads the two experts that it chooses; many rows read all four.
  const double rest = static_cast<double>(random.bytes.attention + random.bytes.router);
  const double expert = static_cast<double>(random.bytes.expert);
  EXPECT_NEAR(one.linears, 2 * (rest + 2 * expert) / 1e9, 1e-12);
  const StepFloors many = step_floors(*random.model, random.bytes, {1000, 64}, ceilings);
  EXPECT_NEAR(many.linears, 2 * (rest + 4 * expert) / 1e9, 1e-12);
  // Per token and layer: K and V of one head of 64 in four bits, lo and step in f16 each.
  EXPECT_NEAR(one.attention, 2 * 64 * 2 * (32 + 4) / 1e9, 1e-12);
  EXPECT_NEAR(one.head, 2 * 96 * 128 / 1e9, 1e-12);
  const backend::Ceilings slow{.read_bytes = 1e30, .operations16 = 1e9, .operations8 = 1e9};
  // Products of both layers: q, k, v, o and two of four experts.
  EXPECT_NEAR(step_floors(*random.model, random.bytes, {1, 64}, slow).linears,
              2 * 2.0 * (128 * 256 + 128 * 128 + 2 * 3 * 128 * 256) / 1e9, 1e-9);
}

}  // namespace
}  // namespace atom::timing
