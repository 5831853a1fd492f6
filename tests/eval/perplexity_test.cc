#include "eval/perplexity.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <string>

#include "backend/open.h"
#include "base/file.h"
#include "base/json.h"
#include "testing/expect_error.h"

namespace atom::eval {
namespace {

using testing::expect_error;

struct Fixture {
  std::vector<int32_t> ids;
  std::vector<float> logits;  // [ids, vocabulary], of transformers
  int vocabulary = 0;
  double largest = 0;  // |logit|
};

Fixture read_fixture(const std::filesystem::path& folder) {
  const Json json = parse_json(read_file(folder / "expected.json"));
  Fixture fixture = {.ids = json["ids"].get<std::vector<int32_t>>(),
                     .vocabulary = json["vocab_size"].get<int>(),
                     .largest = json["max_abs_logit"].get<double>()};
  const std::string bytes = read_file(folder / "logits.f32");
  fixture.logits.resize(bytes.size() / sizeof(float));
  std::memcpy(fixture.logits.data(), bytes.data(), bytes.size());
  return fixture;
}

// Mean NLL of ids[1 ...] by the expected logits, in f64.
double expected_nll(const Fixture& fixture) {
  double sum = 0;
  for (size_t row = 0; row + 1 < fixture.ids.size(); ++row) {
    const float* logits = fixture.logits.data() + row * fixture.vocabulary;
    double mass = 0;
    for (int id = 0; id < fixture.vocabulary; ++id) mass += std::exp(double{logits[id]});
    sum += std::log(mass) - double{logits[fixture.ids[row + 1]]};
  }
  return sum / static_cast<double>(fixture.ids.size() - 1);
}

class PerplexityTest : public ::testing::TestWithParam<std::string> {
 protected:
  PerplexityTest() : executor_({.threads = 2}) {
    backend_ = GetParam() == "reference"
                   ? backend::make_reference_backend()
                   : backend::make_cpu_backend({.executor = &executor_, .isa = ""});
  }

  std::unique_ptr<model::Model> load(const std::string& name) {
    return model::load_model(checkpoint::ModelFiles::open(folder(name)), *backend_, {});
  }
  static std::filesystem::path folder(const std::string& name) {
    return std::filesystem::path(ATOM_TEST_DATA) / "model" / name;
  }

  Executor executor_;
  std::unique_ptr<backend::Backend> backend_;
};

TEST_P(PerplexityTest, IsThatOfTheExpectedLogits) {
  for (const char* name : {"llama-gqa", "llama-tied", "mixtral-4of2"}) {
    const Fixture fixture = read_fixture(folder(name));
    const auto model = load(name);
    const int context = static_cast<int>(fixture.ids.size());
    const PerplexityResult result = perplexity(*model, fixture.ids, {.context = context});
    // The forward promises logits within 1e-4 of the largest; a log-probability moves by at most
    // twice that.
    EXPECT_NEAR(result.nll, expected_nll(fixture), 2e-4 * fixture.largest) << name;
    EXPECT_EQ(result.tokens, context - 1);
    EXPECT_EQ(result.perplexity, std::exp(result.nll));
    ASSERT_EQ(result.window_nll.size(), 1u);
    EXPECT_EQ(result.window_nll[0], result.nll);
  }
}

TEST_P(PerplexityTest, WindowsStandAloneAndThePartialOneIsDropped) {
  const auto model = load("llama-gqa");
  const std::vector<int32_t> ids = read_fixture(folder("llama-gqa")).ids;
  std::vector<int32_t> text = ids;
  text.insert(text.end(), ids.begin(), ids.end());
  text.insert(text.end(), ids.begin(), ids.begin() + 9);

  std::vector<int> seen;
  PerplexityOptions options = {.context = 32};
  options.progress = [&](int window, int windows, double so_far) {
    EXPECT_EQ(windows, 2);
    EXPECT_GT(so_far, 1);
    seen.push_back(window);
  };
  const PerplexityResult result = perplexity(*model, text, options);
  ASSERT_EQ(result.window_nll.size(), 2u);
  EXPECT_EQ(result.window_nll[0], result.window_nll[1]);
  EXPECT_EQ(result.tokens, 62);
  EXPECT_EQ(seen, (std::vector<int>{1, 2}));

  options.progress = {};
  options.max_windows = 1;
  EXPECT_EQ(perplexity(*model, text, options).window_nll.size(), 1u);
  options.max_windows = 3;  // more than there are
  EXPECT_EQ(perplexity(*model, text, options).window_nll.size(), 2u);
}

TEST_P(PerplexityTest, StepSizeDoesNotChangeABit) {
  const auto model = load("mixtral-4of2");
  const std::vector<int32_t> ids = read_fixture(folder("mixtral-4of2")).ids;
  const int context = static_cast<int>(ids.size());
  const double whole = perplexity(*model, ids, {.context = context}).nll;
  // One row, steps that end within the window, and a last step whose only row predicts nothing.
  for (const int rows : {1, 7, context - 1})
    EXPECT_EQ(perplexity(*model, ids, {.context = context, .max_rows = rows}).nll, whole) << rows;
}

TEST_P(PerplexityTest, RefusesWhatItCannotScore) {
  const auto model = load("llama-gqa");
  std::vector<int32_t> ids(300, 5);
  const auto score = [&](int context) { perplexity(*model, ids, {.context = context}); };
  expect_error([&] { score(257); }, {"257", "max_position_embeddings", "256"});
  expect_error([&] { score(1); }, {"context of 1"});
  ids.resize(31);
  expect_error([&] { score(32); }, {"31 tokens", "one window of 32"});
  ids.push_back(101);
  expect_error([&] { score(32); }, {"101", "vocabulary"});
  ids.back() = -1;
  expect_error([&] { score(32); }, {"-1", "vocabulary"});
}

INSTANTIATE_TEST_SUITE_P(Backends, PerplexityTest, ::testing::Values("reference", "cpu"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace atom::eval
