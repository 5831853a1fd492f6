// The layout of a linear's input on the device, from its spec (tasks.h: InputView).
#pragma once

#include "backend/cuda/tasks.h"
#include "backend/operations.h"

namespace atom::backend::cuda {

// `data` and `rows` are those of the activation.
InputView input_view(const Activation& x);
// Of any number of rows; data is null.
InputView input_view(const InputSpec& spec);

}  // namespace atom::backend::cuda
