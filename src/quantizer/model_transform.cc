#include "quantizer/model_transform.h"

#include <cblas.h>
#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "format/hadamard.h"
#include "quantizer/equalize.h"
#include "quantizer/journal_records.h"
#include "quantizer/linear_algebra.h"

namespace atom::quantizer {
namespace {

void add_mean(const Gram& gram, std::vector<double>& to) {
  if (gram.rows == 0) return;
  for (size_t i = 0; i < to.size(); ++i)
    to[i] += double{gram.values[i]} / static_cast<double>(gram.rows);
}

}  // namespace

std::vector<float> residual_basis(std::span<const double> second_moment, int hidden,
                                  std::vector<int> kept, uint64_t seed) {
  const Eigen eigen = symmetric_eigen(second_moment, hidden);
  std::vector<float> basis(second_moment.size());
  const auto turn = [&](int begin, int size, uint64_t own_seed) {
    if (size == 0) return;
    const std::vector<double> rotation = random_rotation(size, own_seed);
    std::vector<double> columns(static_cast<size_t>(hidden) * static_cast<size_t>(size));
    cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, hidden, size, size, 1.0,
                eigen.vectors.data() + int64_t{begin} * hidden, hidden, rotation.data(), size, 0.0,
                columns.data(), size);
    for (int64_t r = 0; r < hidden; ++r)
      for (int64_t c = 0; c < size; ++c)
        basis[static_cast<size_t>(r * hidden + begin + c)] =
            static_cast<float>(columns[static_cast<size_t>(r * size + c)]);
  };
  std::sort(kept.begin(), kept.end());
  int last = 0;  // channels that are turned already, from the loudest on
  uint64_t own_seed = seed;
  for (const int count : kept) {
    if (count == last) continue;
    turn(hidden - count, count - last, ++own_seed);
    last = count;
  }
  turn(0, hidden - last, seed);
  return basis;
}

std::vector<int> stream_kept(const model::Scheme& scheme, const model::ModelConfig& config) {
  const auto kept = [&](const std::string& module) {
    const model::LinearScheme* reader = scheme.find(module);
    return reader != nullptr ? reader->kept : 0;
  };
  return {kept(model::module_name(0, "self_attn.q_proj")),
          kept(model::expert_module_name(0, config.family->gate, 0))};
}

ModelTransform::ModelTransform(const Options& options, const model::ModelConfig& config,
                               Executor& executor, Solver& solver)
    : options_(options), config_(config), executor_(executor), solver_(solver) {
  constexpr int kLargestEigenproblem = 32766;  // whose work space LAPACK counts in an int
  if (rotates_residual() && config.hidden > kLargestEigenproblem)
    fail("the transform residual takes a hidden_size of {} at most, but the model has {}",
         kLargestEigenproblem, config.hidden);
  if (rotates_residual())
    stream_moment_.resize(static_cast<size_t>(config.hidden) * static_cast<size_t>(config.hidden));
}

WritePlan::Changed ModelTransform::changed() const {
  if (!any()) return WritePlan::Changed::kNothing;
  return options_.stream ? WritePlan::Changed::kStream : WritePlan::Changed::kHeads;
}

void ModelTransform::tell_size(std::vector<std::string>& notices) const {
  if (!config_.tied_embeddings || !folds_ends()) return;
  const double bytes = 2.0 * config_.vocabulary * config_.hidden;
  notices.push_back(
      fmt::format("the LM head takes the gains of the final norm and is no longer tied to the "
                  "embedding: {:.1f} MiB more",
                  bytes / (1 << 20)));
}

void ModelTransform::fold(model::LayerTensors& tensors) const {
  if (any()) fold_gains(tensors);
}

void ModelTransform::begin() { moments_ = std::make_unique<Moments>(config_, executor_, solver_); }

