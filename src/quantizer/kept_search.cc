#include "quantizer/kept_search.h"

#include <algorithm>
#include <limits>

#include "base/log.h"
#include "format/hadamard.h"
#include "quantizer/memory.h"

namespace atom::quantizer {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

// One place in the counts of each site.
using Places = std::array<size_t, 4>;

struct Choice {
  Places places{};
  double error = kNever;
  int64_t cost = 0;
};

int64_t budget_of(const LayerKept& layer) {
  int64_t sum = 0;
  for (const SiteKept& site : layer) sum += site.rows * site.standard;
  return sum;
}

void take_better(const LayerKept& layer, const Places& places, Choice& best) {
  Choice choice{.places = places, .error = 0, .cost = 0};
  for (size_t s = 0; s < layer.size(); ++s) {
    choice.error += layer[s].error[places[s]];
    choice.cost += layer[s].rows * layer[s].counts[places[s]];
  }
  if (choice.cost > budget_of(layer)) return;
  if (choice.error < best.error || (choice.error == best.error && choice.cost < best.cost))
    best = choice;
}

// The best o and down beside the given qkv and ffn. An error of infinity: they alone cost too much.
Choice best_beside(const LayerKept& layer, size_t qkv, size_t ffn) {
  Choice best;
  for (size_t out = 0; out < layer[1].counts.size(); ++out)
    for (size_t down = 0; down < layer[3].counts.size(); ++down)
      take_better(layer, {qkv, out, ffn, down}, best);
  return best;
}

KeptCounts counts_of(const LayerKept& layer, const Places& places) {
  return {layer[0].counts[places[0]], layer[1].counts[places[1]], layer[2].counts[places[2]],
          layer[3].counts[places[3]]};
}

void add_choice(std::span<const LayerKept> layers, size_t qkv, size_t ffn,
                std::vector<Choice>& best) {
  std::vector<Choice> choices;
  double error = 0, least = 0;
  for (const LayerKept& layer : layers) {
    choices.push_back(best_beside(layer, qkv, ffn));
    error += choices.back().error;
  }
  for (const Choice& choice : best) least += choice.error;
  if (error < least) best = choices;
}

// Both sides in the basis that the input has after its transform.
void transform_normal(std::vector<float>& rows, int k, int normal, int hadamard) {
  if (hadamard == 0) return;
  for (size_t at = 0; at < rows.size(); at += static_cast<size_t>(k))
    format::block_hadamard({rows.data() + at, static_cast<size_t>(normal)}, hadamard);
}

std::vector<float> columns_of(const std::vector<float>& rows, int k, int columns) {
  std::vector<float> out;
  for (auto row = rows.begin(); row != rows.end(); row += k)
    out.insert(out.end(), row, row + columns);
  return out;
}

// |a x^T|^2.
double energy(const std::vector<float>& a, const std::vector<float>& x, int k, Solver& solver) {
  const size_t width = static_cast<size_t>(k), rows = x.size() / width;
  std::vector<float> turned(x.size());  // [k, rows]
  for (size_t i = 0; i < x.size(); ++i) turned[i % width * rows + i / width] = x[i];
  const std::vector<float> y = solver.product(a.data(), static_cast<int>(a.size() / width), k,
                                              turned.data(), static_cast<int>(rows));
  double sum = 0;
  for (const float v : y) sum += double{v} * v;
  return sum;
}

std::vector<float> errors_of(const std::vector<float>& values, int k, const KeptProblem& problem) {
  const int rows = static_cast<int>(values.size() / static_cast<size_t>(k));
  return rounding_errors(values.data(), rows, k, problem.normal, 1.0f, problem.signed_scales);
}

// The linear with its normal channels rounded, in the basis that it came in.
model::LinearTensors rounded(const model::LinearTensors& linear, const KeptProblem& problem) {
  const int k = linear.k(), normal = problem.normal.size;
  std::vector<float> w = first_columns(std::vector<const model::LinearTensors*>(1, &linear), k);
  transform_normal(w, k, normal, problem.hadamard);
  const std::vector<float> errors = errors_of(w, k, problem);
  for (size_t i = 0; i < errors.size(); ++i) {
    const size_t width = static_cast<size_t>(normal);
    w[i / width * static_cast<size_t>(k) + i % width] -= errors[i];
  }
  transform_normal(w, k, normal, problem.hadamard);  // its own inverse
  model::LinearTensors out = model::from_f32(linear.name, linear.n, k, format::kF32, w.data());
  out.bias = linear.bias;
  return out;
}

using Linears = std::vector<model::LinearTensors*>;

// The linears of the four sites, expert by expert.
std::array<std::vector<Linears>, 4> linears_of(model::LayerTensors& layer) {
  std::array<std::vector<Linears>, 4> out;
  out[0].push_back(Linears{&layer.q, &layer.k, &layer.v});
  out[1].push_back(Linears(1, &layer.out));
  for (model::ExpertTensors& expert : layer.experts) {
    out[2].push_back(Linears{&expert.gate, &expert.up});
    out[3].push_back(Linears(1, &expert.down));
  }
  return out;
}

KeptProblem problem_of(const Recipe& recipe, size_t site, int normal) {
  const int group = recipe.preset == "mxfp4"   ? format::kMxfp4.group
                    : recipe.preset == "nvfp4" ? format::kNvfp4.group
                                               : recipe.group;
  return {.normal = {is_fp4(recipe) ? format::e2m1(group) : format::int4(group), normal},
          .rounded_inputs = recipe.preset != "w4a8",
          .signed_scales = recipe.signed_scales,
          .hadamard = site == 3 && recipe.transform.down ? Transforms::kBlock : 0};
}

// Hidden states after the layer; the windows stay where they are.
std::vector<float> hidden_after(const model::LayerTensors& tensors, const ClipTools& tools) {
  std::vector<float> before(tools.windows.hidden().begin(), tools.windows.hidden().end());
  const std::unique_ptr<model::Layer> layer = model::bind_layer(tools.observing, tensors);
  tools.windows.run(*layer, tensors.kv, Windows::After::kAdvance);
  std::vector<float> after(tools.windows.hidden().begin(), tools.windows.hidden().end());
  tools.windows.set_hidden(std::move(before));
  return after;
}

// |a - b|^2 / |b|^2.
double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0, all = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    sum += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    all += double{b[i]} * b[i];
  }
  return all > 0 ? sum / all : 0;
}

