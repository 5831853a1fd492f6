// Models with random weights made in place, for timing: the shapes and formats of a real one, values that keep the
// activations finite and of the size that real ones have.
//
//   const RandomModel random = make_random_model(*backend, {.config = config, .scheme = scheme});
//   kv::Pool pool = ...;  fill_random(pool, *backend, 1);
//   forward.layer(*random.model->layers[0], pool, 0, sequences, rows, h);
//
// The tensors of one layer are made and packed once for each layer: equal on the host, apart on the device.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "backend/backend.h"
#include "base/random.h"
#include "kv/pool.h"
#include "model/config.h"
#include "model/layer_tensors.h"
#include "model/scheme.h"
#include "model/weights.h"

namespace atom::model {

// [n, k] with values of standard deviation 1 / sqrt(k), so that inputs of variance 1 give outputs of variance 1: codes
// of a rounded normal distribution, scales of groups that differ by up to a quarter. f32 segments become f16.
LinearTensors random_linear(std::string name, int n, int k, const format::Segments& segments,
                            Random& random);

// The layer `index` that the scheme describes. Sites whose linears keep channels have a random order.
LayerTensors random_layer(const ModelConfig& config, const Scheme& scheme, int index,
                          Random& random);

// Bytes that a step reads, as the checkpoint stores them.
struct WeightBytes {
  int64_t attention = 0;  // q, k, v and o of one layer
  int64_t router = 0;
  int64_t expert = 0;  // gate, up and down of one expert; of the network of a dense layer
  int64_t head = 0;
};

struct RandomModel {
  std::unique_ptr<Model> model;
  WeightBytes bytes;
};

struct RandomModelOptions {
  ModelConfig config;
  Scheme scheme;  // without stream_basis
  uint64_t seed = 1;
  std::function<void(int done, int layers)> progress = {};
};
// The backend outlives the result.
RandomModel make_random_model(backend::Backend& backend, const RandomModelOptions& options);

// Random codes, and parameters that give values of variance 1, in all pages of the pool, open ones too. between: called
// now and then, may throw.
void fill_random(const kv::Pool& pool, backend::Backend& backend, uint64_t seed,
                 const std::function<void()>& between = {});

}  // namespace atom::model
