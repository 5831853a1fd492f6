// What rounding does to the outputs of the linears that read one input, measured on some of its rows.
//
//   KeptError error = kept_error(sample, SiteKind::kDown, readers, problem, solver);
//   error.inputs + error.weights                          // |dY|^2 / |Y|^2
//
// Inputs and, independently, weights are rounded to nearest; kept channels count as exact.
#pragma once

#include <span>
#include <vector>

#include "quantizer/clip.h"
#include "quantizer/order.h"

namespace atom::quantizer {

// How a site is rounded. `normal` has the format of its weights as plain int4 or e2m1 groups; its size is the channels
// that are not kept.
struct KeptProblem {
  format::Segment normal;
  bool rounded_inputs = true;  // to 4 bits
  bool signed_scales = false;
  int hadamard = 0;  // block length of the transform of the normal channels, 0: none
  // Of the channels [k] as they stand in the sample, one for every expert, or one for all; none: they stay.
  std::span<const Permutation> orders = {};
};

// |dY|^2 / |Y|^2 of the outputs of the site's linears. 0: no rows.
struct KeptError {
  double inputs = 0, weights = 0;
};
KeptError kept_error(const InputSample& sample, SiteKind site, Readers readers,
                     const KeptProblem& problem, Solver& solver);

// Orders for problem.orders that move the `kept` channels that cost most to the end; the others stay in their order. What
// a channel [k] costs is its share of the error with nothing kept, sum over rows of dx^2 |w|^2 and x^2 |dw|^2; under a
// Hadamard transform, which deals errors out evenly, its share of the energies of x and of w. One order for every expert
// of a down_proj, else one for all.
std::vector<Permutation> costliest_last(const InputSample& sample, SiteKind site, Readers readers,
                                        const KeptProblem& problem, int kept);

// The linear with its normal channels rounded, in the basis and order that it came in; problem.orders says nothing here.
model::LinearTensors rounded(const model::LinearTensors& linear, const KeptProblem& problem);

}  // namespace atom::quantizer
