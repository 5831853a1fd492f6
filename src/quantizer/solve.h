// One linear: floating-point columns in stored order -> the bits of the checkpoint, and what that
// cost.
//
//   const Factor factor = damped_factor(solver, gram, name);
//   const Solved q = solve_linear({.linear = &layer.q, .scheme = scheme, .clip = 0.85f,
//                                  .factor = &factor, .gram = &gram}, solver);
#pragma once

#include <string>

#include "model/layer_tensors.h"
#include "model/scheme.h"
#include "quantizer/solver.h"

namespace atom::quantizer {

struct SolveTask {
  const model::LinearTensors* linear = nullptr;  // floating point, columns already ordered
  model::LinearScheme scheme;
  float clip = 1.0f;               // of four-bit weight groups
  bool signed_scales = false;      // of int4 weight groups
  bool refine = false;             // GPTQ's codes, by coordinate descent; needs a gram
  const Factor* factor = nullptr;  // null: four-bit codes are rounded to nearest
  const Gram* gram = nullptr;      // null: no output error
};

struct Solved {
  model::LinearTensors linear;  // same name, n and bias; segments of the scheme
  double weight_error = 0;      // |W - Wq|^2 / |W|^2
  double output_error = -1;     // tr((W - Wq) H (W - Wq)^T) / tr(W H W^T); -1: no gram
};

// int4 and FP4 columns by GPTQ or to nearest; int8 columns per row, absmax / 127; floating-point kept
// columns in the source's type. Error naming the module: a scale beyond f16.
Solved solve_linear(const SolveTask& task, Solver& solver);

}  // namespace atom::quantizer
