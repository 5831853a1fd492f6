// Channel order: which input channel of a linear stands at which position.
//
//   LayerOrders orders{.qkv = energy_order(energies), ...};
//   apply_orders(orders, layer);          // an equal layer: permuted columns, folded down_proj
//   order
//
// Channels are sorted by ascending energy (sum of x^2 over calibration tokens), so that each int4
// group holds channels of similar magnitude and the last positions, the kept channels, hold the
// largest.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/layer_tensors.h"
#include "model/scheme.h"

namespace atom::quantizer {

using Permutation = std::vector<int32_t>;  // [k]: channel at position i; empty: identity

// Ascending, equal energies by channel. Empty when that is the identity.
Permutation energy_order(std::span<const double> energy);

// Of the four sites of a layer; every expert's down_proj has its own.
struct LayerOrders {
  Permutation qkv, out, ffn;
  std::vector<Permutation> down;
};

// Columns of a linear (all of one floating-point format), or its rows with the bias, in the given
// order: position i takes what stood at order[i]. Bits are moved, not converted.
void permute_columns(model::LinearTensors& linear, const Permutation& order);
void permute_rows(model::LinearTensors& linear, const Permutation& order);

// Permutes the columns of every linear and the rows of gate and up (by down's order, which leaves
// no trace), and notes the orders of the other sites. The layer computes the same function up to
// the order of additions.
void apply_orders(const LayerOrders& orders, model::LayerTensors& layer);

// Gives the sites the input formats and transforms of the scheme, turns the columns of a transformed input with it
// (those linears become f32), and cuts the still floating-point weights into
// the segments that those inputs have. Linears without a scheme stay as they are.
void apply_input_formats(const model::Scheme& scheme, model::LayerTensors& layer);

// Gives layer `index` its KV-cache.
void apply_cache_format(const model::Scheme& scheme, int index, model::LayerTensors& layer);

}  // namespace atom::quantizer
