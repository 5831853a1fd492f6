// Tuning: the rule, and that the fastest choice is kept; what a bench needs of memory; that data in the making can be
// interrupted. No time is asserted, but that many runs take longer than one.
#include "timing/tuning.h"

#include <gtest/gtest.h>

#include <map>
#include <stdexcept>

#include "backend/open.h"
#include "base/executor.h"
#include "model/random_model.h"
#include "timing/layer_ops.h"
#include "timing/memory.h"
#include "timing/small_config.h"

namespace atom::timing {
namespace {

TEST(Choose, TheFastestUnlessThePresentOneIsAsGood) {
  const auto chosen = [](std::vector<double> best) {
    std::vector<Timing> times;
    for (const double seconds : best) times.push_back({.best = seconds});
    return choose(times);
  };
  EXPECT_EQ(chosen({1}), 0);
  EXPECT_EQ(chosen({1, 2, 3}), 0);
  EXPECT_EQ(chosen({1.009, 2, 1}), 0);
  EXPECT_EQ(chosen({1.011, 2, 1}), 2);
  EXPECT_EQ(chosen({2, 1, 1.001}), 1);
}

model::Scheme small_scheme(const model::ModelConfig& config) {
  model::Scheme scheme;
  scheme.kv.assign(2, format::KvKind::kInt4);
  for (const std::string& module : model::linear_modules(config))
    scheme.linears.emplace(module, model::LinearScheme{.weight = format::int4_progressive(64),
                                                       .input = format::kInt8,
                                                       .kept_weight = format::kInt8,
                                                       .kept_input = format::kInt8,
                                                       .kept = 64});
  return scheme;
}

// Choices that multiply 40, 1 and 20 times.
class FakeTuner final : public backend::LinearTuner {
 public:
  explicit FakeTuner(backend::Backend& backend) : backend_(backend) {}
  std::vector<std::string> choices(const backend::PackedLinear&, int rows) override {
    if (rows == 2) return {"only"};
    return {"forty", "one", "twenty"};
  }
  void linear(const backend::LinearArgs& args, int choice) override {
    constexpr int kTimes[] = {40, 1, 20};
    for (int i = 0; i < kTimes[choice]; ++i) backend_.linear(args);
  }
  void prefer(const backend::PackedLinear&, int, const std::string&) override {
    FAIL() << "a linear alone is timed through linear()";
  }
  void keep(const backend::PackedLinear&, int rows, int choice, double seconds) override {
    EXPECT_GT(seconds, 0);
    kept[rows] = choice;
  }
  std::string file() const override { return ""; }

  std::map<int, int> kept;

 private:
  backend::Backend& backend_;
};

class TuningTest : public ::testing::Test {
 protected:
  Executor executor_{{.threads = 1}};
  std::unique_ptr<backend::Backend> backend_ =
      backend::open_backend("cpu", {.executor = &executor_});
};

TEST_F(TuningTest, KeepsTheFastest) {
  RandomData data(*backend_);
  FakeTuner tuner(*backend_);
  const auto head = make_head(*backend_, small_config(1), data, 0);
  EXPECT_EQ(head->n(), 96);
  EXPECT_EQ(head->k(), 128);
  LinearTuning tuning(*backend_, tuner, {.rounds = 3, .burst = 1e-3});
  EXPECT_FALSE(tuning.tune(*head, 2).has_value());
  const auto tuned = tuning.tune(*head, 3);
  ASSERT_TRUE(tuned.has_value());
  EXPECT_EQ(tuned->before, "forty");
  EXPECT_EQ(tuned->after, "one");
  EXPECT_EQ(tuned->choices, 3);
  EXPECT_EQ(tuned->rows, 3);
  EXPECT_LT(tuned->after_time.best, tuned->before_time.best);
  EXPECT_EQ(tuner.kept, (std::map<int, int>{{3, 1}}));
}

TEST_F(TuningTest, OtherBackendsHaveNothingToTune) {
  EXPECT_EQ(backend_->linear_tuner(), nullptr);
  EXPECT_EQ(backend::make_reference_backend()->linear_tuner(), nullptr);
}

TEST_F(TuningTest, DataInTheMakingCanBeInterrupted) {
  int asked = 0;
  RandomData data(*backend_, 1, [&] {
    if (++asked == 5) throw std::runtime_error("enough");
  });
  const model::ModelConfig config = small_config(1);
  // Four linears in at least ten copies.
  EXPECT_THROW(LayerOps(*backend_, config, small_scheme(config), data, 200'000),
               std::runtime_error);
  EXPECT_EQ(asked, 5);
}

TEST_F(TuningTest, MemoryIsThatOfTheModel) {
  for (const int experts : {1, 4}) {
    const model::ModelConfig config = small_config(experts);
    const model::Scheme scheme = small_scheme(config);
    const model::RandomModel random =
        model::make_random_model(*backend_, {.config = config, .scheme = scheme});
    EXPECT_EQ(layer_bytes(config, scheme),
              static_cast<double>(random.bytes.attention + experts * random.bytes.expert));
    // Embedding and head in f16, a page a layer for 10 positions and those of the steps, logits.
    const double page = 2 * 2 * 64 * (16 + 4);
    EXPECT_EQ(step_memory(config, scheme, {.batch = 3, .context = 10}),
              2 * layer_bytes(config, scheme) + 2 * 2.0 * 96 * 128 + 3 * 2 * page + 4.0 * 3 * 96);
  }
  const model::ModelConfig config = small_config(1);
  const double once = layer_ops_memory(config, small_scheme(config), 1, 0);
  EXPECT_GT(once, layer_bytes(config, small_scheme(config)));
  EXPECT_GT(layer_ops_memory(config, small_scheme(config), 1, 1 << 20), once + 3 * (1 << 20));
  // Two sequences of two pages, and rows of qkv and of the result.
  EXPECT_EQ(
      attention_ops_memory(config, {.cache = format::KvKind::kInt4, .contexts = {65, 128}}, 0),
      4.0 * 2 * 2 * 64 * (16 + 4) + 4.0 * 2 * (256 + 128));
}

}  // namespace
}  // namespace atom::timing
