// A linear's input in the reference backend: row after row, each with its values, scales and codes.
//
//   quantize_row(x, activation, row);               // f32 values, the producer's order
//   const ActivationRow r = row_of(activation, row);
//   r.codes[0] * r.scales[0];                       // the first value, when its segment is integer
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "backend/operations.h"

namespace atom::backend {

// One row, borrowed from Activation::data. Positions are those of the linear's input (after the
// order), groups count over both segments.
struct ActivationRow {
  float* values = nullptr;  // [k], of floating-point segments only
  float* scales = nullptr;  // [groups], of integer segments only
  int8_t* codes = nullptr;  // [k], 0 in floating-point segments
};

size_t activation_row_bytes(const format::Segments& segments);

ActivationRow row_of(const Activation& x, int row);

// Orders x [k], cuts it into segments and groups, and quantizes each group for the consumer.
void quantize_row(std::span<const float> x, const Activation& y, int row);

// Saturated codes of the row.
int64_t saturated_in_row(const Activation& x, int row);

// The row as a linear sees it: scale * code in f32, or the value itself. y: [k].
void dequantize_row(const Activation& x, int row, std::span<float> y);

}  // namespace atom::backend
