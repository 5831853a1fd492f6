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

LayerLinears make_linears(backend::Backend& backend, const model::ModelConfig& config,
                          const model::Scheme& scheme, RandomData& data, size_t rotated) {
  Random random(11);
  // One expert, whose linears have the names that the scheme knows.
  const model::LayerTensors layer = model::random_layer(dense(config), scheme, 0, random);
  const model::ExpertTensors& ffn = layer.experts.front();
  const auto make = [&](const model::Site& input,
                        std::initializer_list<const model::LinearTensors*> parts) {
    return std::make_unique<LinearOp>(backend, input, parts, data, rotated);
  };
  LayerLinears out;
  out[static_cast<size_t>(Site::kQkv)] = make(layer.qkv_input, {&layer.q, &layer.k, &layer.v});
  out[static_cast<size_t>(Site::kOut)] = make(layer.out_input, {&layer.out});
  out[static_cast<size_t>(Site::kGateUp)] = make(layer.ffn_input, {&ffn.gate, &ffn.up});
  out[static_cast<size_t>(Site::kDown)] = make(layer.down_input, {&ffn.down});
  return out;
}

LayerOps::LayerOps(backend::Backend& backend, const model::ModelConfig& config,
                   const model::Scheme& scheme, RandomData& data, size_t rotated)
    : backend_(backend),
      config_(config),
      data_(data),
      rotated_(rotated),
      linears_(make_linears(backend, config, scheme, data, rotated)) {
  for (const Site site : kAllSites)
    plain_[static_cast<size_t>(site)].segments = format::whole(format::kF32, at(site).k());
  gain_ = data.make_f32(static_cast<size_t>(config.hidden));
}

void LayerOps::set_rows(int rows) {
  rows_ = rows;
  const int hidden = config_.hidden, attention = config_.attention_size();
  for (backend::Buffer* buffer : {&h_, &attended_, &out_, &sources_, &gate_sources_, &produced_})
    *buffer = {};
  qkv_ = {};
  gate_up_ = {};
  h_ = data_.make_f32(count(rows, hidden));
  qkv_ = {backend_, count(rows, config_.qkv_size())};
  attended_ = data_.make_f32(count(rows, attention));
  gate_up_ = {backend_, count(rows, 2 * config_.intermediate)};
  out_ = backend_.allocate(sizeof(float) * count(rows, hidden));
  double produced = 0;
  for (const Site site : kAllSites) {
    linears_[static_cast<size_t>(site)]->set_rows(rows);
    for (const bool plain : {false, true})
      produced = std::max(
          produced, static_cast<double>(backend_.activation_bytes(written(site, plain), rows)));
  }
  // Each producer reads sources_ in sets of its own width: room for all of them.
  const auto sources = [&](backend::LibraryFormat format, int width) {
    const size_t values = count(rows, width);
    const double bytes = static_cast<double>(values) * value_bytes(format);
    const auto sets = static_cast<size_t>(std::min(copies_for(bytes, rotated_), kMostSources));
    return data_.make(format, sets * values);
  };
  sources_ = sources(backend::LibraryFormat::kF32, std::max(hidden, attention));
  gate_sources_ =
      sources(backend_.has_f16_rows() ? backend::LibraryFormat::kF16 : backend::LibraryFormat::kF32,
              2 * config_.intermediate);
  produced_ = backend_.allocate(static_cast<size_t>(produced));
}

void LayerOps::multiply(Site site, int copy, float* y, backend::Then then) const {
  const backend::LinearRows* rows = site == Site::kQkv      ? &qkv_
                                    : site == Site::kGateUp ? &gate_up_
                                                            : nullptr;
  backend_.linear(rows == nullptr ? at(site).args(copy, y, nullptr, then)
                                  : at(site).args(copy, rows->f32(), rows->f16(), then));
}

Operation LayerOps::linear(Site site) const {
  if (site == Site::kQkv) return at(site).operation(qkv_.f32(), qkv_.f16());
  if (site == Site::kGateUp) return at(site).operation(gate_up_.f32(), gate_up_.f16());
  return at(site).operation(out_.as<float>());
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
                   .y = at(Site::kQkv).input()});
    multiply(Site::kQkv, copy, nullptr, backend::Then::kStore);
    backend_.quantize({.x = attended_.as<float>(), .y = at(Site::kOut).input()});
    multiply(Site::kOut, copy, h, backend::Then::kAdd);
    backend_.norm({.x = h,
                   .gain = gain_.as<float>(),
                   .epsilon = config_.norm_epsilon,
                   .y = at(Site::kGateUp).input()});
    multiply(Site::kGateUp, copy, nullptr, backend::Then::kStore);
    backend_.gate({.x = gate_up_.f32(), .x_f16 = gate_up_.f16(), .y = at(Site::kDown).input()});
    multiply(Site::kDown, copy, h, backend::Then::kAdd);
  };
  return out;
}

Operation LayerOps::producer(
    Site site, int width, bool plain, const backend::Buffer& sources,
    std::function<void(const void* x, const backend::Activation& y)> produce) const {
  const backend::InputSpec& spec = written(site, plain);
  const bool f16 = &sources == &gate_sources_ && backend_.has_f16_rows();
  const size_t set = count(rows_, width) * (f16 ? sizeof(uint16_t) : sizeof(float));
  Operation out;
  out.copies =
      static_cast<int>(std::min<size_t>(sources.bytes() / set, static_cast<size_t>(kMostSources)));
  out.bytes =
      static_cast<double>(set) + static_cast<double>(backend_.activation_bytes(spec, rows_));
  out.enqueue = [this, &spec, &sources, set, produce = std::move(produce)](int copy, auto) {
    produce(sources.as<std::byte>() + static_cast<size_t>(copy) * set,
            {produced_.data(), &spec, rows_});
  };
  return out;
}

Operation LayerOps::norm(bool plain) const {
  return producer(Site::kGateUp, config_.hidden, plain, sources_,
                  [this](const void* x, const backend::Activation& y) {
                    backend_.norm({.x = static_cast<const float*>(x),
                                   .gain = gain_.as<float>(),
                                   .epsilon = config_.norm_epsilon,
                                   .y = y});
                  });
}

Operation LayerOps::gate(bool plain) const {
  const bool f16 = backend_.has_f16_rows();
  return producer(Site::kDown, 2 * config_.intermediate, plain, gate_sources_,
                  [this, f16](const void* x, const backend::Activation& y) {
                    backend_.gate({.x = f16 ? nullptr : static_cast<const float*>(x),
                                   .x_f16 = f16 ? static_cast<const uint16_t*>(x) : nullptr,
                                   .y = y});
                  });
}

Operation LayerOps::quantize(bool plain) const {
  return producer(Site::kOut, config_.attention_size(), plain, sources_,
                  [this](const void* x, const backend::Activation& y) {
                    backend_.quantize({.x = static_cast<const float*>(x), .y = y});
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
