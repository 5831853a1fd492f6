// Tuning in a step: each linear that has a choice gets the one with which the step is fastest. No time is asserted, but that
// multiplying fifty times takes longer than once.
#include <gtest/gtest.h>

#include <map>

#include "backend/forwarding.h"
#include "backend/open.h"
#include "model/random_model.h"
#include "timing/small_config.h"
#include "timing/tuning.h"

namespace atom::timing {
namespace {

// Multiplies as often as was preferred for the weight.
class RepeatingBackend final : public backend::ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;
  void linear(const backend::LinearArgs& args) override {
    const auto found = times.find(args.weights[0]);
    for (int i = 1; found != times.end() && i < found->second; ++i) {
      backend::LinearArgs again = args;
      again.then = backend::Then::kStore;
      if (args.then == backend::Then::kAdd) again.y = scratch.as<float>();
      inner().linear(again);
    }
    inner().linear(args);
  }

  std::map<const backend::PackedLinear*, int> times;
  backend::Buffer scratch = inner().allocate(1 << 16);
};

class RepeatingTuner final : public backend::LinearTuner {
 public:
  explicit RepeatingTuner(RepeatingBackend& backend) : backend_(backend) {}
  // Of every linear but the head, which is the one with 96 outputs.
  std::vector<std::string> choices(const backend::PackedLinear& weight, int) override {
    if (weight.n() == 96) return {"only"};
    return {"50", "1", "25"};
  }
  void linear(const backend::LinearArgs&, int) override { FAIL() << "steps are timed whole"; }
  void prefer(const backend::PackedLinear& weight, int rows, const std::string& choice) override {
    EXPECT_EQ(rows, 3);
    backend_.times[&weight] = std::stoi(choice);
  }
  void keep(const backend::PackedLinear& weight, int rows, int choice, double seconds) override {
    EXPECT_EQ(rows, 3);
    EXPECT_EQ(choice, 0);  // the one in use
    EXPECT_EQ(seconds, 0);
    kept[&weight] = backend_.times[&weight];
  }
  std::string file() const override { return ""; }

  std::map<const backend::PackedLinear*, int> kept;

 private:
  RepeatingBackend& backend_;
};

TEST(StepTuning, EachLinearGetsTheFastestAndTheNextOnesMeetIt) {
  const auto plain = backend::make_reference_backend();
  RepeatingBackend repeating(*plain);
  RepeatingTuner tuner(repeating);
  for (const int experts : {1, 4}) {
    const model::ModelConfig config = small_config(experts);
    model::Scheme scheme;
    scheme.kv.assign(static_cast<size_t>(config.layers), format::KvKind::kInt8);
    for (const std::string& module : model::linear_modules(config))
      scheme.linears.emplace(module,
                             model::LinearScheme{.weight = format::kInt8, .input = format::kInt8});
    const model::RandomModel random =
        model::make_random_model(repeating, {.config = config, .scheme = scheme});
    tuner.kept.clear();
    std::vector<std::string> announced, tuned;
    StepTuning tuning(*random.model, tuner, {.rounds = 2, .burst = 1e-3},
                      [&](const std::string& name) { announced.push_back(name); });
    for (const TunedLinear& linear : tuning.tune({.batch = 3, .context = 5})) {
      tuned.push_back(linear.name);
      EXPECT_EQ(linear.before, "50");
      EXPECT_EQ(linear.after, "1") << linear.name;
      EXPECT_EQ(linear.rows, 3);
      EXPECT_EQ(linear.choices, 3);
      EXPECT_LT(linear.after_time.best, linear.before_time.best);
    }
    const std::vector<std::string> of_experts = {"qkv", "o"};
    const std::vector<std::string> dense = {"qkv", "o", "gate+up", "down"};
    EXPECT_EQ(tuned, experts > 1 ? of_experts : dense);
    EXPECT_EQ(announced, tuned);
    EXPECT_EQ(tuner.kept.size(), tuned.size());
    for (const auto& [weight, times] : tuner.kept) EXPECT_EQ(times, 1);
    EXPECT_TRUE(tuner.kept.contains(random.model->layers[0]->qkv.get()));
  }
}

}  // namespace
}  // namespace atom::timing