LayerOrders ModelTransform::end(int layer, const model::LayerTensors& tensors) {
  moments_->finish(layer);
  LayerTransform transform = make_transform(tensors, config_, *moments_, options_.which);
  if (!options_.stream) transform.up.clear();
  if (options_.which.center) add_key_offset(tensors, transform);
  const LayerOrders orders = make_orders(transform, config_, *moments_, rotates_residual());
  layers_.push_back(std::move(transform));
  heads_.push_back(true);
  if (rotates_residual()) {
    add_mean(moments_->qkv(), stream_moment_);
    add_mean(moments_->ffn(), stream_moment_);
  }
  moments_.reset();
  return orders;
}

void ModelTransform::add_key_offset(const model::LayerTensors& tensors,
                                    LayerTransform& transform) const {
  const size_t d = static_cast<size_t>(config_.head_dim), half = d / 2;
  transform.key_offset = mean_keys(tensors, config_, *moments_, options_.positions);
  for (size_t i = 0; !transform.key.empty() && i < transform.key_offset.size(); ++i)
    transform.key_offset[i] *= static_cast<float>(transform.key[i / d * half + i % d % half]);
  for (size_t h = 0; options_.qk_hadamard != 0 && h < transform.key_offset.size(); h += d)
    format::block_hadamard({transform.key_offset.data() + h, d}, options_.qk_hadamard);
}

void ModelTransform::finish(const std::vector<int>& kept) {
  if (!rotates_residual()) return;
  basis_ = residual_basis(stream_moment_, config_.hidden, kept, options_.seed);
}

void ModelTransform::save(Record& record) const {
  record.put("basis", basis_);
  record.json["transforms"] = layers_.size();
  for (size_t i = 0; i < layers_.size(); ++i) {
    put_transform(record, fmt::format("transform.{}.", i), layers_[i]);
    record.json["use_heads"].push_back(static_cast<bool>(heads_[i]));
  }
}

void ModelTransform::restore(const Record& record) {
  basis_ = record.take<float>("basis");
  layers_.clear();
  heads_.clear();
  const auto count = record.json.at("transforms").get<size_t>();
  const auto hidden = static_cast<size_t>(config_.hidden);
  if (basis_.size() != (rotates_residual() ? hidden * hidden : 0))
    fail("the journal has a basis of {} values, not that of {} channels", basis_.size(), hidden);
  if ((any() || count != 0) && count != static_cast<size_t>(config_.layers))
    fail("the journal has transforms of {} layers, but the model has {}", count, config_.layers);
  for (size_t i = 0; i < count; ++i) {
    layers_.push_back(take_transform(record, fmt::format("transform.{}.", i)));
    require_fits(layers_.back(), config_);
    if (layers_.back().key_offset.empty() == options_.which.center)
      fail("the journal's transform of layer {} is that of another recipe", i);
    heads_.push_back(record.json.at("use_heads").at(i).get<bool>());
  }
  forget();
}

void ModelTransform::apply(int layer, model::LayerTensors& tensors) const {
  if (!any()) return;
  if (options_.stream) fold_gains(tensors);
  const LayerTransform& transform = layers_[static_cast<size_t>(layer)];
  if (heads_[static_cast<size_t>(layer)])
    apply_transform(transform, config_, tensors);
  else
    apply_transform(without_heads(transform, config_.head_dim), config_, tensors);
  tensors.key_offset = transform.key_offset;
  if (rotates_residual()) rotate_residual(basis_, tensors, solver_);
}

RowChange ModelTransform::embedding() const {
  if (!rotates_residual()) return {};
  return [this](const std::vector<float>& rows, int n) {
    return solver_.product(rows.data(), n, config_.hidden, basis_.data(), config_.hidden);
  };
}

RowChange ModelTransform::head(std::vector<float> gain) const {
  return [this, gain = std::move(gain)](std::vector<float> rows, int n) {
    for (size_t i = 0; i < rows.size(); ++i) rows[i] *= gain[i % gain.size()];
    return embedding()(rows, n);
  };
}

}  // namespace atom::quantizer
