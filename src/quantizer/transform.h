// Function-preserving transforms: the same model in floating point, but easier to round.
//
//   fold_gains(layer);                                   // norm gains into q, k, v, gate, up, router
//   LayerTransform t = make_transform(layer, config, moments, which);   // equalize.h
//   apply_transform(t, config, layer);
//   rotate_residual(basis, layer, solver);               // the stream h becomes h Q
//
// Equalization makes the producer and the consumer of a channel equally loud (data-free scaling: Nagel et al. 2019;
// here with measured energies, and for the values of a head as a whole matrix): whatever function-preserving scale
// the source carries is undone by construction. Rotations: QuaRot (Ashkboos et al. 2024), SliceGPT's PCA basis
// (Ashkboos et al. 2024).
#pragma once

#include <cstdint>
#include <vector>

#include "model/config.h"
#include "model/layer_tensors.h"
#include "quantizer/moments.h"
#include "quantizer/recipe.h"
#include "quantizer/solver.h"

namespace atom::quantizer {

// Of one layer. Vectors are empty where nothing changes.
struct LayerTransform {
  bool heads = false;                     // `value` ends with the Hadamard transform of every head
  std::vector<std::vector<float>> value;  // per KV head [d, d]: v' = value v
  std::vector<std::vector<float>> value_inverse;  // per KV head [d, d]: o' = o value_inverse
  std::vector<double> key;  // [kv_heads, d / 2] k' = key k, q' = q / key for both of a RoPE pair
  // [kv_heads, d] K's mean as it is stored: after `key`, RoPE and the Hadamard transform.
  std::vector<float> key_offset;
  std::vector<std::vector<double>> up;  // per expert [intermediate]: up' = up u, down' = down / u
};

// Multiplies the columns of q, k, v, gate, up and the router by the gains of the norms before them, which become 1.
// These linears become f32.
void fold_gains(model::LayerTensors& layer);

// The same without the Hadamard transform of V and O.
LayerTransform without_heads(LayerTransform transform, int head_dim);

// The linears it touches become f32.
void apply_transform(const LayerTransform& transform, const model::ModelConfig& config,
                     model::LayerTensors& layer);

// Orders of a transformed layer by the energies that its inputs now have. qkv and ffn keep the identity when the
// residual stream is rotated: its basis is sorted.
LayerOrders make_orders(const LayerTransform& transform, const model::ModelConfig& config,
                        const Moments& moments, bool sorted_residual);

// W' = W Q of what reads the stream (gains folded), W' = Q^T W of what writes it.
void rotate_residual(std::span<const float> basis, model::LayerTensors& layer, Solver& solver);

}  // namespace atom::quantizer
