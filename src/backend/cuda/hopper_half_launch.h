// Host side of the launches of hopper_half_linear.h's kernels. Included by .cu files only.
#pragma once

#include "backend/cuda/hopper_half_linear.h"
#include "backend/cuda/hopper_launch.h"

namespace atom::backend::cuda::hopper {

// Inputs as panels of 64 columns: boxes of `panels` panels of `box_rows` rows, 128-byte swizzle; outside they read zeros.
Status make_half_input_map(const HalfRows& x, int box_rows, int panels, CUtensorMap& map);

Status launch_half_few_rows(const HalfTask& task, const Plan& plan, Stream stream);
Status launch_half_many_rows(const HalfTask& task, const Plan& plan, int multiprocessors,
                             Stream stream);

}  // namespace atom::backend::cuda::hopper
