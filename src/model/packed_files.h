// Which of the models that other programs quantized Atom computes with as they are stored (docs/formats.md).
#pragma once

#include "checkpoint/model_files.h"
#include "model/open_files.h"

namespace atom::model {

// Nothing where config.json has no quantization, one of Atom's own, or one that read_layer() reads as it is. Else GPTQ's,
// AWQ's and compressed-tensors' linears are seen as w4a16 or w8a8 where all of them fit and `weights` allows it, and as
// F32; config.json then says the one or nothing, and files.packed_note() what was done and why; falling back to F32 is
// a warning. Error: as ModelFiles::read_packed.
void see_packed(checkpoint::ModelFiles& files, Weights weights);

}  // namespace atom::model
