#include "timing/tuning.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "base/random.h"
#include "model/random_model.h"

namespace atom::timing {
namespace {

constexpr double kSameTime = 0.01;      // of the fastest: not worth another plan
constexpr double kWorthAnother = 0.15;  // slower than the fastest at a first look
constexpr size_t kMostFinalists = 8;
constexpr int kBriefRounds = 2;
constexpr double kBriefBurst = 0.005;  // seconds

// Of choices 0 .. : the first, and those that a first look found fast, fastest first.
std::vector<int> finalists(std::span<const Timing> times) {
  std::vector<int> order(times.size());
  std::iota(order.begin(), order.end(), 0);
  const auto best = [&](int i) { return times[static_cast<size_t>(i)].best; };
  std::sort(order.begin(), order.end(), [&](int a, int b) { return best(a) < best(b); });
  std::vector<int> out = {0};
  for (const int i : order)
    if (i != 0 && out.size() < kMostFinalists && best(i) <= (1 + kWorthAnother) * best(order[0]))
      out.push_back(i);
  return out;
}

}  // namespace

int choose(std::span<const Timing> times) {
  const auto fastest = std::min_element(
      times.begin(), times.end(), [](const Timing& a, const Timing& b) { return a.best < b.best; });
  if (times.front().best <= (1 + kSameTime) * fastest->best) return 0;
  return static_cast<int>(fastest - times.begin());
}

std::vector<Timing> LinearTuning::time(const LinearOp& linear, std::span<const int> choices,
                                       float* y, const RoundOptions& options) {
  std::vector<Operation> operations;
  for (const int choice : choices) {
    operations.push_back(linear.operation(y));
    operations.back().enqueue = [this, &linear, y, choice](int copy, auto) {
      tuner_.linear(linear.args(copy, y, nullptr, backend::Then::kStore), choice);
    };
  }
  return time_operations(backend_, operations, options);
}

std::optional<TunedLinear> LinearTuning::tune(LinearOp& linear, int rows) {
  const std::vector<std::string> names = tuner_.choices(linear.weight(), rows);
  if (names.size() < 2) return std::nullopt;
  linear.set_rows(rows);
  const backend::Buffer y = backend_.allocate(sizeof(float) * static_cast<size_t>(rows) *
                                              static_cast<size_t>(linear.n()));
  RoundOptions brief = options_;
  brief.rounds = std::min(options_.rounds, kBriefRounds);
  brief.burst = std::min(options_.burst, kBriefBurst);
  brief.load = 0;
  std::vector<int> choices(names.size());
  std::iota(choices.begin(), choices.end(), 0);
  choices = finalists(time(linear, choices, y.as<float>(), brief));
  const std::vector<Timing> times = time(linear, choices, y.as<float>(), options_);
  const auto chosen = static_cast<size_t>(choose(times));
  tuner_.keep(linear.weight(), rows, choices[chosen], times[chosen].best);
  return TunedLinear{.n = linear.n(),
                     .k = linear.k(),
                     .rows = rows,
                     .choices = static_cast<int>(names.size()),
                     .before = names.front(),
                     .after = names[static_cast<size_t>(choices[chosen])],
                     .before_time = times.front(),
                     .after_time = times[chosen]};
}

std::unique_ptr<LinearOp> make_head(backend::Backend& backend, const model::ModelConfig& config,
                                    RandomData& data, size_t rotated) {
  Random random(13);
  const model::LinearTensors head =
      model::random_linear("lm_head", config.vocabulary, config.hidden,
                           format::whole(format::kF16, config.hidden), random);
  const model::Site input = {.segments = format::whole(format::kF32, config.hidden)};
  return std::make_unique<LinearOp>(
      backend, input, std::initializer_list<const model::LinearTensors*>{&head}, data, rotated);
}

}  // namespace atom::timing
