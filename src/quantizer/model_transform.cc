#include "quantizer/model_transform.h"

#include "base/error.h"

namespace atom::quantizer {
namespace {

void add_mean(const Gram& gram, std::vector<double>& to) {
  if (gram.rows == 0) return;
  for (size_t i = 0; i < to.size(); ++i)
    to[i] += double{gram.values[i]} / static_cast<double>(gram.rows);
}

}  // namespace

ModelTransform::ModelTransform(const Options& options, const model::ModelConfig& config,
                               Executor& executor, Solver& solver)
    : options_(options), config_(config), executor_(executor), solver_(solver) {
  if (rotates_residual())
    stream_moment_.resize(static_cast<size_t>(config.hidden) * static_cast<size_t>(config.hidden));
}

WritePlan::Changed ModelTransform::changed() const {
  if (!any()) return WritePlan::Changed::kNothing;
  return options_.stream ? WritePlan::Changed::kStream : WritePlan::Changed::kHeads;
}

void ModelTransform::fold(model::LayerTensors& tensors) const {
  if (any()) fold_gains(tensors);
}

void ModelTransform::begin() { moments_ = std::make_unique<Moments>(config_, executor_, solver_); }

LayerOrders ModelTransform::end(int layer, const model::LayerTensors& tensors) {
  moments_->finish(layer);
  LayerTransform transform = make_transform(tensors, config_, *moments_, options_.which);
  if (!options_.stream) transform.up.clear();
  const LayerOrders orders = make_orders(transform, config_, *moments_, rotates_residual());
  layers_.push_back(std::move(transform));
  if (rotates_residual()) {
    add_mean(moments_->qkv(), stream_moment_);
    add_mean(moments_->ffn(), stream_moment_);
  }
  moments_.reset();
  return orders;
}

void ModelTransform::finish() {
  if (!rotates_residual()) return;
  basis_ = residual_basis(stream_moment_, config_.hidden, options_.kept, options_.seed);
  stream_moment_.clear();
}

void ModelTransform::apply(int layer, model::LayerTensors& tensors) const {
  if (!any()) return;
  if (options_.stream) fold_gains(tensors);
  apply_transform(layers_[static_cast<size_t>(layer)], config_, tensors);
  if (rotates_residual()) rotate_residual(basis_, tensors, solver_);
}

RowChange ModelTransform::embedding() const {
  return [this](const std::vector<float>& rows, int n) {
    return rotates_residual()
               ? solver_.product(rows.data(), n, config_.hidden, basis_.data(), config_.hidden)
               : rows;
  };
}

RowChange ModelTransform::head(std::vector<float> gain) const {
  return [this, gain = std::move(gain)](std::vector<float> rows, int n) {
    for (size_t i = 0; i < rows.size(); ++i) rows[i] *= gain[i % gain.size()];
    return embedding()(rows, n);
  };
}

}  // namespace atom::quantizer