// What the counts of one site do to the output of its layer.
SiteKept measure_site(const InputSample& sample, size_t site, const Recipe& recipe,
                      model::LayerTensors& tensors, const std::vector<float>& after,
                      const ClipTools& tools) {
  constexpr SiteKind kKinds[] = {SiteKind::kQkv, SiteKind::kOut, SiteKind::kFfn, SiteKind::kDown};
  const std::vector<Linears> linears = linears_of(tensors)[site];
  std::vector<std::vector<const model::LinearTensors*>> readers;
  for (const Linears& list : linears) readers.emplace_back(list.begin(), list.end());
  const int k = readers[0][0]->k();
  SiteKept out{.standard = std::min(recipe.kept.qkv, most_kept(k)),
               .counts = kept_candidates(recipe.kept.qkv, k)};
  for (const auto& list : readers)
    for (const model::LinearTensors* linear : list) out.rows += linear->n;
  const int tried = out.standard < k ? out.standard : 0;
  double of_site = 0;
  for (const int count : out.counts) {
    const KeptError error = kept_error(sample, kKinds[site], readers,
                                       problem_of(recipe, site, k - count), tools.solver);
    out.error.push_back(error.inputs + error.weights);
    if (count == tried) of_site = error.weights;
  }
  model::LayerTensors changed = tensors;
  const std::vector<Linears> changing = linears_of(changed)[site];
  for (const Linears& list : changing)
    for (model::LinearTensors* linear : list)
      *linear = rounded(*linear, problem_of(recipe, site, k - tried));
  const double of_layer = distance(hidden_after(changed, tools), after);
  for (double& error : out.error) error *= of_site > 0 ? of_layer / of_site : 0;
  return out;
}

