#include "quantizer/calibrate.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/random.h"

namespace atom::quantizer {
namespace {

constexpr int kStepRows = 512;     // rows that go through a layer together
constexpr int64_t kChannels = 64;  // whose energies one iteration sums

int step_rows(const Windows::Options& options) {
  const int whole = std::min(options.samples, std::max(1, kStepRows / options.sequence));
  return whole > 1 ? whole * options.sequence : std::min(options.sequence, kStepRows);
}

std::vector<int32_t> draw_starts(const Windows::Options& options) {
  // The published code leaves out the last place (unless it is the only one) and draws with Python's random.
  const int64_t spare = static_cast<int64_t>(options.ids.size()) - options.sequence;
  check(spare >= 0, "the calibration text holds a window");
  const int64_t places = std::max<int64_t>(1, spare);
  PythonRandom random(options.seed);
  std::vector<int32_t> starts;
  for (int i = 0; i < options.samples; ++i)
    starts.push_back(static_cast<int32_t>(random.below(static_cast<uint64_t>(places))));
  return starts;
}

}  // namespace

void add_squares(Executor& executor, const ObservedInput& input, std::vector<double>& sums) {
  const int64_t k = input.k;
  check(static_cast<int64_t>(sums.size()) == k, "energies have one place per channel");
  executor.parallel_for((k + kChannels - 1) / kChannels, [&](int64_t i, int) {
    const int64_t begin = i * kChannels, end = std::min(k, begin + kChannels);
    for (int64_t r = 0; r < input.rows; ++r)
      for (int64_t c = begin; c < end; ++c) {
        const double x = input.x[r * k + c];
        sums[static_cast<size_t>(c)] += x * x;
      }
  });
}

void ObservingBackend::observe(const model::Layer& layer, Sink sink) {
  layer_ = &layer;
  sink_ = std::move(sink);
}

void ObservingBackend::stop() {
  layer_ = nullptr;
  sink_ = nullptr;
}

void ObservingBackend::linear(const backend::LinearArgs& args) {
  if (layer_ != nullptr) {
    const backend::PackedLinear* first = args.weights[0];
    if (first == layer_->qkv.get()) show(args, SiteKind::kQkv);
    if (first == layer_->out.get()) show(args, SiteKind::kOut);
    if (first == layer_->gate_up[0].get()) show(args, SiteKind::kFfn);
    if (first == layer_->down[0].get()) show(args, SiteKind::kDown);
  }
  inner().linear(args);
}

void ObservingBackend::show(const backend::LinearArgs& args, SiteKind site) {
  const int k = args.x.spec->k();
  const size_t count = static_cast<size_t>(args.x.rows) * static_cast<size_t>(k);
  if (device_rows_.bytes() < count * sizeof(float)) {
    device_rows_ = backend::Buffer();
    device_rows_ = inner().allocate(count * sizeof(float));
  }
  rows_.resize(count);
  inner().dequantize(args.x, device_rows_.as<float>());
  inner().download(rows_.data(), device_rows_.data(), count * sizeof(float));
  if (args.row_ends != nullptr)
    show_routed(args, site, k);
  else
    sink_({.site = site, .expert = 0, .x = rows_.data(), .rows = args.x.rows, .k = k});
}

void ObservingBackend::show_routed(const backend::LinearArgs& args, SiteKind site, int k) {
  std::vector<int32_t> ends(args.weights.size());
  inner().download(ends.data(), args.row_ends, ends.size() * sizeof(int32_t));
  std::vector<int32_t> index(static_cast<size_t>(ends.back()));
  if (args.row_index != nullptr)
    inner().download(index.data(), args.row_index, index.size() * sizeof(int32_t));
  const size_t width = static_cast<size_t>(k);
  int begin = 0;
  for (size_t e = 0; e < ends.size(); ++e) {
    const int rows = ends[e] - begin;
    const float* x = rows_.data() + static_cast<size_t>(begin) * width;
    if (args.row_index != nullptr) {
      routed_rows_.resize(static_cast<size_t>(rows) * width);
      for (int r = 0; r < rows; ++r)
        std::copy_n(rows_.data() + static_cast<size_t>(
                                       index[static_cast<size_t>(begin) + static_cast<size_t>(r)]) *
                                       width,
                    width, routed_rows_.data() + static_cast<size_t>(r) * width);
      x = routed_rows_.data();
    }
    if (rows > 0)
      sink_({.site = site, .expert = static_cast<int>(e), .x = x, .rows = rows, .k = k});
    begin = ends[e];
  }
}

Energies::Energies(const model::ModelConfig& config, Executor& executor)
    : executor_(executor),
      qkv_(static_cast<size_t>(config.hidden)),
      out_(static_cast<size_t>(config.attention_size())),
      ffn_(static_cast<size_t>(config.hidden)),
      down_(static_cast<size_t>(config.experts),
            std::vector<double>(static_cast<size_t>(config.intermediate))) {}

std::vector<double>& Energies::of(const ObservedInput& input) {
  switch (input.site) {
    case SiteKind::kQkv:
      return qkv_;
    case SiteKind::kOut:
      return out_;
    case SiteKind::kFfn:
      return ffn_;
    case SiteKind::kDown:
      break;
  }
  return down_.at(static_cast<size_t>(input.expert));
}

void Energies::add(const ObservedInput& input) { add_squares(executor_, input, of(input)); }

LayerOrders Energies::orders(int layer) const {
  const auto order = [&](const std::vector<double>& energies) {
    for (const double energy : energies)
      if (!std::isfinite(energy))
        fail("layer {}: the activations of the calibration text are not finite in 16 bits or f32",
             layer);
    return energy_order(energies);
  };
  LayerOrders out{.qkv = order(qkv_), .out = order(out_), .ffn = order(ffn_), .down = {}};
  for (const std::vector<double>& energies : down_) out.down.push_back(order(energies));
  return out;
}

Grams::Grams(const model::ModelConfig& config, Solver& solver)
    : solver_(solver), experts_(config.experts) {
  const auto add = [&](int k) {
    grams_.push_back(
        {.k = k,
         .rows = 0,
         .values = std::vector<float>(static_cast<size_t>(k) * static_cast<size_t>(k))});
  };
  add(config.hidden);
  add(config.attention_size());
  for (int e = 0; e < experts_; ++e) add(config.hidden);
  for (int e = 0; e < experts_; ++e) add(config.intermediate);
}

size_t Grams::index(SiteKind site, int expert) const {
  const size_t experts = static_cast<size_t>(experts_);
  const size_t first = site == SiteKind::kQkv   ? 0
                       : site == SiteKind::kOut ? 1
                       : site == SiteKind::kFfn ? 2
                                                : 2 + experts;
  return first + static_cast<size_t>(expert);
}

const Gram& Grams::of(SiteKind site, int expert) const { return grams_.at(index(site, expert)); }

void Grams::clear() {
  for (Gram& gram : grams_) {
    gram.rows = 0;
    std::fill(gram.values.begin(), gram.values.end(), 0.0f);
  }
}

void Grams::add(const ObservedInput& input) {
  Gram& gram = grams_.at(index(input.site, input.expert));
  check(gram.k == input.k, "a gram has the width of its input");
  solver_.add_gram(input.x, input.rows, input.k, gram.values.data());
  gram.rows += input.rows;
}

void Grams::finish() {
  for (Gram& gram : grams_) solver_.finish_gram(gram.k, gram.values.data());
}

int64_t Grams::bytes(const model::ModelConfig& config) {
  const auto square = [](int64_t k) { return k * k * static_cast<int64_t>(sizeof(float)); };
  return square(config.hidden) + square(config.attention_size()) +
         config.experts * (square(config.hidden) + square(config.intermediate));
}

Windows::Windows(const model::ModelConfig& config, backend::Backend& backend,
                 const Options& options)
    : config_(config),
      backend_(backend),
      samples_(options.samples),
      sequence_(options.sequence),
      step_rows_(step_rows(options)),
      starts_(draw_starts(options)),
      hidden_(static_cast<size_t>(tokens()) * static_cast<size_t>(config.hidden)),
      on_step_(options.on_step),
      forward_(config, backend, {.max_rows = step_rows_, .max_positions = options.sequence}),
      step_hidden_(backend.allocate(static_cast<size_t>(step_rows_) *
                                    static_cast<size_t>(config.hidden) * sizeof(float))) {
  for (const int32_t start : starts_)
    ids_.insert(ids_.end(), options.ids.begin() + start, options.ids.begin() + start + sequence_);
}

std::vector<Windows::Step> Windows::steps() const {
  std::vector<Step> out;
  const int64_t total = tokens();
  for (int64_t row = 0; row < total;) {
    Step step{.first_row = row, .rows = 0, .sequences = {}};
    if (step_rows_ >= sequence_) {  // whole windows
      step.rows = static_cast<int>(std::min<int64_t>(step_rows_, total - row));
      for (int begin = 0; begin < step.rows; begin += sequence_)
        step.sequences.push_back({.row_begin = begin,
                                  .row_end = begin + sequence_,
                                  .position = 0,
                                  .page_table = nullptr});
    } else {  // a piece of one window
      const int position = static_cast<int>(row % sequence_);
      step.rows = std::min(step_rows_, sequence_ - position);
      step.sequences.push_back(
          {.row_begin = 0, .row_end = step.rows, .position = position, .page_table = nullptr});
    }
    row += step.rows;
    out.push_back(std::move(step));
  }
  return out;
}

void Windows::embed(const checkpoint::ModelFiles& files) {
  const std::string name =
      files.has("model.embed_tokens.weight") ? "model.embed_tokens.weight" : "lm_head.weight";
  const tensor::TensorView view = files.tensor(name);
  if (!tensor::is_floating(view.dtype) ||
      !(view.shape == tensor::Shape{config_.vocabulary, config_.hidden}))
    fail("{}: tensor '{}' must be floating-point of shape [{}, {}], but is {} {}",
         files.folder().string(), name, config_.vocabulary, config_.hidden,
         tensor::dtype_name(view.dtype), view.shape.to_string());
  for (const int32_t id : ids_)
    if (id < 0 || id >= config_.vocabulary)
      fail("{}: the calibration text has the token id {} outside the vocabulary of {}",
           files.folder().string(), id, config_.vocabulary);
  for (const float v : tensor::widen(view))
    if (!std::isfinite(v))
      fail("{}: tensor '{}' holds {}; weights must be finite", files.folder().string(), name, v);
  model::Ends ends;
  ends.embedding = backend_.allocate(view.bytes.size());
  backend_.upload(ends.embedding.data(), view.bytes.data(), view.bytes.size());
  files.release(name);
  const format::Format format = view.dtype == tensor::DType::F32   ? format::kF32
                                : view.dtype == tensor::DType::F16 ? format::kF16
                                                                   : format::kBF16;
  ends.table = {ends.embedding.data(), format, config_.vocabulary, config_.hidden};
  for (const Step& step : steps()) {
    const size_t first = static_cast<size_t>(step.first_row) * static_cast<size_t>(config_.hidden);
    forward_.embed(ends,
                   std::span(ids_).subspan(static_cast<size_t>(step.first_row),
                                           static_cast<size_t>(step.rows)),
                   step_hidden_.as<float>());
    backend_.download(
        hidden_.data() + first, step_hidden_.data(),
        static_cast<size_t>(step.rows) * static_cast<size_t>(config_.hidden) * sizeof(float));
  }
}

void Windows::sample(const model::Layer& layer, format::KvKind kv, int64_t rows) {
  run(layer, kv, After::kDiscard, rows);
}

void Windows::run(const model::Layer& layer, format::KvKind kv, After after, int64_t rows_wanted) {
  const format::KvLayout layout{.kind = kv,
                                .kv_heads = config_.kv_heads,
                                .head_dim = config_.head_dim,
                                .open_page = layer.open_page && format::has_int4_side(kv)};
  const int window_pages = kv::pages_for(sequence_, layout);
  const int windows = std::max(1, step_rows_ / sequence_);
  kv::Pool pool(backend_, {layout}, window_pages * windows, windows);
  const std::vector<int32_t> pages = model::consecutive_pages(0, pool.pages());
  for (Step& step : steps()) {
    if (step.first_row >= rows_wanted) break;
    for (size_t i = 0; i < step.sequences.size(); ++i) {
      step.sequences[i].page_table = pages.data() + i * static_cast<size_t>(window_pages);
      step.sequences[i].open_page = static_cast<int>(i);
    }
    float* rows =
        hidden_.data() + static_cast<size_t>(step.first_row) * static_cast<size_t>(config_.hidden);
    const size_t bytes =
        static_cast<size_t>(step.rows) * static_cast<size_t>(config_.hidden) * sizeof(float);
    backend_.upload(step_hidden_.data(), rows, bytes);
    forward_.layer(layer, pool, 0, step.sequences, step.rows, step_hidden_.as<float>());
    if (after == After::kAdvance) backend_.download(rows, step_hidden_.data(), bytes);
    if (on_step_ && rows_wanted >= tokens())
      on_step_(static_cast<double>(step.first_row + step.rows) / static_cast<double>(tokens()));
  }
  backend_.synchronize();
}

void Windows::rotate(std::span<const float> basis, Solver& solver) {
  for (const Step& step : steps()) {
    float* rows =
        hidden_.data() + static_cast<size_t>(step.first_row) * static_cast<size_t>(config_.hidden);
    const std::vector<float> turned =
        solver.product(rows, step.rows, config_.hidden, basis.data(), config_.hidden);
    std::copy(turned.begin(), turned.end(), rows);
  }
}

void Windows::final_norm(std::span<const float> gain,
                         const std::function<void(const float* x, int rows)>& sink) {
  const backend::InputSpec spec{.segments = format::whole(format::kF32, config_.hidden)};
  const backend::Buffer activation = backend_.allocate(backend_.activation_bytes(spec, step_rows_));
  const backend::Buffer plain = backend_.allocate(step_hidden_.bytes());
  const backend::Buffer device_gain = backend_.allocate(gain.size_bytes());
  backend_.upload(device_gain.data(), gain.data(), gain.size_bytes());
  std::vector<float> x;
  for (const Step& step : steps()) {
    const size_t first = static_cast<size_t>(step.first_row) * static_cast<size_t>(config_.hidden);
    x.resize(static_cast<size_t>(step.rows) * static_cast<size_t>(config_.hidden));
    backend_.upload(step_hidden_.data(), hidden_.data() + first, x.size() * sizeof(float));
    backend_.norm({.x = step_hidden_.as<float>(),
                   .gain = device_gain.as<float>(),
                   .epsilon = config_.norm_epsilon,
                   .y = {activation.data(), &spec, step.rows},
                   .plain = plain.as<float>()});
    backend_.download(x.data(), plain.data(), x.size() * sizeof(float));
    sink(x.data(), step.rows);
  }
}

}  // namespace atom::quantizer
