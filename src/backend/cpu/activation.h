// Where a linear's input lies: the layout of Activation::data on this backend. Segment by segment:
// rows of values or codes, then scales [rows, groups], then code sums [rows, sums]; each array is
// 64-byte aligned.
#pragma once

#include <cstddef>

#include "backend/cpu/kernel_table.h"
#include "backend/operations.h"

namespace atom::backend::cpu {

Element element_of(format::Format format);

size_t activation_bytes(const InputSpec& spec, int rows);

// Pointers into x.data, for the kernels.
Input input_of(const Activation& x);

}  // namespace atom::backend::cpu