// The windows go through the layer, which is transformed and ordered but neither rounded nor cut.
LayerKept measure_layer(const Recipe& recipe, model::LayerTensors& tensors,
                        const ClipTools& tools) {
  InputSample sample;
  {
    const std::unique_ptr<model::Layer> layer = model::bind_layer(tools.observing, tensors);
    tools.observing.observe(*layer, [&](const ObservedInput& input) { sample.add(input); });
    tools.windows.run(*layer, tensors.kv, Windows::After::kDiscard);
    tools.observing.stop();
  }
  std::vector<float> after = hidden_after(tensors, tools);
  LayerKept out;
  for (size_t site = 0; site < out.size(); ++site)
    out[site] = measure_site(sample, site, recipe, tensors, after, tools);
  tools.windows.set_hidden(std::move(after));
  return out;
}

}  // namespace

std::vector<int> kept_candidates(int kept, int k) {
  std::vector<int> out;
  for (const int64_t quarters : {0, 1, 2, 3, 4, 6, 8, 12, 16}) {
    const int64_t wanted = quarters * kept / 4 / 16 * 16;
    const int count = static_cast<int>(std::min<int64_t>(wanted, most_kept(k)));
    if (out.empty() || count > out.back()) out.push_back(count);
  }
  return out;
}

KeptError kept_error(const InputSample& sample, SiteKind site, Readers readers,
                     const KeptProblem& problem, Solver& solver) {
  const int normal = problem.normal.size;
  KeptError error;
  double all = 0;
  for (const InputSample::Rows& input : sample.inputs()) {
    if (input.site != site || input.rows == 0) continue;
    const int k = input.k;
    std::vector<float> w = first_columns(readers[static_cast<size_t>(input.expert)], k);
    all += energy(w, input.x, k, solver);
    if (normal == 0) continue;
    std::vector<float> x = input.x;
    transform_normal(w, k, normal, problem.hadamard);
    transform_normal(x, k, normal, problem.hadamard);
    w = columns_of(w, k, normal);
    x = columns_of(x, k, normal);
    error.weights += energy(errors_of(w, normal, problem), x, normal, solver);
    if (problem.rounded_inputs)
      error.inputs += energy(w, errors_of(x, normal, problem), normal, solver);
  }
  if (all == 0) return {};
  return {.inputs = error.inputs / all, .weights = error.weights / all};
}

std::vector<KeptCounts> choose_kept(std::span<const LayerKept> layers, bool shared) {
  std::vector<KeptCounts> out;
  const auto choose = [&](std::span<const LayerKept> some) {
    std::vector<Choice> best(some.size());
    for (size_t qkv = 0; qkv < some[0][0].counts.size(); ++qkv)
      for (size_t ffn = 0; ffn < some[0][2].counts.size(); ++ffn) add_choice(some, qkv, ffn, best);
    for (size_t i = 0; i < some.size(); ++i) out.push_back(counts_of(some[i], best[i].places));
  };
  if (shared)
    choose(layers);
  else
    for (size_t i = 0; i < layers.size(); ++i) choose(layers.subspan(i, 1));
  return out;
}

std::vector<KeptCounts> search_kept(const KeptSearch& search, const ClipTools& tools) {
  std::vector<LayerKept> layers;
  for (int i = 0; i < search.config.layers; ++i) {
    model::LayerTensors tensors = model::read_layer(search.files, search.config, search.plain, i);
    release_layer(search.files, i);
    search.transform.apply(i, tensors);
    tensors.key_offset.clear();  // the cache is not rounded here
    if (!search.orders.empty()) apply_orders(search.orders[static_cast<size_t>(i)], tensors);
    layers.push_back(measure_layer(search.recipe, tensors, tools));
  }
  const std::vector<KeptCounts> out = choose_kept(layers, search.transform.rotates_residual());
  for (size_t i = 0; i < out.size(); ++i)
    log_info("layer {}: kept channels {}", i, to_json(out[i]).dump());
  return out;
}

}  // namespace atom::quantizer
