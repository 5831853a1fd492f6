// What fits into a budget, what a trace draws, and an engine at work. Times are not asserted.
#include "timing/throughput.h"

#include <gtest/gtest.h>

#include <cmath>

#include "backend/open.h"
#include "base/executor.h"
#include "model/random_model.h"
#include "timing/memory.h"
#include "timing/small_config.h"

namespace atom::timing {
namespace {

model::Scheme scheme_of(const model::ModelConfig& config, format::KvKind kv) {
  model::Scheme scheme;
  scheme.quantized = true;
  scheme.kv.assign(static_cast<size_t>(config.layers), kv);
  scheme.open_page = format::has_int4_side(kv);
  for (const std::string& module : model::linear_modules(config))
    scheme.linears.emplace(module,
                           model::LinearScheme{.weight = format::kInt8, .input = format::kInt8});
  return scheme;
}

TEST(Trace, DrawsThePublishedLengths) {
  const Trace trace = Trace::published(4096);
  EXPECT_EQ(trace.name(), "published");
  EXPECT_EQ(trace.most_positions(), 2048);
  Random random(3);
  constexpr int kDraws = 20000;
  double prompts = 0, texts = 0;
  for (int i = 0; i < kDraws; ++i) {
    const Lengths one = trace.draw(random);
    ASSERT_GE(one.prompt, 1);
    ASSERT_GE(one.generated, 2);
    ASSERT_LE(one.prompt + one.generated, 2048);
    prompts += one.prompt;
    texts += one.generated;
  }
  // 640 requests of the publication have 15004 and 636994. Means of 20000, to about five standard errors: prompts deviate by 23
  // each (and lose half by rounding down), totals by 591.
  EXPECT_NEAR(prompts / kDraws, 18 * std::exp(0.32) - 1.5, 1);
  EXPECT_NEAR(texts / kDraws, 1023.5 - 23.3, 22);
}

TEST(Trace, RequestsInProgressAreThereForTheirSteps) {
  Random random(4);
  const Trace fixed = Trace::fixed({100, 50});
  EXPECT_EQ(fixed.name(), "100:50");
  double done = 0;
  for (int i = 0; i < 5000; ++i) {
    const Lengths one = fixed.in_progress(random);
    ASSERT_EQ(one.prompt + one.generated, 150);
    ASSERT_GE(one.prompt, 100);
    ASSERT_GE(one.generated, 1);
    done += one.prompt - 100;
  }
  EXPECT_NEAR(done / 5000, 24.5, 1);  // uniform below 50: 5 x 14.4 / sqrt(5000)
  // Of texts uniform up to 2048, half of E[n^2] / E[n] = two thirds of the most, behind the prompt.
  const Occupancy of = occupancy(Trace::published(2048), 64);
  EXPECT_NEAR(of.positions, 2048.0 / 3 + 23.3 / 2, 30);
  EXPECT_NEAR(of.pages, of.positions / 64 + 0.5, 0.2);
  EXPECT_NEAR(of.pages_deviation, 2048 / std::sqrt(18.0) / 64, 0.6);
}

// LLaMA-7B in 24 GiB: the publication's 8, 16, 32 and 64 sequences, with the memory of weights and reservations that they need.
TEST(Batch, IsThePublishedOne) {
  constexpr int64_t kGiB = int64_t{1} << 30, kBudget = 24 * kGiB;
  struct Case {
    double weights, reserved;  // GiB
    int batch;
  };
  for (const Case& c :
       {Case{12.55, 1.0, 8}, {3.62, 1.0, 16}, {6.52, 0.516, 32}, {3.68, 0.266, 64}}) {
    const MemoryUse use = {
        .weights = static_cast<int64_t>(c.weights * static_cast<double>(kGiB)),
        .page = static_cast<int64_t>(c.reserved * static_cast<double>(kGiB / 32))};
    const Batch batch = published_batch(use, kBudget);
    EXPECT_EQ(batch.sequences, c.batch);
    EXPECT_EQ(batch.pages, 32 * c.batch);
    EXPECT_LE(batch.bytes, kBudget);
    const Batch more = unrestricted_batch(use, kBudget, Trace::published(2048));
    EXPECT_GT(more.sequences, batch.sequences);
    EXPECT_LE(more.bytes, kBudget);
    EXPECT_GT(more.bytes + 2 * 32 * use.page, kBudget);
    EXPECT_EQ(published_batch(use, use.weights + 31 * use.page).sequences, 0);
    EXPECT_EQ(unrestricted_batch(use, use.weights - 1, Trace::published(2048)).sequences, 0);
  }
}

TEST(Batch, OpenPagesCount) {
  const MemoryUse without = {.weights = 0, .page = 10},
                  with = {.weights = 0, .page = 10, .open_page = 320};
  EXPECT_EQ(published_batch(without, 320 * 8).sequences, 8);
  EXPECT_EQ(published_batch(with, 320 * 8).sequences, 4);
}

TEST(MemoryUse, IsThatOfTheModel) {
  const auto backend = backend::open_backend("reference", {});
  for (const int experts : {1, 4}) {
    const model::ModelConfig config = small_config(experts);
    const model::Scheme scheme = scheme_of(config, format::KvKind::kInt4);
    const model::RandomModel random =
        model::make_random_model(*backend, {.config = config, .scheme = scheme});
    const model::WeightBytes bytes = weight_bytes(config, scheme);
    EXPECT_EQ(bytes.attention, random.bytes.attention);
    EXPECT_EQ(bytes.expert, random.bytes.expert);
    EXPECT_EQ(bytes.router, random.bytes.router);
    EXPECT_EQ(bytes.head, random.bytes.head);
    const kv::Pool pool = model::make_shared_pool(*random.model, 5, 3);
    const MemoryUse use = memory_use(config, scheme);
    EXPECT_EQ(5 * use.page + 3 * use.open_page, pool.bytes());
  }
}

TEST(MemoryUse, CountsFloatsAsTheCheckpointStoresThem) {
  for (const auto& [name, bytes] :
       {std::pair{"llama-tied", 4.0}, std::pair{"llama-mha", 2.0}}) {  // F32, BF16
    const auto files = checkpoint::ModelFiles::open(std::string(ATOM_TEST_DATA) + "/model/" + name);
    const model::ModelConfig config = model::parse_config(files.config(), name);
    const model::Scheme scheme =
        model::parse_scheme(files.config(), config, format::KvKind::kF32, name);
    EXPECT_EQ(float_bytes_of(files, config), bytes);
    double stored = 0;  // of matrices
    for (const std::string& name_of : files.tensor_names())
      if (const tensor::TensorView tensor = files.tensor(name_of); tensor.shape.dims().size() == 2)
        stored += static_cast<double>(tensor.bytes.size());
    if (config.tied_embeddings) stored += bytes * config.vocabulary * config.hidden;  // as the head
    EXPECT_EQ(static_cast<double>(memory_use(config, scheme, bytes).weights), stored) << name;
    EXPECT_EQ(static_cast<double>(weight_bytes(config, scheme, bytes).head),
              bytes * config.vocabulary * config.hidden);
  }
}

class Serving : public ::testing::TestWithParam<const char*> {
 protected:
  Executor executor_{{.threads = 2}};
  std::unique_ptr<backend::Backend> backend_ =
      backend::open_backend(GetParam(), {.executor = &executor_});
};

TEST_P(Serving, CountsWhatAnEngineDoes) {
  SampleClock clock(*backend_);
  const model::ModelConfig config = small_config();
  const model::Scheme scheme = scheme_of(config, format::KvKind::kInt4);
  const model::RandomModel random =
      model::make_random_model(clock, {.config = config, .scheme = scheme});
  int asked = 0;
  ThroughputOptions options = {.trace = Trace::fixed({10, 7}),
                               .batch = {.sequences = 3, .pages = 6},
                               .requests = 5,
                               .prompt_rows = 20,
                               .between = [&] { ++asked; }};
  const Throughput whole = measure_throughput(*random.model, clock, options);
  EXPECT_EQ(whole.prompt_tokens, 50);
  EXPECT_EQ(whole.generated_tokens, 35);
  EXPECT_EQ(whole.steps, asked);
  EXPECT_GT(whole.seconds, 0);
  EXPECT_GT(whole.sample_seconds, 0);
  EXPECT_GT(whole.schedule_seconds, 0);
  EXPECT_LT(whole.host_share(), 1);
  EXPECT_GT(whole.running, 1);
  EXPECT_LE(whole.running, 3);
  EXPECT_GT(whole.decode_seconds, 0);
  EXPECT_GE(whole.decode_positions, 11);
  EXPECT_LE(whole.decode_positions, 17);

  options.requests = 0;
  options.seconds = 0.01;
  const Throughput at_work = measure_throughput(*random.model, clock, options);
  EXPECT_GE(at_work.steps, 16);
  EXPECT_GT(at_work.generated_tokens, 16);
  EXPECT_LE(at_work.generated_tokens, 3 * at_work.steps);
  EXPECT_NEAR(at_work.running, 3, 0.5);
  EXPECT_GT(at_work.seconds_per_token(), 0);

  // Every step has a new prompt, and pages are too few for all.
  options.trace = Trace::fixed({64, 1});
  options.batch = {.sequences = 4, .pages = 3};
  const Throughput prompts = measure_throughput(*random.model, clock, options);
  EXPECT_GT(prompts.prompt_tokens, 0);
  EXPECT_EQ(prompts.decode_seconds, 0);
}

INSTANTIATE_TEST_SUITE_P(Backends, Serving, ::testing::Values("reference", "cpu"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace atom::timing
