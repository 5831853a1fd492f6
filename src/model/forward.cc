#include "model/forward.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "model/rope.h"

namespace atom::model {
namespace {

void ensure(backend::Backend& backend, backend::Buffer& buffer, size_t bytes) {
  if (buffer.bytes() < bytes) {
    buffer = backend::Buffer();  // free first: the two need not fit together
    buffer = backend.allocate(bytes);
  }
}

}  // namespace

const char* name(SiteIndex site) {
  constexpr const char* kNames[kSites] = {"qkv", "o", "gate_up", "down"};
  return kNames[static_cast<size_t>(site)];
}

const BoundSite& input_of(const Layer& layer, SiteIndex site) {
  switch (site) {
    case SiteIndex::kQkv:
      return layer.qkv_input;
    case SiteIndex::kOut:
      return layer.out_input;
    case SiteIndex::kGateUp:
      return layer.ffn_input;
    case SiteIndex::kDown:
      break;
  }
  return layer.down_input;
}

Forward::Forward(const ModelConfig& config, backend::Backend& backend, const Options& options)
    : config_(config), backend_(backend), options_(options) {
  check(options.max_rows > 0 && options.max_positions > 0, "a forward needs rows and positions");
  const RopeTables rope = make_rope_tables(config, options.max_positions);
  const size_t bytes = rope.cos.size() * sizeof(float);
  rope_cos_ = backend.allocate(bytes);
  rope_sin_ = backend.allocate(bytes);
  backend.upload(rope_cos_.data(), rope.cos.data(), bytes);
  backend.upload(rope_sin_.data(), rope.sin.data(), bytes);

  const size_t rows = static_cast<size_t>(options.max_rows);
  const size_t routed = rows * config.experts_per_token;
  ids_ = backend.allocate(rows * sizeof(int32_t));
  sampled_ = backend.allocate(rows * sizeof(int32_t));
  qkv_ = backend::LinearRows(backend, rows * config.qkv_size());
  gate_up_ = backend::LinearRows(backend, routed * 2 * config.intermediate);
  if (!config.mixture()) return;
  plain_ = backend.allocate(rows * config.hidden * sizeof(float));
  expert_out_ = backend.allocate(routed * config.hidden * sizeof(float));
  router_logits_ = backend.allocate(rows * config.experts * sizeof(float));
  row_index_ = backend.allocate(routed * sizeof(int32_t));
  row_ends_ = backend.allocate(config.experts * sizeof(int32_t));
  slots_ = backend.allocate(routed * sizeof(int32_t));
  route_weights_ = backend.allocate(routed * sizeof(float));
}

void Forward::embed(const Ends& ends, std::span<const int32_t> ids, float* h) {
  for (const int32_t id : ids) check(id >= 0, "token id outside the vocabulary");
  upload_ids(ids);
  embed(ends, static_cast<int>(ids.size()), h);
}

void Forward::upload_ids(std::span<const int32_t> ids) {
  check(ids.size() <= static_cast<size_t>(options_.max_rows),
        "more rows than the forward was sized for");
  for (const int32_t id : ids) {
    const bool follows = id < 0 && backend::sampled_row(id) < options_.max_rows;
    check(follows || (id >= 0 && id < config_.vocabulary), "token id outside the vocabulary");
  }
  backend_.upload(ids_.data(), ids.data(), ids.size_bytes());
}

void Forward::embed(const Ends& ends, int rows, float* h) {
  check(rows <= options_.max_rows, "more rows than the forward was sized for");
  backend_.embed({.ids = ids_.as<int32_t>(),
                  .sampled = sampled_.as<int32_t>(),
                  .rows = rows,
                  .table = ends.table,
                  .y = h});
  if (ends.into_basis) turn(ends, *ends.into_basis, h, rows, h);
}

void Forward::turn(const Ends& ends, const backend::PackedLinear& w, const float* from, int rows,
                   float* to) {
  const backend::Activation x = activation(ends.head_input, rows);
  backend_.quantize({.x = from, .y = x});
  const backend::PackedLinear* weight = &w;
  backend_.linear({.x = x, .weights = {&weight, 1}, .y = to});
}

backend::Activation Forward::activation(const BoundSite& site, int rows) {
  ensure(backend_, input_, backend_.activation_bytes(site.spec, rows));
  return {input_.data(), &site.spec, rows};
}

void Forward::count(const backend::Activation& x, int layer, SiteIndex site) {
  if (saturated_ != nullptr)
    backend_.count_saturated(x, saturated_ + layer * kSites + static_cast<int>(site));
}

void Forward::layer(const Layer& layer, kv::Pool& pool, int pool_layer,
                    std::span<const backend::SequenceStep> sequences, int rows, float* h) {
  check(rows <= options_.max_rows, "more rows than the forward was sized for");
  for (const backend::SequenceStep& s : sequences)
    check(s.position + (s.row_end - s.row_begin) <= options_.max_positions,
          "a position beyond what the forward was sized for");
  const backend::Activation x = activation(layer.qkv_input, rows);
  backend_.norm(
      {.x = h, .gain = layer.attention_norm.as<float>(), .epsilon = config_.norm_epsilon, .y = x});
  count(x, pool_layer, SiteIndex::kQkv);
  const backend::PackedLinear* qkv = layer.qkv.get();
  backend_.linear({.x = x, .weights = {&qkv, 1}, .y = qkv_.f32(), .y_f16 = qkv_.f16()});
  if (layer.q_norm.bytes() > 0)
    backend_.norm_heads({.qkv = qkv_.f32(),
                         .qkv_f16 = qkv_.f16(),
                         .rows = rows,
                         .heads = config_.heads,
                         .kv_heads = config_.kv_heads,
                         .head_dim = config_.head_dim,
                         .q_gain = layer.q_norm.as<float>(),
                         .k_gain = layer.k_norm.as<float>(),
                         .epsilon = config_.norm_epsilon});
  const backend::Activation attended = activation(layer.out_input, rows);
  backend_.attention(
      {.qkv = qkv_.f32(),
       .qkv_f16 = qkv_.f16(),
       .rows = rows,
       .heads = config_.heads,
       .layout = pool.layout(pool_layer),
       .pages = pool.data(pool_layer),
       .rope_cos = rope_cos_.as<float>(),
       .rope_sin = rope_sin_.as<float>(),
       .hadamard = layer.qk_hadamard,
       .key_offset = layer.key_offset.bytes() > 0 ? layer.key_offset.as<float>() : nullptr,
       .kv_clip = layer.kv_clip,
       .window = layer.window,
       .open_pages = pool.open_pages(pool_layer),
       .sequences = sequences,
       .y = attended});
  count(attended, pool_layer, SiteIndex::kOut);
  const backend::PackedLinear* out = layer.out.get();
  backend_.linear({.x = attended, .weights = {&out, 1}, .y = h, .then = backend::Then::kAdd});
  feed_forward(layer, pool_layer, rows, h);
}

void Forward::feed_forward(const Layer& layer, int index, int rows, float* h) {
  const backend::Activation x = activation(layer.ffn_input, rows);
  float* plain = layer.router ? plain_.as<float>() : nullptr;
  backend_.norm({.x = h,
                 .gain = layer.ffn_norm.as<float>(),
                 .epsilon = config_.norm_epsilon,
                 .y = x,
                 .plain = plain});
  count(x, index, SiteIndex::kGateUp);
  if (!layer.router) {
    backend_.linear(
        {.x = x, .weights = layer.gate_up_views, .y = gate_up_.f32(), .y_f16 = gate_up_.f16()});
    const backend::Activation gated = activation(layer.down_input, rows);
    backend_.gate({.x = gate_up_.f32(), .x_f16 = gate_up_.f16(), .y = gated});
    count(gated, index, SiteIndex::kDown);
    backend_.linear({.x = gated, .weights = layer.down_views, .y = h, .then = backend::Then::kAdd});
    return;
  }
  ensure(backend_, router_input_, backend_.activation_bytes(layer.router_input.spec, rows));
  const backend::Activation routing{router_input_.data(), &layer.router_input.spec, rows};
  backend_.quantize({.x = plain, .y = routing});
  const backend::PackedLinear* router = layer.router.get();
  backend_.linear({.x = routing, .weights = {&router, 1}, .y = router_logits_.as<float>()});
  backend_.route({.logits = router_logits_.as<float>(),
                  .rows = rows,
                  .experts = config_.experts,
                  .top_k = config_.experts_per_token,
                  .renormalize = config_.renormalize ? 1 : 0,
                  .row_index = row_index_.as<int32_t>(),
                  .row_ends = row_ends_.as<int32_t>(),
                  .slots = slots_.as<int32_t>(),
                  .weights = route_weights_.as<float>()});
  backend_.linear({.x = x,
                   .weights = layer.gate_up_views,
                   .row_ends = row_ends_.as<int32_t>(),
                   .row_index = row_index_.as<int32_t>(),
                   .y = gate_up_.f32(),
                   .y_f16 = gate_up_.f16()});
  const int routed = rows * config_.experts_per_token;
  ensure(backend_, expert_input_, backend_.activation_bytes(layer.down_input.spec, routed));
  const backend::Activation gated{expert_input_.data(), &layer.down_input.spec, routed};
  backend_.gate({.x = gate_up_.f32(), .x_f16 = gate_up_.f16(), .y = gated});
  count(gated, index, SiteIndex::kDown);
  backend_.linear({.x = gated,
                   .weights = layer.down_views,
                   .row_ends = row_ends_.as<int32_t>(),
                   .y = expert_out_.as<float>()});
  backend_.combine({.x = expert_out_.as<float>(),
                    .slots = slots_.as<int32_t>(),
                    .weights = route_weights_.as<float>(),
                    .rows = rows,
                    .top_k = config_.experts_per_token,
                    .n = config_.hidden,
                    .y = h});
}

void Forward::head(const Ends& ends, const float* h, int rows, float* logits) {
  check(rows <= options_.max_rows, "more rows than the forward was sized for");
  if (ends.out_of_basis) {
    ensure(backend_, turned_, sizeof(float) * static_cast<size_t>(rows) * config_.hidden);
    turn(ends, *ends.out_of_basis, h, rows, turned_.as<float>());
    h = turned_.as<float>();
  }
  const backend::Activation x = activation(ends.head_input, rows);
  backend_.norm(
      {.x = h, .gain = ends.final_norm.as<float>(), .epsilon = config_.norm_epsilon, .y = x});
  const backend::PackedLinear* head = ends.head.get();
  backend_.linear({.x = x, .weights = {&head, 1}, .y = logits});
}

kv::Pool make_pool(const Model& model, int positions) {
  return make_shared_pool(model, kv::pages_for(positions, {}), 1);
}

kv::Pool make_shared_pool(const Model& model, int pages, int sequences) {
  std::vector<format::KvLayout> layouts;
  for (const format::KvKind kind : model.scheme.kv)
    layouts.push_back({.kind = kind,
                       .kv_heads = model.config.kv_heads,
                       .head_dim = model.config.head_dim,
                       .open_page = model.scheme.open_page && format::has_int4_side(kind)});
  check(!layouts.empty(), "a model has layers");
  return {*model.backend, std::move(layouts), pages, sequences};
}

std::vector<int32_t> consecutive_pages(int first, int count) {
  std::vector<int32_t> pages(count);
  for (int i = 0; i < count; ++i) pages[i] = first + i;
  return pages;
}

}  // namespace atom::model
