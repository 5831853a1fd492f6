#include "eval/divergence.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <string>

#include "backend/open.h"
#include "eval/divergence_statistics.h"
#include "eval/logits_blocks.h"
#include "eval/perplexity.h"
#include "eval/windows.h"
#include "testing/expect_error.h"
#include "testing/random_data.h"

namespace atom::eval {
namespace {

using testing::expect_error;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// A token with this divergence, p(A) = 1/2 and p(B) = 1/2 + dp.
RowComparison token(double kld, double dp, bool same_top) {
  return {.kld = kld,
          .log_probability_a = std::log(0.5),
          .log_probability_b = std::log(0.5 + dp),
          .same_top = same_top};
}

TEST(DivergenceStatisticsTest, WindowsAreTheSample) {
  DivergenceStatistics statistics;
  statistics.add(std::vector{token(0.1, 0.25, true)});
  statistics.add(std::vector{token(0.3, -0.25, false)});
  statistics.end_window();
  EXPECT_DOUBLE_EQ(statistics.mean_kld(), 0.2);
  statistics.add(std::vector{token(0.5, 0, true), token(0.7, 0, true)});
  statistics.end_window();
  const DivergenceResult result = statistics.result();

  // Two values x and y: their standard deviation is |x - y| / sqrt(2), its error |x - y| / 2.
  EXPECT_DOUBLE_EQ(result.kld.value, 0.4);
  EXPECT_DOUBLE_EQ(result.kld.error.value(), 0.2);
  EXPECT_EQ(result.window_kld.size(), 2u);
  EXPECT_DOUBLE_EQ(result.window_kld[1], 0.6);
  EXPECT_DOUBLE_EQ(result.same_top.value, 0.75);
  EXPECT_DOUBLE_EQ(result.same_top.error.value(), 0.25);
  EXPECT_NEAR(result.mean_dp.value, 0, 1e-15);
  // Mean squares 1/16 and 0: their mean 1/32 with an error of 1/32.
  EXPECT_DOUBLE_EQ(result.rms_dp.value, std::sqrt(1.0 / 32));
  EXPECT_DOUBLE_EQ(result.rms_dp.error.value(), 1.0 / 32 / (2 * std::sqrt(1.0 / 32)));
  EXPECT_DOUBLE_EQ(result.perplexity_a, 2);
  // Window 0: ln(1/2) - ln(3/4) and ln(1/2) - ln(1/4), window 1: 0.
  const double ratio = -std::log(1.5 * 0.5) / 2;
  EXPECT_DOUBLE_EQ(result.ln_perplexity_ratio.value, ratio / 2);
  EXPECT_DOUBLE_EQ(result.ln_perplexity_ratio.error.value(), ratio / 2);
  EXPECT_NEAR(std::log(result.perplexity_b / result.perplexity_a), ratio / 2, 1e-14);
  EXPECT_EQ(result.tokens, 4);
  EXPECT_EQ(result.min_kld, 0.1);
  EXPECT_EQ(result.max_kld, 0.7);
}

TEST(DivergenceStatisticsTest, PercentilesAreExact) {
  Random random(3);
  DivergenceStatistics statistics;
  std::vector<RowComparison> rows;
  for (const int32_t rank : testing::permutation(random, 2001))
    rows.push_back(token(rank / 2000.0, 0, true));
  statistics.add(rows);
  statistics.end_window();
  const DivergenceResult result = statistics.result();
  for (size_t i = 0; i < kKldPercents.size(); ++i)
    EXPECT_NEAR(result.kld_percentiles[i], kKldPercents[i] / 100, 1e-12);

  DivergenceStatistics two;  // between tokens: linear
  two.add(std::vector{token(3, 0, true), token(1, 0, true)});
  two.end_window();
  EXPECT_DOUBLE_EQ(two.result().kld_percentiles[0], 2);
  EXPECT_DOUBLE_EQ(two.result().kld_percentiles[1], 2.8);
}

TEST(DivergenceStatisticsTest, OneWindowHasNoErrors) {
  DivergenceStatistics statistics;
  statistics.add(std::vector{token(0.1, 0.1, true)});
  statistics.end_window();
  const DivergenceResult result = statistics.result();
  for (const Estimate& figure :
       {result.kld, result.same_top, result.rms_dp, result.mean_dp, result.ln_perplexity_ratio})
    EXPECT_FALSE(figure.error.has_value());
}

std::unique_ptr<backend::Backend> make_backend(const std::string& name, Executor& executor) {
  return name == "reference" ? backend::make_reference_backend()
                             : backend::make_cpu_backend({.executor = &executor, .isa = ""});
}

std::unique_ptr<model::Model> load_fixture(const std::string& name, backend::Backend& backend) {
  const auto folder = std::filesystem::path(ATOM_TEST_DATA) / "model" / name;
  return model::load_model(checkpoint::ModelFiles::open(folder), backend, {});
}

std::vector<int32_t> random_ids(int count) {
  Random random(5);
  std::vector<int32_t> ids(count);
  for (int32_t& id : ids) id = testing::between(random, 0, 100);
  return ids;
}

// Logits of all predicting rows of a window.
std::vector<float> logits_of(const model::Model& model, std::span<const int32_t> ids) {
  WindowRunner runner(model, {.context = static_cast<int>(ids.size())});
  runner.begin(ids);
  std::vector<float> logits;
  while (const auto block = runner.next())
    logits.insert(logits.end(), block->logits,
                  block->logits + int64_t{block->rows} * model.config.vocabulary);
  return logits;
}

class DivergenceTest : public ::testing::TestWithParam<std::string> {
 protected:
  DivergenceTest() : executor_({.threads = 2}), backend_(make_backend(GetParam(), executor_)) {}

