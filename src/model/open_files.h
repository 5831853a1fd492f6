// Opens a model folder as the rest of src/model reads it: with a tensor for each linear. Families that store several linears
// in one (Phi-3: qkv_proj, gate_up_proj) get the names of the others; their rows are looked at where they lie.
//
//   const checkpoint::ModelFiles files = model::open_files("models/phi-3");
//   files.tensor("model.layers.0.self_attn.q_proj.weight");   // the first rows of qkv_proj.weight
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "checkpoint/model_files.h"

namespace atom::model {

// How linears that other programs quantized are seen (packed_files.h).
enum class Weights : uint8_t {
  kAsStored,  // to compute with: in few bits where Atom computes with them, else F32
  kFloats,    // to quantize: F32
};

// Error: as ModelFiles::open and see_packed and, for a folder with fused tensors, as parse_config, or one that has other rows
// than config.json asks for.
checkpoint::ModelFiles open_files(const std::filesystem::path& folder,
                                  Weights weights = Weights::kAsStored);

// What a model whose config.json has fewer layers than its weights leaves out, in words; empty: nothing.
std::string layers_left_out(const checkpoint::ModelFiles& files, int layers);

}  // namespace atom::model
