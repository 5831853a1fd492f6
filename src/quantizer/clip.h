// Clips found by measured error instead of one constant for all.
//
//   clip = searched_clip(group, absmax / 7.5f, importance);       // of one weight group
//   InputSample sample;  sample.add(observed) ...;                // inputs of a layer, not rounded
//   clip = sample.best_clip(SiteKind::kQkv, normal, readers, solver);
#pragma once

#include <span>
#include <vector>

#include "format/linear_format.h"
#include "quantizer/calibrate.h"
#include "quantizer/solver.h"

namespace atom::quantizer {

// The clip in 0.5 .. 1 whose scale f16(clip * unclipped) rounds the int4 group with the least
// sum of importance * error^2. Ties: the larger. `importance` has the group's size, or is empty: all 1.
// With `both_signs` also -1 .. -0.5: the longer side of the codes, -8, may stand for either end of the group.
float searched_clip(std::span<const float> group, float unclipped,
                    std::span<const float> importance, bool both_signs = false);

// The multiplier of a progressive group that rounds it with the least sum of importance * error^2, row_scale given:
// from half of the one that spans the group up to that one.
int8_t searched_multiplier(std::span<const float> group, float row_scale,
                           std::span<const float> importance, bool both_signs);

// The same for the scale of an FP4 group with a clip (format::fp4_scale_bits).
struct Fp4Group {
  format::Format format;
  std::span<const float> values;
  float global = 1;  // of nvfp4
};
float searched_clip(const Fp4Group& group, std::span<const float> importance);

// The linears that read a site: one list for a dense layer, or one for every expert.
using Readers = std::span<const std::vector<const model::LinearTensors*>>;

// The first `columns` columns of the linears, below each other: [sum of n, columns].
std::vector<float> first_columns(const std::vector<const model::LinearTensors*>& linears,
                                 int columns);

// Errors [rows, normal.size] of rounding the first columns of x [rows, k] to int4 or e2m1 groups.
std::vector<float> rounding_errors(const float* x, int rows, int k, format::Segment normal,
                                   float clip, bool signed_scales);

// Some rows of every input of a layer, in the order and basis of its linears.
class InputSample {
 public:
  void add(const ObservedInput& input);

  // The clip in 0.7 .. 1 of an int4 or e2m1 input with the least |dx W^T|^2 over the sample, dx the rounding error of the
  // normal segment; `readers` are its linears, expert by expert (one list for a dense layer). 0: no rows.
  float best_clip(SiteKind site, format::Segment normal, bool signed_scales, Readers readers,
                  Solver& solver) const;

  struct Rows {
    SiteKind site;
    int expert = 0;
    int k = 0, rows = 0;
    std::vector<float> x;  // [rows, k]
  };
  std::span<const Rows> inputs() const { return inputs_; }

 private:
  std::vector<Rows> inputs_;
};

// What a search runs on.
struct ClipTools {
  ObservingBackend& observing;
  Windows& windows;  // hidden states before the layer; they stay as they are
  Solver& solver;
};

// Sets the clip of every site of the layer with int4 or e2m1 inputs, here and in the scheme, by the error of the outputs of its
// linears, which are still in floating point, on some calibration tokens. A site that none of them reaches keeps its clip.
void search_input_clips(const ClipTools& tools, model::LayerTensors& tensors,
                        model::Scheme& scheme);

}  // namespace atom::quantizer
