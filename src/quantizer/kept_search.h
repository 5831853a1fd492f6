// What every site of every layer keeps, by measured error, at the cost of one number everywhere: how many channels, which
// ones, and beside a Hadamard transform or instead of it.
//
//   transform.finish(kept_candidates(128, config.hidden));
//   chosen = search_kept({files, config, plain, scheme, recipe, transform, orders}, {observing, windows, solver});
//   scheme = to_scheme(recipe, config, notices, chosen);
//
// A kept channel costs one weight of 8 instead of 4 bits per output row of the linears that read it; a layer may spend
// what the one number would. What a site's choice does is the error |dY|^2 / |Y|^2 of the outputs of its linears on some
// calibration tokens (site_error.h). How much the model minds is measured once per site: the error of the layer's output with
// that site's weights rounded, over that of the site. The sum over the sites of a layer is made least
// (docs/accuracy.md, "Kept channels, site by site").
//
// For each count the best of these is taken: the loudest channels or those that cost most; for down_proj with the
// transform before it or without; for o_proj with V and O turned per head or not, the error of the KV-cache counted too.
// q, k, v, gate and up read the residual stream, whose basis all layers share: where it is in its principal components,
// the leading ones are kept.
#pragma once

#include <array>
#include <functional>
#include <span>
#include <vector>

#include "quantizer/clip.h"
#include "quantizer/model_transform.h"
#include "quantizer/recipe.h"
#include "quantizer/site_error.h"

namespace atom::quantizer {

// `kept` times 0 to 1 in quarters, 1.5, 2, 3 and 4, as multiples of 16 that inputs of k channels can keep; ascending.
std::vector<int> kept_candidates(int kept, int k);

// What a count is best used with.
struct SiteWay {
  bool turned = true;     // with the Hadamard transform of the recipe, if it has one here
  bool by_error = false;  // keeps the channels that cost most, instead of the loudest
  std::vector<Permutation> orders = {};  // as LayerOrders has them
};

// What the counts of one site would do.
struct SiteKept {
  int64_t rows = 0;           // output rows of its linears
  int standard = 0;           // the one number, as far as the site has so many
  std::vector<int> counts;    // ascending, `standard` among them
  std::vector<double> error;  // of the outputs, one per count
  std::vector<SiteWay> way;   // one per count
};
using LayerKept = std::array<SiteKept, 4>;  // qkv, out, ffn, down

// The counts of every layer. `shared`: qkv and ffn have the same in all layers, as channels of one residual stream.
// Ties: the cheaper.
std::vector<KeptCounts> choose_kept(std::span<const LayerKept> layers, bool shared);

struct KeptSearch {
  const checkpoint::ModelFiles& files;
  const model::ModelConfig& config;
  const model::Scheme& plain;
  const model::Scheme& scheme;  // of the one number: the KV-cache is taken from it
  const Recipe& recipe;
  ModelTransform& transform;                // finished with kept_candidates(); use_heads() is told
  std::function<void(int layer)> on_layer;  // before each one
  std::span<LayerOrders>
      orders;  // empty: none; changed where other channels are kept than the loudest
};
// The windows hold the embedding and leave behind the last layer.
std::vector<LayerChoice> search_kept(const KeptSearch& search, const ClipTools& tools);

}  // namespace atom::quantizer
