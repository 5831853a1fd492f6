#include "quantizer/kept_search.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "base/log.h"
#include "quantizer/memory.h"

namespace atom::quantizer {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
// A way other than the recipe's has this share of its error at most: less does not hold on another text.
constexpr double kWins = 0.9;

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

constexpr SiteKind kKinds[] = {SiteKind::kQkv, SiteKind::kOut, SiteKind::kFfn, SiteKind::kDown};
constexpr const char* kNames[] = {"qkv", "o", "gate_up", "down"};
constexpr size_t kQkvSite = 0, kOutSite = 1, kFfnSite = 2, kDownSite = 3;

KeptProblem problem_of(const Recipe& recipe, int normal, bool hadamard) {
  const int group = recipe.preset == "mxfp4"   ? format::kMxfp4.group
                    : recipe.preset == "nvfp4" ? format::kNvfp4.group
                                               : recipe.group;
  return {.normal = {is_fp4(recipe) ? format::e2m1(group) : format::int4(group), normal},
          .rounded_inputs = recipe.preset != "w4a8",
          .signed_scales = recipe.signed_scales,
          .hadamard = hadamard ? Transforms::kBlock : 0};
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

// The orders of a site: one, or one for every expert of down_proj.
std::vector<Permutation> orders_of(const LayerOrders& orders, size_t site) {
  if (site == kDownSite) return orders.down;
  const Permutation* const all[] = {&orders.qkv, &orders.out, &orders.ffn};
  return std::vector<Permutation>(1, *all[site]);
}

void set_orders(LayerOrders& orders, size_t site, const std::vector<Permutation>& to) {
  Permutation* const all[] = {&orders.qkv, &orders.out, &orders.ffn};
  if (site == kDownSite)
    orders.down = to;
  else
    *all[site] = to[0];
}

// First `first`, then `second` of what it leaves.
Permutation composed(const Permutation& first, Permutation second) {
  if (first.empty()) return second;
  for (int32_t& at : second) at = first[static_cast<size_t>(at)];
  return second;
}

// Of the inputs of one site, loudest last.
Permutation loudest_last(const InputSample& sample, SiteKind site) {
  std::vector<double> energies;
  for (const InputSample::Rows& input : sample.inputs()) {
    if (input.site != site) continue;
    const size_t k = static_cast<size_t>(input.k);
    energies.resize(k);
    for (size_t i = 0; i < input.x.size(); ++i) energies[i % k] += double{input.x[i]} * input.x[i];
  }
  return energy_order(energies);
}

// One layer, transformed and ordered but neither rounded nor cut, and what its linears read.
struct Subject {
  LayerOrders orders;
  model::LayerTensors tensors;
  InputSample sample;
};

std::vector<std::vector<const model::LinearTensors*>> readers_of(Subject& of, size_t site) {
  std::vector<std::vector<const model::LinearTensors*>> out;
  const auto linears = linears_of(of.tensors);
  for (const Linears& list : linears[site]) out.emplace_back(list.begin(), list.end());
  return out;
}

class LayerSearch {
 public:
  LayerSearch(const KeptSearch& search, const ClipTools& tools, int layer)
      : search_(search), tools_(tools), layer_(layer) {}

  // The windows go through the layer.
  LayerKept measure();

 private:
  Subject subject(bool heads, const LayerOrders& orders) const;
  SiteKept measure_site(Subject& of, size_t site) const;
  void take(Subject& of, size_t site, const SiteWay& way, SiteKept& kept) const;
  void try_straight_heads(Subject& turned, SiteKept& out) const;
  double mind(Subject& of, size_t site, int kept) const;
  double cache_error(const Subject& of) const;
  KeptProblem problem(size_t site, int normal, const SiteWay& way) const {
    const bool hadamard = site == kDownSite && search_.recipe.transform.down && way.turned;
    return problem_of(search_.recipe, normal, hadamard);
  }
  // Where no basis says which channels are kept.
  bool may_choose(size_t site) const {
    const bool stream = site == kQkvSite || site == kFfnSite;
    return !search_.orders.empty() && !(stream && search_.transform.rotates_residual());
  }

  const KeptSearch& search_;
  const ClipTools& tools_;
  int layer_;
  std::vector<float> after_;  // hidden states behind the layer, exact
};

Subject LayerSearch::subject(bool heads, const LayerOrders& orders) const {
  Subject out{.orders = orders,
              .tensors = model::read_layer(search_.files, search_.config, search_.plain, layer_),
              .sample = {}};
  release_layer(search_.files, layer_);
  search_.transform.use_heads(layer_, heads);
  search_.transform.apply(layer_, out.tensors);
  if (!search_.orders.empty()) apply_orders(orders, out.tensors);
  const std::unique_ptr<model::Layer> layer = model::bind_layer(tools_.observing, out.tensors);
  tools_.observing.observe(*layer, [&](const ObservedInput& input) { out.sample.add(input); });
  tools_.windows.run(*layer, out.tensors.kv, Windows::After::kDiscard);
  tools_.observing.stop();
  return out;
}

// How much an error of the site's outputs weighs in the output of the layer: both with its weights rounded.
double LayerSearch::mind(Subject& of, size_t site, int kept) const {
  const auto readers = readers_of(of, site);
  const int normal = readers[0][0]->k() - kept;
  const double of_site =
      kept_error(of.sample, kKinds[site], readers, problem(site, normal, {}), tools_.solver)
          .weights;
  if (!(of_site > 0)) return 0;
  model::LayerTensors changed = of.tensors;
  const auto linears = linears_of(changed);
  for (const Linears& list : linears[site])
    for (model::LinearTensors* linear : list) *linear = rounded(*linear, problem(site, normal, {}));
  return distance(hidden_after(changed, tools_), after_) / of_site;
}

// Error of the layer's output from the KV-cache.
double LayerSearch::cache_error(const Subject& of) const {
  model::LayerTensors changed = of.tensors;
  apply_cache_format(search_.scheme, layer_, changed);
  return distance(hidden_after(changed, tools_), after_);
}

// The way, for every count with which it is better than what is there.
void LayerSearch::take(Subject& of, size_t site, const SiteWay& way, SiteKept& kept) const {
  const auto readers = readers_of(of, site);
  const int k = readers[0][0]->k();
  for (size_t i = 0; i < kept.counts.size(); ++i) {
    const int count = kept.counts[i];
    if (way.by_error && (count == 0 || count == k)) continue;
    KeptProblem rounding = problem(site, k - count, way);
    std::vector<Permutation> moves;
    if (way.by_error) moves = costliest_last(of.sample, kKinds[site], readers, rounding, count);
    rounding.orders = moves;
    const KeptError error = kept_error(of.sample, kKinds[site], readers, rounding, tools_.solver);
    if (!(error.inputs + error.weights < kWins * kept.error[i])) continue;
    kept.error[i] = error.inputs + error.weights;
    kept.way[i] = way;
    kept.way[i].orders = orders_of(of.orders, site);
    for (size_t e = 0; e < moves.size(); ++e)
      kept.way[i].orders[e] = composed(kept.way[i].orders[e], std::move(moves[e]));
  }
}

SiteKept LayerSearch::measure_site(Subject& of, size_t site) const {
  SiteKept out;
  const int wanted = search_.recipe.kept.qkv;
  int k = 0;
  for (const auto& list : readers_of(of, site))
    for (const model::LinearTensors* linear : list) {
      out.rows += linear->n;
      k = linear->k();
    }
  out.standard = std::min(wanted, most_kept(k));
  out.counts = kept_candidates(wanted, k);
  out.error.assign(out.counts.size(), kNever);
  out.way.assign(out.counts.size(), {.orders = orders_of(of.orders, site)});
  const bool straight = site == kDownSite && search_.recipe.transform.down;
  take(of, site, {}, out);
  if (straight) take(of, site, {.turned = false}, out);
  if (may_choose(site)) take(of, site, {.by_error = true}, out);
  if (may_choose(site) && straight) take(of, site, {.turned = false, .by_error = true}, out);
  const double factor = mind(of, site, out.standard < k ? out.standard : 0);
  for (double& error : out.error) error *= factor;
  return out;
}

// V and O as equalization leaves them: the cache is worse, what o_proj keeps may be better.
void LayerSearch::try_straight_heads(Subject& turned, SiteKept& out) const {
  LayerOrders orders = turned.orders;
  if (may_choose(kOutSite)) {
    orders.out.clear();
    orders.out = loudest_last(subject(false, orders).sample, SiteKind::kOut);
  }
  Subject straight = subject(false, orders);
  const SiteKept other = measure_site(straight, kOutSite);
  const double with = cache_error(turned), without = cache_error(straight);
  for (size_t i = 0; i < out.counts.size(); ++i) {
    out.error[i] += with;
    if (!(other.error[i] + without < kWins * out.error[i])) continue;
    out.error[i] = other.error[i] + without;
    out.way[i] = other.way[i];
    out.way[i].turned = false;
  }
}

LayerKept LayerSearch::measure() {
  const LayerOrders none;
  Subject own =
      subject(true, search_.orders.empty() ? none : search_.orders[static_cast<size_t>(layer_)]);
  after_ = hidden_after(own.tensors, tools_);
  LayerKept out;
  for (size_t site = 0; site < out.size(); ++site) out[site] = measure_site(own, site);
  if (search_.recipe.transform.heads) try_straight_heads(own, out[kOutSite]);
  tools_.windows.set_hidden(std::move(after_));
  return out;
}

LayerChoice choice_of(const LayerKept& layer, const KeptCounts& counts, LayerOrders* orders) {
  LayerChoice out{.kept = counts, .by_error = {}};
  const int kept[] = {counts.qkv, counts.out, counts.ffn, counts.down};
  for (size_t site = 0; site < layer.size(); ++site) {
    const auto at = std::find(layer[site].counts.begin(), layer[site].counts.end(), kept[site]);
    const SiteWay& way = layer[site].way[static_cast<size_t>(at - layer[site].counts.begin())];
    if (site == kOutSite) out.heads = way.turned;
    if (site == kDownSite) out.down = way.turned;
    if (way.by_error) out.by_error.emplace_back(kNames[site]);
    if (orders != nullptr) set_orders(*orders, site, way.orders);
  }
  return out;
}

std::string sentence(const LayerChoice& choice) {
  std::string out =
      fmt::format("keeps {} channels of qkv, {} of o, {} of gate_up, {} of down", choice.kept.qkv,
                  choice.kept.out, choice.kept.ffn, choice.kept.down);
  if (!choice.by_error.empty())
    out += fmt::format("; the costliest of {}, else the loudest", fmt::join(choice.by_error, ", "));
  if (!choice.heads) out += "; V and O not turned";
  if (!choice.down) out += "; no Hadamard transform before down";
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

std::vector<LayerChoice> search_kept(const KeptSearch& search, const ClipTools& tools) {
  std::vector<LayerKept> layers;
  for (int i = 0; i < search.config.layers; ++i) {
    search.on_layer(i);
    layers.push_back(LayerSearch(search, tools, i).measure());
  }
  const std::vector<KeptCounts> counts = choose_kept(layers, search.transform.rotates_residual());
  std::vector<LayerChoice> out;
  for (size_t i = 0; i < layers.size(); ++i) {
    out.push_back(
        choice_of(layers[i], counts[i], search.orders.empty() ? nullptr : &search.orders[i]));
    search.transform.use_heads(static_cast<int>(i), out.back().heads);
    log_info("layer {}: {}", i, sentence(out.back()));
  }
  return out;
}

}  // namespace atom::quantizer
