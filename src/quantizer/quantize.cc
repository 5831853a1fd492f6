#include "quantizer/quantize.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "checkpoint/output_folder.h"
#include "model/weights.h"
#include "quantizer/calibrate.h"
#include "quantizer/clip.h"
#include "quantizer/kept_search.h"
#include "quantizer/memory.h"
#include "quantizer/model_transform.h"
#include "quantizer/order.h"
#include "quantizer/provenance.h"
#include "quantizer/run_journal.h"
#include "quantizer/solve.h"
#include "quantizer/solver.h"
#include "quantizer/write.h"

namespace atom::quantizer {
namespace {

using model::LayerTensors;
using model::LinearTensors;

class Run {
 public:
  Run(const QuantizeOptions& options, backend::Backend& backend, Executor& executor)
      : options_(options),
        executor_(executor),
        observing_(backend),
        solver_(make_cpu_solver(executor)),
        files_(*options.input),
        source_(files_.source_of("config.json")),
        config_(model::parse_config(files_.config(), source_)),
        meter_(std::make_unique<Meter>(config_.layers, options.progress)) {
    meter_->expect_calibration(measures());
  }

  QuantizeReport run();

 private:
  bool gptq() const { return options_.recipe.rounding == Rounding::kGptq; }
  bool quantizes_layers() const { return options_.recipe.preset != "w16a16"; }
  bool orders_channels() const {
    return quantizes_layers() && options_.recipe.order == Order::kEnergy;
  }
  bool gptq_head() const { return gptq() && format::is_int4(options_.recipe.head); }
  bool measures() const {
    return options_.recipe.transform.any() || options_.recipe.search_kept ||
           (orders_channels() && options_.orders.empty());
  }
  bool needs_text() const { return measures() || (gptq() && quantizes_layers()) || gptq_head(); }

  void prepare();
  Windows::Options window_options(int samples, std::function<void(double)> on_step) const;
  void make_windows();
  WritePlan plan() const;
  void calibrate();
  void measure_layer(int index);
  void search_kept();
  void solve();
  LayerTensors solve_layer(int index);
  void write_plain_layer(int index);
  void collect(int index, LayerTensors& tensors);
  void solve_linears(LayerTensors& tensors);
  void solve_site(SiteKind site, int expert, std::initializer_list<LinearTensors*> linears);
  void solve_module(LinearTensors& linear, const Factor* factor, const Gram* gram);
  std::unique_ptr<LinearTensors> solve_head();
  void finish();

  double seconds() const { return meter_->seconds(); }
  void release(int layer) const { release_layer(files_, layer); }

