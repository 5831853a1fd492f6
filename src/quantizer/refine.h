// Four-bit codes better than GPTQ's, by coordinate descent on the error that GPTQ minimizes greedily.
//
//   gptq_rows(problem, begin, end, rounded);
//   refine_rows(problem, begin, end, rounded);   // rows are independent, as there
//
// E(q) = (w - q) H (w - q)^T per row, H the damped Hessian. Every code in turn takes its best value while the others
// stay, every group's scale its least-squares value, every kept column (still in floating point) its minimum: E never
// grows. (Coordinate descent for weights: Behdin et al. 2023, "QuantEase".)
#pragma once

#include "quantizer/gptq.h"

namespace atom::quantizer {

// `problem.gram` must be set. Scales of progressive int4, mxfp4, nvfp4 and of whole rows stay as they are.
void refine_rows(const RoundingProblem& problem, int begin, int end, Rounded& out);

}  // namespace atom::quantizer
