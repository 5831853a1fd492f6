// A layer of a tiny model and its formats, for records of journals: the fuzz target and what makes its corpus.
#pragma once

#include "model/config.h"
#include "model/layer_tensors.h"
#include "model/scheme.h"

namespace atom::fuzz {

inline model::ModelConfig small_config() {
  model::ModelConfig config;
  config.family = &model::find_family("LlamaForCausalLM", "fuzz");
  config.vocabulary = config.hidden = config.intermediate = 32;
  config.layers = 1;
  config.heads = 2;
  config.kv_heads = 1;
  config.head_dim = 16;
  return config;
}

// Every kind of array that a record may have: groups, multipliers, a global scale, kept channels.
inline model::Scheme small_scheme() {
  model::Scheme scheme;
  const auto linear = [&scheme](const char* name, format::Format format, int kept) {
    scheme.linears[name] = {.weight = format, .input = format::kInt8, .kept = kept};
    if (kept > 0) scheme.linears[name].kept_weight = format::kInt8;
  };
  for (const char* name : {"q", "k", "v"}) linear(name, format::int4(32), 16);
  linear("out", format::int4_progressive(32), 0);
  for (const char* name : {"gate", "up"}) linear(name, format::kInt8, 0);
  linear("down", format::kNvfp4, 16);
  return scheme;
}

inline model::LayerTensors small_layer() {
  model::LayerTensors layer;
  layer.experts.resize(1);
  const auto linear = [](model::LinearTensors& tensors, const char* name, int n) {
    tensors.name = name;
    tensors.n = n;
    tensors.segments = format::whole(format::kF32, 32);
  };
  linear(layer.q, "q", 32);
  linear(layer.k, "k", 16);
  linear(layer.v, "v", 16);
  linear(layer.out, "out", 32);
  linear(layer.experts[0].gate, "gate", 32);
  linear(layer.experts[0].up, "up", 32);
  linear(layer.experts[0].down, "down", 32);
  return layer;
}

}  // namespace atom::fuzz
