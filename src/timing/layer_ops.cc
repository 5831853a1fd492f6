#include "timing/layer_ops.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/random.h"

namespace atom::timing {
namespace {

constexpr Site kAllSites[] = {Site::kQkv, Site::kOut, Site::kGateUp, Site::kDown};
constexpr double kPickBurst = 0.005;  // seconds
constexpr int kMostSources =
    64;  // sets of rows of a producer: few rows stay in the cache, as in a layer

size_t count(int rows, int width) { return static_cast<size_t>(rows) * static_cast<size_t>(width); }

model::ModelConfig dense(model::ModelConfig config) {
  config.experts = config.experts_per_token = 1;
  return config;
}

}  // namespace

SiteSize site_size(const model::ModelConfig& config, Site site) {
  switch (site) {
    case Site::kQkv:
      return {config.qkv_size(), config.hidden};
    case Site::kOut:
      return {config.hidden, config.attention_size()};
    case Site::kGateUp:
      return {2 * config.intermediate, config.hidden};
    case Site::kDown:
      break;
  }
  return {config.hidden, config.intermediate};
}

LayerOps::LayerOps(backend::Backend& backend, const model::ModelConfig& config,
                   const model::Scheme& scheme, RandomData& data, size_t rotated)
    : backend_(backend), config_(config), data_(data), rotated_(rotated) {
  Random random(11);
  // One expert, whose linears have the names that the scheme knows.
  const model::LayerTensors layer = model::random_layer(dense(config), scheme, 0, random);
  const model::ExpertTensors& ffn = layer.experts.front();
  make_linear(Site::kQkv, layer.qkv_input, {&layer.q, &layer.k, &layer.v}, rotated);
  make_linear(Site::kOut, layer.out_input, {&layer.out}, rotated);
  make_linear(Site::kGateUp, layer.ffn_input, {&ffn.gate, &ffn.up}, rotated);
  make_linear(Site::kDown, layer.down_input, {&ffn.down}, rotated);
  gain_ = data.make_f32(static_cast<size_t>(config.hidden));
}

void LayerOps::make_linear(Site site, const model::Site& input,
                           std::initializer_list<const model::LinearTensors*> parts,
                           size_t rotated) {
  Linear& linear = linears_[static_cast<size_t>(site)];
  linear.size = site_size(config_, site);
  linear.spec = {.segments = input.segments,
                 .clip = input.clip,
                 .signed_scales = input.signed_scales,
                 .hadamard = input.hadamard};
  linear.plain = {.segments = format::whole(format::kF32, linear.size.k)};
  if (!input.order.empty()) {
    linear.order = backend_.allocate(input.order.size() * sizeof(int32_t));
    backend_.upload(linear.order.data(), input.order.data(), input.order.size() * sizeof(int32_t));
    linear.spec.order = linear.order.as<int32_t>();
  }
  std::vector<backend::LinearWeight> views;
  for (const model::LinearTensors* part : parts) {
    views.push_back(model::view(*part));
    linear.weight_bytes += static_cast<double>(part->bytes());
  }
  for (int i = 0; i < copies_for(linear.weight_bytes, rotated); ++i)
    linear.copies.push_back(backend_.pack(views, input.segments));
}

backend::Activation LayerOps::input(const Linear& linear) const {
  return {linear.x.data(), &linear.spec, rows_};
}

void LayerOps::set_rows(int rows) {
  rows_ = rows;
  const int hidden = config_.hidden, attention = config_.attention_size();
  for (backend::Buffer* buffer : {&h_, &qkv_, &attended_, &gate_up_, &out_, &sources_, &produced_})
    *buffer = {};
  h_ = data_.make_f32(count(rows, hidden));
  qkv_ = backend_.allocate(sizeof(float) * count(rows, config_.qkv_size()));
  attended_ = data_.make_f32(count(rows, attention));
  gate_up_ = data_.make_f32(count(rows, 2 * config_.intermediate));
  out_ = backend_.allocate(sizeof(float) * count(rows, hidden));
  double produced = 0;
  for (Linear& linear : linears_) {
    linear.x = {};
    linear.x = backend_.allocate(backend_.activation_bytes(linear.spec, rows));
    const backend::Buffer values = data_.make_f32(count(rows, linear.size.k));
    backend_.quantize({.x = values.as<float>(), .y = input(linear)});
    backend_.synchronize();
    produced =
        std::max({produced, static_cast<double>(backend_.activation_bytes(linear.spec, rows)),
                  static_cast<double>(backend_.activation_bytes(linear.plain, rows))});
  }
  // Each producer reads sources_ in sets of its own width: room for all of them.
  const double widest = 4.0 * static_cast<double>(count(
                                  rows, std::max({hidden, attention, 2 * config_.intermediate})));
  const auto sets = static_cast<size_t>(std::min(copies_for(widest, rotated_), kMostSources));
  sources_ = data_.make_f32(sets * static_cast<size_t>(widest / 4));
  produced_ = backend_.allocate(static_cast<size_t>(produced));
}

void LayerOps::multiply(Site site, int copy, float* y, backend::Then then) const {
  const Linear& linear = at(site);
  const backend::PackedLinear* weight =
      linear.copies[static_cast<size_t>(copy) % linear.copies.size()].get();
  backend_.linear({.x = input(linear), .weights = {&weight, 1}, .y = y, .then = then});
}

Operation LayerOps::linear(Site site) const {
  const Linear& one = at(site);
  Operation out;
  out.copies = static_cast<int>(one.copies.size());
  out.bytes = one.weight_bytes + static_cast<double>(backend_.activation_bytes(one.spec, rows_)) +
              4.0 * static_cast<double>(count(rows_, one.size.n));
  out.products = 2.0 * rows_ * one.size.n * one.size.k;
  out.integers = format::is_integer(one.spec.segments.at[0].format);
  float* y = site == Site::kQkv      ? qkv_.as<float>()
             : site == Site::kGateUp ? gate_up_.as<float>()
                                     : out_.as<float>();
  out.enqueue = [this, site, y](int copy, auto) { multiply(site, copy, y, backend::Then::kStore); };
  return out;
}

Operation LayerOps::chain() const {
  Operation out;
  std::vector<std::function<void(int, std::span<const backend::SequenceStep>)>> parts;
  for (const Site site : kAllSites) {
    Operation one = linear(site);
    out.copies = std::max(out.copies, one.copies);
    out.bytes += one.bytes;
    out.products += one.products;
    out.integers = one.integers;
    parts.push_back(std::move(one.enqueue));
  }
  out.enqueue = [parts](int copy, auto sequences) {
    for (const auto& part : parts) part(copy, sequences);
  };
  return out;
}

Operation LayerOps::chain_with_producers() const {
  Operation out = chain();
  out.enqueue = [this](int copy, auto) {
    auto* h = h_.as<float>();
    backend_.norm({.x = h,
                   .gain = gain_.as<float>(),
                   .epsilon = config_.norm_epsilon,
                   .y = input(at(Site::kQkv))});
    multiply(Site::kQkv, copy, qkv_.as<float>(), backend::Then::kStore);
    backend_.quantize({.x = attended_.as<float>(), .y = input(at(Site::kOut))});
    multiply(Site::kOut, copy, h, backend::Then::kAdd);
    backend_.norm({.x = h,
                   .gain = gain_.as<float>(),
                   .epsilon = config_.norm_epsilon,
                   .y = input(at(Site::kGateUp))});
    multiply(Site::kGateUp, copy, gate_up_.as<float>(), backend::Then::kStore);
    backend_.gate({.x = gate_up_.as<float>(), .y = input(at(Site::kDown))});
    multiply(Site::kDown, copy, h, backend::Then::kAdd);
  };
  return out;
}

Operation LayerOps::producer(
    Site site, int width, bool plain,
    std::function<void(const float* x, const backend::Activation& y)> produce) const {
  const backend::InputSpec& spec = plain ? at(site).plain : at(site).spec;
  const size_t set = count(rows_, width);
  Operation out;
  out.copies = static_cast<int>(std::min<size_t>(sources_.bytes() / (sizeof(float) * set),
                                                 static_cast<size_t>(kMostSources)));
  out.bytes =
      4.0 * static_cast<double>(set) + static_cast<double>(backend_.activation_bytes(spec, rows_));
  out.enqueue = [this, &spec, set, produce = std::move(produce)](int copy, auto) {
    produce(sources_.as<float>() + static_cast<size_t>(copy) * set,
            {produced_.data(), &spec, rows_});
  };
  return out;
}

Operation LayerOps::norm(bool plain) const {
  return producer(
      Site::kGateUp, config_.hidden, plain, [this](const float* x, const backend::Activation& y) {
        backend_.norm({.x = x, .gain = gain_.as<float>(), .epsilon = config_.norm_epsilon, .y = y});
      });
}

Operation LayerOps::gate(bool plain) const {
  return producer(
      Site::kDown, 2 * config_.intermediate, plain,
      [this](const float* x, const backend::Activation& y) { backend_.gate({.x = x, .y = y}); });
}

Operation LayerOps::quantize(bool plain) const {
  return producer(Site::kOut, config_.attention_size(), plain,
                  [this](const float* x, const backend::Activation& y) {
                    backend_.quantize({.x = x, .y = y});
                  });
}

LibraryOps::LibraryOps(backend::Backend& backend, const model::ModelConfig& config,
                       backend::LibraryFormat format, RandomData& data, size_t rotated)
    : backend_(backend), config_(config), format_(format), data_(data), rotated_(rotated) {}

bool LibraryOps::works() const {
  return std::all_of(products_.begin(), products_.end(),
                     [](const auto& product) { return product != nullptr; });
}

void LibraryOps::set_rows(int rows, const RoundOptions& options) {
  rows_ = rows;
  size_t results = 0;
  for (const Site site : kAllSites) {
    const auto i = static_cast<size_t>(site);
    const SiteSize size = site_size(config_, site);
    products_[i] = backend_.library_linear({format_, size.n, size.k, rows});
    results = std::max(results, count(rows, size.n) * static_cast<size_t>(result_bytes(format_)));
  }
  y_ = {};
  y_ = backend_.allocate(results);
  for (const Site site : kAllSites) {
    const auto i = static_cast<size_t>(site);
    if (products_[i] == nullptr) continue;
    const SiteSize size = site_size(config_, site);
    x_[i] = {};
    x_[i] = data_.make(format_, count(rows, size.k));
    const double bytes = static_cast<double>(count(size.n, size.k)) * value_bytes(format_);
    while (static_cast<int>(weights_[i].size()) < copies_for(bytes, rotated_))
      weights_[i].push_back(data_.make(format_, count(size.n, size.k)));
  }
  if (const auto known = picked_.find(rows); known != picked_.end())
    choices_ = known->second;
  else
    pick(options);
}

void LibraryOps::pick(const RoundOptions& options) {
  RoundOptions quick = options;
  quick.rounds = std::min(options.rounds, 2);
  quick.burst = std::min(options.burst, kPickBurst);
  quick.load = 0;
  for (const Site site : kAllSites) {
    const auto i = static_cast<size_t>(site);
    if (products_[i] == nullptr) continue;
    std::vector<Operation> candidates;
    for (int choice = 0; choice < products_[i]->choices(); ++choice)
      candidates.push_back(with_choice(site, choice));
    choices_[i] = 0;
    if (candidates.size() < 2) continue;
    const std::vector<Timing> times = time_operations(backend_, candidates, quick);
    for (size_t c = 1; c < times.size(); ++c)
      if (times[c].best < times[static_cast<size_t>(choices_[i])].best)
        choices_[i] = static_cast<int>(c);
  }
  picked_[rows_] = choices_;
}

Operation LibraryOps::with_choice(Site site, int choice) const {
  const auto i = static_cast<size_t>(site);
  check(products_[i] != nullptr, "the library computes that product");
  const SiteSize size = site_size(config_, site);
  Operation out;
  out.copies = static_cast<int>(weights_[i].size());
  out.products = 2.0 * rows_ * size.n * size.k;
  out.enqueue = [this, i, choice](int copy, auto) {
    const std::vector<backend::Buffer>& weights = weights_[i];
    products_[i]->enqueue(choice, x_[i].data(),
                          weights[static_cast<size_t>(copy) % weights.size()].data(), y_.data());
  };
  return out;
}

Operation LibraryOps::linear(Site site) const {
  return with_choice(site, choices_[static_cast<size_t>(site)]);
}

Operation LibraryOps::chain() const {
  Operation out;
  std::vector<Operation> parts;
  for (const Site site : kAllSites) {
    parts.push_back(linear(site));
    out.copies = std::max(out.copies, parts.back().copies);
    out.products += parts.back().products;
  }
  out.enqueue = [parts](int copy, auto sequences) {
    for (const Operation& part : parts) part.enqueue(copy, sequences);
  };
  return out;
}

}  // namespace atom::timing
