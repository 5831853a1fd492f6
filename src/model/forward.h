// The one transformer: embed, layers, head, over the device interface. No branch on a format or a
// device.
//
//   Forward forward(model->config, backend, {.max_rows = 512, .max_positions = 2048});
//   forward.embed(*model->ends, ids, h);
//   for (int i = 0; i < layers; ++i) forward.layer(*model->layers[i], pool, i, step, h);
//   forward.head(*model->ends, h, rows, logits);
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/linear_rows.h"
#include "kv/pool.h"
#include "model/weights.h"

namespace atom::model {

// Where a layer's linears get their inputs.
enum class SiteIndex : uint8_t { kQkv, kOut, kGateUp, kDown };
inline constexpr int kSites = 4;
const char* name(SiteIndex site);  // "qkv", "o", "gate_up", "down"
const BoundSite& input_of(const Layer& layer, SiteIndex site);

class Forward {
 public:
  struct Options {
    int max_rows = 512;        // rows of one step
    int max_positions = 2048;  // RoPE tables
  };
  Forward(const ModelConfig& config, backend::Backend& backend, const Options& options);

  // h = [ids.size(), hidden] f32 on the backend. ids on the host, each in [0, vocabulary).
  void embed(const Ends& ends, std::span<const int32_t> ids, float* h);
  // The two halves of it, for steps that are recorded (backend::Backend::record): the ids go up, then their rows. An id may
  // be backend::sampled_row(j) here, for row j of sampled(): a step of the same rows as the one before needs no new ids.
  void upload_ids(std::span<const int32_t> ids);
  void embed(const Ends& ends, int rows, float* h);
  // [max_rows] on the backend: where Backend::sample_ahead leaves the ids of one step for the next.
  int32_t* sampled() { return sampled_.as<int32_t>(); }
  // Advances h [rows, hidden] in place through one layer; K and V go to the pages of `pool_layer`.
  void layer(const Layer& layer, kv::Pool& pool, int pool_layer,
             std::span<const backend::SequenceStep> sequences, int rows, float* h);
  // logits = [rows, vocabulary] of the rows of h.
  void head(const Ends& ends, const float* h, int rows, float* logits);

  // From now on layer() adds the saturated codes of its linears' inputs to counts = [layers, kSites] of the backend's memory,
  // at pool_layer; null, as at first: it does not. Steps that are recorded should not.
  void count_saturated(uint64_t* counts) { saturated_ = counts; }

  backend::Backend& backend() { return backend_; }

 private:
  // The shared input buffer in the layout of `site`: each use ends before the next one begins.
  backend::Activation activation(const BoundSite& site, int rows);
  void feed_forward(const Layer& layer, int index, int rows, float* h);
  void count(const backend::Activation& x, int layer, SiteIndex site);
  // to = from w^T; both [rows, hidden], and may be one.
  void turn(const Ends& ends, const backend::PackedLinear& w, const float* from, int rows,
            float* to);

  ModelConfig config_;
  backend::Backend& backend_;
  Options options_;
  uint64_t* saturated_ = nullptr;
  backend::Buffer rope_cos_, rope_sin_;  // f32 [max_positions, head_dim / 2]
  backend::LinearRows qkv_, gate_up_;
  backend::Buffer ids_, sampled_, input_, router_input_, expert_input_, expert_out_, plain_;
  backend::Buffer router_logits_, row_index_, row_ends_, slots_, route_weights_, turned_;
};

// The cache of one sequence of `model`.
kv::Pool make_pool(const Model& model, int positions);
// The cache of up to `sequences` at once, which share `pages`.
kv::Pool make_shared_pool(const Model& model, int pages, int sequences);

// Page tables of sequences that own consecutive pages: 0, 1, 2, ...
std::vector<int32_t> consecutive_pages(int first, int count);

}  // namespace atom::model