  std::unique_ptr<model::Model> load(const std::string& name) {
    return load_fixture(name, *backend_);
  }

  Executor executor_;
  std::unique_ptr<backend::Backend> backend_;
};

TEST_P(DivergenceTest, OfAModelFromItselfIsExactlyZero) {
  const auto model = load("llama-gqa"), again = load("llama-gqa");
  const DivergenceResult result =
      divergence(*model, *again, random_ids(100), {.executor = &executor_, .context = 32});
  EXPECT_EQ(result.kld.value, 0);
  EXPECT_EQ(result.kld.error, 0);
  EXPECT_EQ(result.max_kld, 0);
  EXPECT_EQ(result.kld_percentiles.back(), 0);
  EXPECT_EQ(result.same_top.value, 1);
  EXPECT_EQ(result.same_top.error, 0);
  EXPECT_EQ(result.rms_dp.value, 0);
  EXPECT_EQ(result.rms_dp.error, 0);
  EXPECT_EQ(result.ln_perplexity_ratio.value, 0);
  EXPECT_EQ(result.perplexity_a, result.perplexity_b);
  EXPECT_EQ(result.window_kld, std::vector<double>(3, 0));
  EXPECT_EQ(result.tokens, 3 * 31);
}

TEST_P(DivergenceTest, IsThatOfTheLogitsOfEachWindow) {
  const auto a = load("llama-gqa"), b = load("llama-tied");
  const std::vector<int32_t> ids = random_ids(70);
  std::vector<double> seen;
  DivergenceOptions options = {.executor = &executor_, .context = 32};
  options.progress = [&](int window, int windows, double so_far) {
    EXPECT_EQ(windows, 2);
    EXPECT_EQ(window, static_cast<int>(seen.size()) + 1);
    seen.push_back(so_far);
  };
  const DivergenceResult result = divergence(*a, *b, ids, options);

  double difference = 0;  // of the NLL, summed over tokens
  for (int window = 0; window < 2; ++window) {
    const std::span<const int32_t> part = std::span(ids).subspan(window * 32, 32);
    const Blocks blocks = {.vocabulary = a->config.vocabulary,
                           .a = logits_of(*a, part),
                           .b = logits_of(*b, part),
                           .targets = {part.begin() + 1, part.end()}};
    ASSERT_EQ(blocks.a.size(), 31u * blocks.vocabulary);
    double sum = 0;
    for (int row = 0; row < 31; ++row) {
      const RowComparison expected = by_definition(blocks, row);
      sum += expected.kld;
      difference += expected.log_probability_a - expected.log_probability_b;
    }
    EXPECT_NEAR(result.window_kld[window], sum / 31, kRounding);
  }
  EXPECT_EQ(seen, (std::vector<double>{result.window_kld[0], result.kld.value}));
  EXPECT_NEAR(result.ln_perplexity_ratio.value, difference / 62, kRounding);
  EXPECT_NEAR(result.kld.error.value(), std::abs(result.window_kld[0] - result.window_kld[1]) / 2,
              kRounding);
  // Of the cpu backend's log-probabilities the last bits differ.
  EXPECT_NEAR(result.perplexity_a, perplexity(*a, ids, {.context = 32}).perplexity, 1e-4);
  EXPECT_NEAR(result.perplexity_b, perplexity(*b, ids, {.context = 32}).perplexity, 1e-4);

  options.progress = {};
  EXPECT_NE(divergence(*b, *a, ids, options).kld.value, result.kld.value);
  options.max_windows = 1;
  EXPECT_EQ(divergence(*a, *b, ids, options).window_kld.size(), 1u);
}

void expect_same_bits(const DivergenceResult& a, const DivergenceResult& b) {
  EXPECT_EQ(a.window_kld, b.window_kld);
  EXPECT_EQ(a.kld.error, b.kld.error);
  EXPECT_EQ(a.kld_percentiles, b.kld_percentiles);
  EXPECT_EQ(a.rms_dp.value, b.rms_dp.value);
  EXPECT_EQ(a.ln_perplexity_ratio.value, b.ln_perplexity_ratio.value);
  EXPECT_EQ(a.perplexity_b, b.perplexity_b);
}

// Without an executor of its own, which would bound the threads of the others.
class DivergenceThreadsTest : public ::testing::TestWithParam<std::string> {};

TEST_P(DivergenceThreadsTest, StepsAndThreadsDoNotChangeABit) {
  const std::vector<int32_t> ids = random_ids(64);
  const auto compare = [&](int threads, int max_rows) {
    Executor executor({.threads = threads});
    const auto backend = make_backend(GetParam(), executor);
    const auto a = load_fixture("llama-gqa", *backend), b = load_fixture("llama-tied", *backend);
    return divergence(*a, *b, ids, {.executor = &executor, .context = 32, .max_rows = max_rows});
  };
  const DivergenceResult whole = compare(1, 32);
  for (const int rows : {1, 7, 31}) expect_same_bits(compare(2, rows), whole);
  expect_same_bits(compare(5, 32), whole);
}

TEST_P(DivergenceTest, RefusesWhatItCannotCompare) {
  const auto a = load("llama-gqa"), b = load("llama-gqa");
  std::vector<int32_t> ids = random_ids(300);
  const auto compare = [&](int context) {
    divergence(*a, *b, ids, {.executor = &executor_, .context = context});
  };
  expect_error([&] { compare(257); }, {"257", "max_position_embeddings", "model A", "256"});
  b->config.max_positions = 40;
  expect_error([&] { compare(41); }, {"41", "max_position_embeddings", "model B", "40"});
  expect_error([&] { compare(1); }, {"context of 1"});
  ids.resize(31);
  expect_error([&] { compare(32); }, {"31 tokens", "one window of 32"});
  ids.push_back(101);
  expect_error([&] { compare(32); }, {"101", "vocabulary"});
  b->config.vocabulary = 100;
  expect_error([&] { compare(32); }, {"vocabulary", "101", "model B", "100"});
}

TEST_P(DivergenceTest, NamesTheModelWhoseLogitsAreNotFinite) {
  const auto a = load("llama-gqa"), b = load("llama-gqa");
  b->ends->final_norm.as<float>()[0] = kNan;
  const std::vector<int32_t> ids = random_ids(32);
  const DivergenceOptions options = {.executor = &executor_, .context = 32};
  expect_error([&] { divergence(*a, *b, ids, options); },
               {"model B", "nan", "position 0", "window 0"});
  expect_error([&] { divergence(*b, *a, ids, options); }, {"model A", "nan", "position 0"});
}

INSTANTIATE_TEST_SUITE_P(Backends, DivergenceThreadsTest, ::testing::Values("reference", "cpu"),
                         [](const auto& info) { return info.param; });
INSTANTIATE_TEST_SUITE_P(Backends, DivergenceTest, ::testing::Values("reference", "cpu"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace atom::eval
