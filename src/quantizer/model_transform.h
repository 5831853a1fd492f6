// The transforms of a whole model: measured layer by layer in floating point, then applied layer by layer.
//
//   ModelTransform transform({.which = recipe.transform, .stream = true}, config, executor, solver);
//   for each layer:  transform.fold(tensors);            // what calibration runs
//                    transform.begin();  transform.add(observed inputs);
//                    orders = transform.end(i, tensors);
//   transform.finish({128});                              // kept channels of the residual stream
//   for each layer:  transform.apply(i, tensors);         // what is rounded
//
// Holds a few matrices of head_dim per layer and one of the hidden size.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "quantizer/journal.h"
#include "quantizer/moments.h"
#include "quantizer/stored_values.h"
#include "quantizer/transform.h"
#include "quantizer/write.h"

namespace atom::quantizer {

// Q [hidden, hidden], row-major: h' = h Q. Channels ascend by energy. `kept`: how many of the last ones its readers keep,
// or may keep. The channels between two such counts, and those before and after all of them, are each turned by a
// random rotation, so that within them no channel is louder than another.
std::vector<float> residual_basis(std::span<const double> second_moment, int hidden,
                                  std::vector<int> kept, uint64_t seed);

// What the readers of the residual stream keep: q, k and v; gate and up. All layers alike.
std::vector<int> stream_kept(const model::Scheme& scheme, const model::ModelConfig& config);

class ModelTransform {
 public:
  struct Options {
    Transforms which;
    bool stream =
        false;  // linears are quantized: gains are folded, the residual stream may be rotated
    uint64_t seed = 0;    // of random rotations
    int positions = 0;    // of the mean of K
    int qk_hadamard = 0;  // block length of the transform of Q and K at run time
    bool keep_ends =
        false;  // embedding, final norm and head stay: the stream is turned at run time
  };
  ModelTransform(const Options& options, const model::ModelConfig& config, Executor& executor,
                 Solver& solver);

  bool any() const { return options_.which.any(); }
  bool rotates_residual() const { return options_.stream && options_.which.residual; }
  // Embedding and head are in the stream's new basis, the head with the final norm's gains.
  bool folds_ends() const { return rotates_residual() && !options_.keep_ends; }
  WritePlan::Changed changed() const;
  // A sentence when a tied head becomes a tensor of its own.
  void tell_size(std::vector<std::string>& notices) const;

  void fold(model::LayerTensors& tensors) const;
  void begin();
  void add(const ObservedInput& input) { moments_->add(input); }
  // `tensors` as they were run. The orders of the transformed layer.
  LayerOrders end(int layer, const model::LayerTensors& tensors);
  // Every layer has been measured. `kept` counts of residual_basis; may be called anew with others, until forget().
  void finish(const std::vector<int>& kept);
  void forget() { stream_moment_ = {}; }

  void apply(int layer, model::LayerTensors& tensors) const;
  // From here on V and O of this layer have no Hadamard transform, or have it again. Nothing, where the recipe has none.
  void use_heads(int layer, bool use) {
    if (options_.which.heads) heads_[static_cast<size_t>(layer)] = use;
  }
  // What measuring left, for a journal: everything but the moments, which forget() drops.
  void save(Record& record) const;
  void restore(const Record& record);

  std::span<const float> basis() const { return basis_; }
  // Rows of the embedding (empty: they stay), or of a head that reads the final norm with `gain`, in the new basis.
  RowChange embedding() const;
  RowChange head(std::vector<float> gain) const;

 private:
  void add_key_offset(const model::LayerTensors& tensors, LayerTransform& transform) const;

  Options options_;
  model::ModelConfig config_;
  Executor& executor_;
  Solver& solver_;
  std::unique_ptr<Moments> moments_;
  std::vector<LayerTransform> layers_;
  std::vector<bool> heads_;            // use_heads(), per layer
  std::vector<double> stream_moment_;  // [hidden, hidden] of x / rms(x), all sites together
  std::vector<float> basis_;
};

}  // namespace atom::quantizer
