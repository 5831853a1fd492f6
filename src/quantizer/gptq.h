// Rounding of int4 and FP4 weights: to nearest, or error-compensated by GPTQ (Frantar et al. 2022).
//
//   const RoundingProblem problem = {.name = "q_proj", .weight = w, .n = n, .k = k, .normal = normal};
//   Rounded r = round_nearest(problem);
//   gptq_rows(problem, begin, end, r);     // rows are independent: any split gives the same numbers
//
// Pure functions on f32 matrices. Columns stand in stored order: the int4 (normal) ones first, then
// the kept ones, which are not rounded here: `rest` is what the caller still has to store for them.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "format/linear_format.h"

namespace atom::quantizer {

struct RoundingProblem {
  std::string_view name;          // of the module, for messages
  const float* weight = nullptr;  // [n, k]
  int n = 0;
  int k = 0;
  format::Segment normal;         // four-bit columns [0, normal.size), size 0: none
  float clip = 1.0f;              // of a group's scale, 0: searched (clip.h); ignored for int4.row
  bool signed_scales = false;     // of int4: a searched or extreme one may be negative
  const float* factor = nullptr;  // GPTQ: upper U [k, k] with U^T U = inverse of the damped Hessian
  const float* gram = nullptr;    // refinement: Hessian [k, k]; null: none
  float damping = 0;              // on the gram's diagonal
  std::span<const uint8_t>
      dead;  // GPTQ: [k], 1: no calibration token uses the column, its weights become 0
};

struct Rounded {
  std::vector<int8_t> codes;        // [n, normal.size]
  std::vector<uint16_t> scales;     // [n, groups], bits of f16 or of a byte; empty when progressive
  std::vector<float> global_scale;  // [1] of nvfp4, from the weights before rounding
  std::vector<float> row_scales;    // [n] of progressive int4
  std::vector<int8_t> multipliers;  // [n, groups] of progressive int4
  std::vector<float> rest;          // [n, k - normal.size]

  float global() const { return global_scale.empty() ? 1.0f : global_scale[0]; }
};

// Sized, without content but for the global scale.
Rounded make_rounded(const RoundingProblem& problem);

// s = f16(absmax * (clip / 7)), or the progressive row scale and multipliers of these, or the scale of
// FP4 (docs/formats.md). Error naming the module: a scale beyond f16.
Rounded round_nearest(const RoundingProblem& problem);

// Rows [begin, end): columns left to right; the scale of a group, f16(2 * absmax * clip / 15) (FP4: as
// above), comes from the weights at its first column, compensated by all columns before. The rest receives
// the propagated error. Progressive scales are fixed before the first column, from the weights as
// they are: absmax * (clip / 7). Error as above.
void gptq_rows(const RoundingProblem& problem, int begin, int end, Rounded& out);

}  // namespace atom::quantizer
