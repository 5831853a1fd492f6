#include "timing/tuning.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "base/random.h"
#include "model/random_model.h"
#include "timing/layer_ops.h"

namespace atom::timing {
namespace {

constexpr double kWorthAnother = 0.15;      // slower than the fastest at a first look
constexpr double kWorthAnotherStep = 0.01;  // the same of a step
constexpr size_t kMostFinalists = 8;
constexpr int kBriefRounds = 2;
constexpr double kBriefBurst = 0.005;     // seconds
constexpr double kBriefBurstStep = 0.02;  // the same of steps

std::string site_name(Site site) { return std::string(kSiteNames[static_cast<size_t>(site)]); }

// Of a first look at all choices.
RoundOptions brief(RoundOptions options, double burst) {
  options.rounds = std::min(options.rounds, kBriefRounds);
  options.burst = std::min(options.burst, burst);
  options.load = 0;
  return options;
}

// Of choices 0 .. : the first, and those that a first look found fast, fastest first.
std::vector<int> finalists(std::span<const Timing> times, double worth) {
  std::vector<int> order(times.size());
  std::iota(order.begin(), order.end(), 0);
  const auto best = [&](int i) { return times[static_cast<size_t>(i)].best; };
  std::sort(order.begin(), order.end(), [&](int a, int b) { return best(a) < best(b); });
  std::vector<int> out = {0};
  for (const int i : order)
    if (i != 0 && out.size() < kMostFinalists && best(i) <= (1 + worth) * best(order[0]))
      out.push_back(i);
  return out;
}

}  // namespace

int choose(std::span<const Timing> times, double same) {
  const auto fastest = std::min_element(
      times.begin(), times.end(), [](const Timing& a, const Timing& b) { return a.best < b.best; });
  if (times.front().best <= (1 + same) * fastest->best) return 0;
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
  std::vector<int> choices(names.size());
  std::iota(choices.begin(), choices.end(), 0);
  choices =
      finalists(time(linear, choices, y.as<float>(), brief(options_, kBriefBurst)), kWorthAnother);
  const std::vector<Timing> times = time(linear, choices, y.as<float>(), options_);
  const auto chosen = static_cast<size_t>(choose(times));
  tuner_.keep(linear.weight(), rows, choices[chosen], times[chosen].best);
  return TunedLinear{.name = "",
                     .n = linear.n(),
                     .k = linear.k(),
                     .rows = rows,
                     .choices = static_cast<int>(names.size()),
                     .before = names.front(),
                     .after = names[static_cast<size_t>(choices[chosen])],
                     .before_time = times.front(),
                     .after_time = times[chosen]};
}

std::vector<Timing> StepTuning::time(StepBench& bench, const backend::PackedLinear& weight,
                                     int rows, std::span<const std::string> choices,
                                     const RoundOptions& options) {
  std::vector<std::function<void()>> before;
  for (const std::string& choice : choices)
    before.push_back([&, choice] { tuner_.prefer(weight, rows, choice); });
  return bench.compare(before, options);
}

TunedLinear StepTuning::tune(StepBench& bench, const std::string& name,
                             const backend::PackedLinear& weight, int rows) {
  const std::vector<std::string> names = tuner_.choices(weight, rows);
  const std::vector<Timing> brief_times =
      time(bench, weight, rows, names, brief(options_, kBriefBurstStep));
  std::vector<std::string> last;
  for (const int i : finalists(brief_times, kWorthAnotherStep))
    last.push_back(names[static_cast<size_t>(i)]);
  const std::vector<Timing> times = time(bench, weight, rows, last, options_);
  const auto chosen = static_cast<size_t>(choose(times, kSameStep));
  tuner_.prefer(weight, rows, last[chosen]);
  tuner_.keep(weight, rows, 0, 0);  // the one in use; how long it takes by itself is not known
  return {.name = name,
          .n = weight.n(),
          .k = weight.k(),
          .rows = rows,
          .choices = static_cast<int>(names.size()),
          .before = names.front(),
          .after = last[chosen],
          .before_time = times.front(),
          .after_time = times[chosen]};
}

std::vector<TunedLinear> StepTuning::tune(const StepShape& shape) {
  const model::Layer& layer = *model_.layers.front();
  std::vector<std::pair<std::string, const backend::PackedLinear*>> linears = {
      {site_name(Site::kQkv), layer.qkv.get()}, {site_name(Site::kOut), layer.out.get()}};
  if (!model_.config.mixture()) {
    linears.emplace_back(site_name(Site::kGateUp), layer.gate_up.front().get());
    linears.emplace_back(site_name(Site::kDown), layer.down.front().get());
  }
  linears.emplace_back(kHeadName, model_.ends->head.get());
  StepBench bench(model_, shape, options_.between);
  std::vector<TunedLinear> out;
  for (const auto& [name, weight] : linears) {
    if (tuner_.choices(*weight, shape.batch).size() < 2) continue;
    if (announce_) announce_(name);
    out.push_back(tune(bench, name, *weight, shape.batch));
  }
  return out;
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
