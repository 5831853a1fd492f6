// The memory that a bench needs at least, before it is asked for: weights and caches as a checkpoint and the cache's pages
// store them, and the largest rows. What a backend keeps beside (other layouts, scratch) and baselines come on top.
//
//   const double bytes = step_memory(config, scheme, {.batch = 64, .context = 4096});
#pragma once

#include "checkpoint/model_files.h"
#include "model/config.h"
#include "model/random_model.h"
#include "model/scheme.h"
#include "timing/attention_ops.h"
#include "timing/step.h"

namespace atom::timing {

// float_bytes: of a weight in floating point: 2 of random models; what a checkpoint stores, so 4 of one in f32.
model::WeightBytes weight_bytes(const model::ModelConfig& config, const model::Scheme& scheme,
                                double float_bytes = 2);
double layer_bytes(const model::ModelConfig& config, const model::Scheme& scheme,
                   double float_bytes = 2);  // all experts
// Of a checkpoint: those of its embedding, whose type the others share.
double float_bytes_of(const checkpoint::ModelFiles& files, const model::ModelConfig& config);
double step_memory(const model::ModelConfig& config, const model::Scheme& scheme,
                   const StepShape& shape);
// Of LayerOps and AttentionOps. rotated: bytes of each linear, or of caches.
double layer_ops_memory(const model::ModelConfig& config, const model::Scheme& scheme, int rows,
                        size_t rotated);
double attention_ops_memory(const model::ModelConfig& config, const AttentionShape& shape,
                            size_t rotated);

}  // namespace atom::timing
