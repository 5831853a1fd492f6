// How many channels every site of every layer keeps, by measured error, at the cost of one number everywhere.
//
//   transform.finish(kept_candidates(128, config.hidden));
//   counts = search_kept({files, config, plain, recipe, transform, orders}, {observing, windows, solver});
//   scheme = to_scheme(recipe, config, notices, counts);
//
// A kept channel costs one weight of 8 instead of 4 bits per output row of the linears that read it; a layer may spend
// what the one number would. What a site's count does is the error |dY|^2 / |Y|^2 of the outputs of its linears on some
// calibration tokens, from rounding its inputs (where they have 4 bits) and, independently, its weights to nearest; kept
// channels count as exact. How much the model minds is measured once per site: the error of the layer's output with
// that site's weights rounded, over that of the site. The sum over the sites of a layer is made least
// (docs/accuracy.md, "Kept channels, site by site").
#pragma once

#include <array>
#include <span>
#include <vector>

#include "quantizer/clip.h"
#include "quantizer/model_transform.h"
#include "quantizer/recipe.h"

namespace atom::quantizer {

// `kept` times 0 to 1 in quarters, 1.5, 2, 3 and 4, as multiples of 16 that inputs of k channels can keep; ascending.
std::vector<int> kept_candidates(int kept, int k);

// What the counts of one site would do.
struct SiteKept {
  int64_t rows = 0;           // output rows of its linears
  int standard = 0;           // the one number, as far as the site has so many
  std::vector<int> counts;    // ascending, `standard` among them
  std::vector<double> error;  // of the outputs, one per count
};
using LayerKept = std::array<SiteKept, 4>;  // qkv, out, ffn, down

// How a site is rounded. `normal` has the format of its weights as plain int4 or e2m1 groups; its size is the channels
// that are not kept.
struct KeptProblem {
  format::Segment normal;
  bool rounded_inputs = true;  // to 4 bits
  bool signed_scales = false;
  int hadamard = 0;  // block length of the transform of the normal channels, 0: none
};
// |dY|^2 / |Y|^2 of the outputs of the site's linears. 0: no rows.
struct KeptError {
  double inputs = 0, weights = 0;
};
KeptError kept_error(const InputSample& sample, SiteKind site, Readers readers,
                     const KeptProblem& problem, Solver& solver);

// The counts of every layer. `shared`: qkv and ffn have the same in all layers, as channels of one residual stream.
// Ties: the cheaper.
std::vector<KeptCounts> choose_kept(std::span<const LayerKept> layers, bool shared);

struct KeptSearch {
  const checkpoint::ModelFiles& files;
  const model::ModelConfig& config;
  const model::Scheme& plain;
  const Recipe& recipe;
  const ModelTransform& transform;      // finished with kept_candidates()
  std::span<const LayerOrders> orders;  // empty: none
};
// The windows hold the embedding and leave behind the last layer.
std::vector<KeptCounts> search_kept(const KeptSearch& search, const ClipTools& tools);

}  // namespace atom::quantizer
