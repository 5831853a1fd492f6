// What a checkpoint in 16 or 32 bits must hold, checked by its headers alone, so that a long run does not find
// a broken last layer at its end.
//
//   require_plain_tensors(files, config);   // before calibration
#pragma once

#include <string>

#include "checkpoint/model_files.h"
#include "model/config.h"

namespace atom::model {

// Error naming folder and tensor: missing, another shape than config.json asks for, not floating point.
// Values are not read.
void require_plain_tensors(const checkpoint::ModelFiles& files, const ModelConfig& config);

// Where the token embedding lies: its own name, or the head's when a tied pair is stored under that only.
std::string embedding_tensor(const checkpoint::ModelFiles& files, const ModelConfig& config);

// True when the LM head is a tensor of its own. A tied head is the embedding, whatever else is stored under its
// name.
bool has_own_head(const checkpoint::ModelFiles& files, const ModelConfig& config);

}  // namespace atom::model
