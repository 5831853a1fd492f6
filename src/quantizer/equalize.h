// Which transform a layer gets (transform.h says what it does).
#pragma once

#include "model/config.h"
#include "model/layer_tensors.h"
#include "quantizer/moments.h"
#include "quantizer/recipe.h"
#include "quantizer/transform.h"

namespace atom::quantizer {

// `layer` has folded gains; moments are those of its inputs in floating point. Any number of tokens will do: what they
// do not show is taken from the weights.
LayerTransform make_transform(const model::LayerTensors& layer, const model::ModelConfig& config,
                              const Moments& moments, const Transforms& which);

// Mean of K after RoPE over positions [0, positions), [kv_heads, head_dim], as if what K says did not depend on where
// it stands. Subtracted from every K it changes no attention (SageAttention's smoothing, Zhang et al. 2024, but with a
// mean known in advance), and keys become smaller.
std::vector<float> mean_keys(const model::LayerTensors& layer, const model::ModelConfig& config,
                             const Moments& moments, int positions);

}  // namespace atom::quantizer
