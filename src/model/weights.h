// Checkpoint tensors -> layers: canonical host tensors (read_layer), and packed weights on a
// backend (bind_layer, load_model).
//
//   const ModelFiles files = ModelFiles::open("model");
//   auto model = load_model(files, *backend, {});
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "backend/backend.h"
#include "checkpoint/model_files.h"
#include "model/config.h"
#include "model/layer_tensors.h"
#include "model/scheme.h"

namespace atom::model {

// A site on a backend. `spec` has a stable address while the owner lives.
struct BoundSite {
  backend::InputSpec spec;
  backend::Buffer order;
};

// One layer on a backend; made by bind_layer, never moved (activations point at its specs).
struct Layer {
  backend::Buffer attention_norm, ffn_norm;  // f32 [hidden]
  backend::Buffer q_norm, k_norm;            // f32 [head_dim], or empty
  int qk_hadamard = 0;
  int window = 0;
  float kv_clip = 1.0f;
  bool open_page = false;
  backend::Buffer key_offset;  // f32 [kv_heads, head_dim], or empty
  BoundSite qkv_input, out_input, ffn_input, router_input, down_input;
  std::unique_ptr<backend::PackedLinear> qkv, out, router;
  std::vector<std::unique_ptr<backend::PackedLinear>> gate_up, down;  // one per expert
  std::vector<const backend::PackedLinear*> gate_up_views, down_views;
};

// Everything outside the layers.
struct Ends {
  backend::Buffer embedding;  // rows as in the checkpoint
  backend::Table table;
  backend::Buffer final_norm;  // f32 [hidden]
  BoundSite head_input;
  std::unique_ptr<backend::PackedLinear> head;  // [vocabulary, hidden]
  // Of a scheme with a stream_basis: h -> h Q after the embedding, h Q -> h before the final norm; else null.
  std::unique_ptr<backend::PackedLinear> into_basis, out_of_basis;
};

// Tensors of layer `index`. Error naming file and tensor: missing, wrong shape or type, NaN or
// infinity, an order that is no permutation, scales that are not finite.
LayerTensors read_layer(const checkpoint::ModelFiles& files, const ModelConfig& config,
                        const Scheme& scheme, int index);
std::unique_ptr<Layer> bind_layer(backend::Backend& backend, const LayerTensors& tensors);

// What is outside the layers, on the host.
struct EndTensors {
  LinearTensors table;            // the embedding, floating point, [vocabulary, hidden]
  std::vector<float> final_norm;  // [hidden]
  LinearTensors head;
  LinearTensors basis;  // kStreamBasis; n = 0: none
};
std::unique_ptr<Ends> bind_ends(backend::Backend& backend, const EndTensors& tensors);
std::unique_ptr<Ends> load_ends(const checkpoint::ModelFiles& files, const ModelConfig& config,
                                const Scheme& scheme, backend::Backend& backend);
// The LM head's weight: "lm_head", or the embedding when tied.
LinearTensors read_head(const checkpoint::ModelFiles& files, const ModelConfig& config,
                        const Scheme& scheme);

// A whole model on a backend.
struct Model {
  ModelConfig config;
  Scheme scheme;
  std::unique_ptr<Ends> ends;
  std::vector<std::unique_ptr<Layer>> layers;
  backend::Backend* backend = nullptr;  // not owned
};

struct LoadOptions {
  std::optional<format::KvKind> kv;                    // instead of the checkpoint's
  int64_t positions = 0;                               // of extend_positions()
  std::function<void(int done, int layers)> progress;  // may be empty
};
std::unique_ptr<Model> load_model(const checkpoint::ModelFiles& files, backend::Backend& backend,
                                  const LoadOptions& options);

}  // namespace atom::model