  const QuantizeOptions& options_;
  Executor& executor_;
  ObservingBackend observing_;
  std::unique_ptr<Solver> solver_;
  const checkpoint::ModelFiles& files_;
  std::string source_;
  model::ModelConfig config_;
  model::Scheme plain_, scheme_;
  std::unique_ptr<checkpoint::OutputFolder> folder_;
  std::unique_ptr<Windows> windows_;
  std::unique_ptr<ModelTransform> transform_;
  std::vector<LayerOrders> orders_;
  std::vector<LayerChoice> chosen_;  // of every layer, when they are searched
  std::unique_ptr<CheckpointWriter> writer_;
  std::unique_ptr<Grams> grams_;
  std::unique_ptr<Meter> meter_;
  std::unique_ptr<RunJournal> journal_;
  Totals totals_;
  QuantizeReport report_;
};

void Run::prepare() {
  if (const auto it = files_.config().find("quantization_config");
      it != files_.config().end() && !it->is_null())
    fail(
        "{}: the model is already quantized (it has a quantization_config); quantize its 16-bit "
        "source",
        source_);
  scheme_ = to_scheme(options_.recipe, config_, report_.notices);
  plain_.kv.assign(static_cast<size_t>(config_.layers), format::KvKind::kF32);
  report_.input_bytes = static_cast<int64_t>(files_.total_bytes());
  if (options_.samples < 1 || options_.sequence < 1 || options_.sequence > config_.max_positions)
    fail("calibration needs at least one window of 1 to {} tokens, but got {} of {}",
         config_.max_positions, options_.samples, options_.sequence);
  if (needs_text() && static_cast<int64_t>(options_.calibration.size()) < options_.sequence)
    fail("{}: the calibration text has {} tokens, fewer than one window of {}",
         options_.calibration_name, options_.calibration.size(), options_.sequence);
  check(options_.orders.empty() || options_.orders.size() == static_cast<size_t>(config_.layers),
        "orders of another model");
  require_source(files_, config_);
  folder_ = std::make_unique<checkpoint::OutputFolder>(options_.output, files_.folder(),
                                                       !options_.resume);
  Transforms which = options_.recipe.transform;
  which.center = scheme_.key_offset;
  transform_ =
      std::make_unique<ModelTransform>(ModelTransform::Options{.which = which,
                                                               .stream = quantizes_layers(),
                                                               .seed = options_.seed,
                                                               .positions = options_.sequence,
                                                               .qk_hadamard = scheme_.qk_hadamard,
                                                               .keep_ends = scheme_.stream_basis},
                                       config_, executor_, *solver_);
  if (scheme_.find("lm_head") == nullptr) transform_->tell_size(report_.notices);
  const CheckpointWriter dry(plan(), *folder_);  // finds out whether the disk has room
  journal_ =
      std::make_unique<RunJournal>(options_, *folder_, observing_.name(), dry.output_bytes());
}

WritePlan Run::plan() const {
  WritePlan plan{.files = &files_, .config = &config_, .scheme = &scheme_, .orders = orders_};
  plan.changed = transform_->changed();
  if (scheme_.stream_basis) plan.stream_basis = transform_->basis();
  if (!transform_->folds_ends()) return plan;
  plan.embedding = transform_->embedding();
  plan.head = transform_->head(final_gain(files_, config_));
  return plan;
}

Windows::Options Run::window_options(int samples, std::function<void(double)> on_step) const {
  return {.ids = options_.calibration,
          .samples = samples,
          .sequence = options_.sequence,
          .seed = options_.seed,
          .on_step = std::move(on_step)};
}

void Run::make_windows() {
  if (!needs_text()) return;
  windows_ = std::make_unique<Windows>(
      config_, observing_,
      window_options(options_.samples, [this](double done) { meter_->share(done); }));
}

void Run::calibrate() {
  if (orders_channels()) orders_.assign(options_.orders.begin(), options_.orders.end());
  if (!measures()) return;
  if (journal_->restore({config_, orders_, chosen_, *transform_})) {
    if (!chosen_.empty()) scheme_ = to_scheme(options_.recipe, config_, report_.notices, chosen_);
    return;
  }
  orders_.clear();
  const double begin = seconds();
  meter_->phase("calibrate");
  windows_->embed(files_);
  for (int i = 0; i < config_.layers; ++i) measure_layer(i);
  if (!orders_channels()) orders_.clear();
  if (options_.recipe.search_kept) search_kept();
  transform_->finish(stream_kept(scheme_, config_));
  transform_->forget();
  journal_->keep({config_, orders_, chosen_, *transform_});
  report_.forward_seconds = seconds() - begin;
}

void Run::measure_layer(int index) {
  meter_->begin_layer(index);
  LayerTensors tensors = model::read_layer(files_, config_, plain_, index);
  release(index);
  transform_->fold(tensors);
  const std::unique_ptr<model::Layer> layer = model::bind_layer(observing_, tensors);
  Energies energies(config_, executor_);
  if (transform_->any()) transform_->begin();
  observing_.observe(*layer, [&](const ObservedInput& input) {
    if (transform_->any())
      transform_->add(input);
    else
      energies.add(input);
  });
  windows_->run(*layer, plain_.kv[0], Windows::After::kAdvance);
  observing_.stop();
  orders_.push_back(transform_->any() ? transform_->end(index, tensors) : energies.orders(index));
}

// Chooses in a basis that is cut at all the counts, by a few of the windows.
void Run::search_kept() {
  constexpr int kTokens = 2048;
  const Recipe& recipe = options_.recipe;
  transform_->finish(kept_candidates(recipe.kept.qkv, config_.hidden));
  const int wanted = (kTokens + options_.sequence - 1) / options_.sequence;
  Windows windows(config_, observing_, window_options(std::min(options_.samples, wanted), {}));
  windows.embed(files_);
  if (transform_->rotates_residual()) windows.rotate(transform_->basis(), *solver_);
  meter_->phase("search");
  const auto on_layer = [this](int layer) { meter_->begin_search(layer); };
  chosen_ = quantizer::search_kept(
      {files_, config_, plain_, scheme_, recipe, *transform_, on_layer, orders_},
      {observing_, windows, *solver_});
  scheme_ = to_scheme(recipe, config_, report_.notices, chosen_);
}

// Second moments of the inputs as the quantized model will see them: quantized inputs and KV-cache,
// weights still in floating point. The hidden states stay where they are.
void Run::collect(int index, LayerTensors& tensors) {
  const std::unique_ptr<model::Layer> layer = model::bind_layer(observing_, tensors);
  grams_->clear();
  observing_.observe(*layer, [&](const ObservedInput& input) { grams_->add(input); });
  windows_->run(*layer, scheme_.kv[static_cast<size_t>(index)], Windows::After::kDiscard);
  observing_.stop();
  grams_->finish();
}

void Run::solve_module(LinearTensors& linear, const Factor* factor, const Gram* gram) {
  const model::LinearScheme* scheme = scheme_.find(linear.name);
  check(scheme != nullptr, "every linear of a quantized layer has a scheme");
  meter_->module(linear.name);
  Solved solved = solve_linear({.linear = &linear,
                                .scheme = *scheme,
                                .clip = options_.recipe.clip_weights,
                                .signed_scales = options_.recipe.signed_scales,
                                .refine = options_.recipe.refine,
                                .factor = factor,
                                .gram = gram},
                               *solver_);
  linear = std::move(solved.linear);
  const int64_t weights = int64_t{linear.n} * linear.k();
  totals_.weights += weights;
  for (const LinearTensors::Part& part : linear.part) totals_.bits += part.bytes() * 8;
  totals_.modules.push_back(module_json(linear, solved, factor != nullptr));
  meter_->tell(solved.output_error);
}

void Run::solve_site(SiteKind site, int expert, std::initializer_list<LinearTensors*> linears) {
  const Gram* gram = grams_ ? &grams_->of(site, expert) : nullptr;
  Factor factor;
  const bool few = gram != nullptr && gram->rows < kFewRows;
  const bool compensate = gptq() && !few;
  if (few) ++totals_.few_inputs;
  if (compensate) {
    factor = damped_factor(*solver_, *gram, (*linears.begin())->name);
    if (factor.damping > 0.05) ++totals_.redamped;
  }
  for (LinearTensors* linear : linears) {
    solve_module(*linear, compensate ? &factor : nullptr, few ? nullptr : gram);
    if (gram != nullptr) totals_.modules.back()["tokens"] = gram->rows;
  }
}

void Run::solve_linears(LayerTensors& tensors) {
  solve_site(SiteKind::kQkv, 0, {&tensors.q, &tensors.k, &tensors.v});
  solve_site(SiteKind::kOut, 0, {&tensors.out});
  for (int e = 0; e < config_.experts; ++e) {
    model::ExpertTensors& expert = tensors.experts[static_cast<size_t>(e)];
    solve_site(SiteKind::kFfn, e, {&expert.gate, &expert.up});
    solve_site(SiteKind::kDown, e, {&expert.down});
  }
}

LayerTensors Run::solve_layer(int index) {
  LayerTensors tensors = model::read_layer(files_, config_, plain_, index);
  release(index);
  transform_->apply(index, tensors);
  if (!orders_.empty()) apply_orders(orders_[static_cast<size_t>(index)], tensors);
  apply_input_formats(scheme_, tensors);
  apply_cache_format(scheme_, index, tensors);
  if (!journal_->restore(index, tensors, scheme_, totals_)) {
    if (windows_ && options_.recipe.clip_activations == 0)
      search_input_clips({observing_, *windows_, *solver_}, tensors, scheme_);
    if (grams_) collect(index, tensors);
    meter_->begin_algebra(index);
    solve_linears(tensors);
    journal_->keep(index, tensors, scheme_, totals_);
  }
  const bool last = index + 1 == config_.layers && !gptq_head();
  if (windows_ && gptq() && !last) {
    meter_->begin_advance(index);
    const std::unique_ptr<model::Layer> layer = model::bind_layer(observing_, tensors);
    windows_->run(*layer, tensors.kv, Windows::After::kAdvance);
  }
  return tensors;
}

void Run::write_plain_layer(int index) {
  if (!transform_->any()) return writer_->write_layer(index, nullptr);
  LayerTensors tensors = model::read_layer(files_, config_, plain_, index);
  transform_->apply(index, tensors);
  writer_->write_layer(index, &tensors);
  release(index);
}

void Run::solve() {
  meter_->phase(quantizes_layers() ? "solve" : "write");
  if (windows_ && gptq()) windows_->embed(files_);
  if (windows_ && gptq() && transform_->rotates_residual())
    windows_->rotate(transform_->basis(), *solver_);
  if (gptq() && quantizes_layers()) grams_ = std::make_unique<Grams>(config_, *solver_);
  for (int i = 0; i < config_.layers; ++i) {
    meter_->begin_collect(i);
    meter_->module("");
    if (!quantizes_layers()) {
      write_plain_layer(i);
      meter_->tell(-1);
      continue;
    }
    const LayerTensors tensors = solve_layer(i);
    writer_->write_layer(i, &tensors);
    release(i);
  }
  grams_.reset();
}

std::unique_ptr<LinearTensors> Run::solve_head() {
  const model::LinearScheme* scheme = scheme_.find("lm_head");
  if (scheme == nullptr) return nullptr;
  auto head = std::make_unique<LinearTensors>(model::read_head(files_, config_, plain_));
  if (transform_->folds_ends())
    *head = model::from_f32(
        head->name, head->n, head->k(), format::kF32,
        transform_->head(final_gain(files_, config_))(model::to_f32(*head), head->n).data());
  Gram gram{.k = config_.hidden, .rows = 0, .values = {}};
  Factor factor;
  if (gptq_head()) {
    gram.values.resize(static_cast<size_t>(config_.hidden) * static_cast<size_t>(config_.hidden));
    const std::vector<float> gain =
        transform_->folds_ends() ? std::vector<float>(static_cast<size_t>(config_.hidden), 1.0f)
                                 : final_gain(files_, config_);
    windows_->final_norm(gain, [&](const float* x, int rows) {
      solver_->add_gram(x, rows, config_.hidden, gram.values.data());
      gram.rows += rows;
    });
    solver_->finish_gram(gram.k, gram.values.data());
    factor = damped_factor(*solver_, gram, "lm_head");
  }
  const int64_t bits = totals_.bits, weights = totals_.weights;
  solve_module(*head, gptq_head() ? &factor : nullptr, gptq_head() ? &gram : nullptr);
  totals_.bits = bits;  // bits per weight speaks of the layers' linears
  totals_.weights = weights;
  return head;
}

void Run::finish() {
  meter_->phase("write");
  writer_->finish(provenance(options_));
  totals_.tell(report_.notices);
  report_.output_bytes = writer_->output_bytes();
  report_.bits_per_weight = totals_.bits_per_weight();
  report_.seconds = seconds();
  report_.peak_rss = peak_rss();
  report_.resumed_layers = journal_->restored_layers();
  report_.json = report_json(options_, report_);
  report_.json["backend"] = observing_.name();
  report_.json["threads"] = executor_.threads();
  report_.json["modules"] = std::move(totals_.modules);
  report_.json["chosen"] = to_json(chosen_, options_.recipe);
  write_file_atomically(folder_->path() / "report.json", report_.json.dump(2) + "\n");
  folder_->commit();
  journal_->remove();
}

QuantizeReport Run::run() {
  prepare();
  log_memory(options_.recipe, config_,
             needs_text() ? int64_t{options_.samples} * options_.sequence : 0);
  make_windows();
  calibrate();
  writer_ = std::make_unique<CheckpointWriter>(plan(), *folder_);
  solve();
  const std::unique_ptr<LinearTensors> head = solve_head();
  windows_.reset();
  writer_->write_ends(head.get());
  finish();
  report_.orders = std::move(orders_);
  return std::move(report_);
}

}  // namespace

QuantizeReport quantize(const QuantizeOptions& options, backend::Backend& backend,
                        Executor& executor) {
  check(options.input != nullptr, "quantize needs an input");
  return Run(options, backend, executor).run();
}

}  // namespace atom::quantizer
