// Which tensors of a model folder make which tensor of a GGUF file.
#pragma once

#include <string>
#include <vector>

#include "checkpoint/gguf_writer.h"
#include "checkpoint/model_files.h"
#include "convert/gguf_metadata.h"

namespace atom::convert {

struct PlannedTensor {
  checkpoint::GgufTensorInfo info;
  std::vector<std::string> sources;  // whose rows follow each other; empty: `values`
  int heads = 0;                     // whose rows are interleaved; 0: none are
  std::vector<float> values;         // RoPE's factors
};

struct GgufPlan {
  std::vector<PlannedTensor> tensors;
  std::vector<std::string> as_f16;  // names in the file
};

// `files` as the folder has it (ModelFiles::open: fused tensors stay). Error naming folder and tensor: one without a place in
// the architecture.
GgufPlan plan_gguf(const checkpoint::ModelFiles& files, const GgufSource& source,
                   const std::string& type);

}  // namespace atom::convert
