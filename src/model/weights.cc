#include "model/weights.h"

#include <utility>

#include "base/error.h"
#include "model/plain_tensors.h"
#include "model/rope_config.h"
#include "model/tensor_reader.h"

namespace atom::model {
namespace {

using checkpoint::ModelFiles;

template <typename T>
backend::Buffer upload(backend::Backend& backend, const std::vector<T>& values) {
  backend::Buffer out = backend.allocate(values.size() * sizeof(T));
  backend.upload(out.data(), values.data(), values.size() * sizeof(T));
  return out;
}

void bind_site(backend::Backend& backend, const Site& site, BoundSite& out) {
  out.spec.segments = site.segments;
  out.spec.clip = site.clip;
  out.spec.signed_scales = site.signed_scales;
  out.spec.hadamard = site.hadamard;
  if (site.order.empty()) return;
  out.order = upload(backend, site.order);
  out.spec.order = out.order.as<int32_t>();
}

std::unique_ptr<backend::PackedLinear> pack(backend::Backend& backend,
                                            std::initializer_list<const LinearTensors*> parts,
                                            const Site& site) {
  const LinearTensors& first = **parts.begin();
  bool equal = true, floating = true;
  for (const LinearTensors* part : parts) {
    equal = equal && part->segments == first.segments;
    floating = floating && part->segments.at[1].size == 0 &&
               !format::is_integer(part->segments.at[0].format);
  }
  std::vector<LinearTensors> widened;  // of q, k and v in different types, all as f32
  std::vector<backend::LinearWeight> views;
  if (!equal && floating)
    for (const LinearTensors* part : parts) {
      widened.push_back(
          from_f32(part->name, part->n, part->k(), format::kF32, to_f32(*part).data()));
      widened.back().bias = part->bias;
    }
  for (const LinearTensors& part : widened) views.push_back(view(part));
  if (widened.empty())
    for (const LinearTensors* part : parts) views.push_back(view(*part));
  return backend.pack(views, site.segments);
}

}  // namespace

LayerTensors read_layer(const ModelFiles& files, const ModelConfig& config, const Scheme& scheme,
                        int index) {
  const TensorReader reader(files, scheme);
  const Family& family = *config.family;
  const auto module = [&](std::string_view below) { return module_name(index, below); };
  const auto expert = [&](std::string_view pattern, int e) {
    return expert_module_name(index, pattern, e);
  };
  const int kv_size = config.kv_heads * config.head_dim;

  LayerTensors out;
  out.kv = scheme.kv[index];
  out.qk_hadamard = scheme.qk_hadamard;
  out.kv_clip = scheme.kv_clip;
  out.open_page = scheme.open_page;
  out.window = config.window(index);
  if (family.qk_norm) {
    out.q_norm = reader.vector(module("self_attn.q_norm.weight"), config.head_dim);
    out.k_norm = reader.vector(module("self_attn.k_norm.weight"), config.head_dim);
  }
  if (scheme.key_offset)
    out.key_offset =
        reader.vector(module_name(index, kKeyOffset), config.kv_heads * config.head_dim);
  out.attention_norm = reader.vector(module("input_layernorm.weight"), config.hidden);
  out.ffn_norm = reader.vector(module("post_attention_layernorm.weight"), config.hidden);
  out.q = reader.linear(module("self_attn.q_proj"), config.attention_size(), config.hidden);
  out.k = reader.linear(module("self_attn.k_proj"), kv_size, config.hidden);
  out.v = reader.linear(module("self_attn.v_proj"), kv_size, config.hidden);
  for (const LinearTensors* linear : {&out.q, &out.k, &out.v})
    if (family.qkv_bias && linear->bias.empty())
      fail("{}: tensor '{}.bias' is missing: {} has biases of q, k and v", files.folder().string(),
           linear->name, family.architecture);
  out.out = reader.linear(module("self_attn.o_proj"), config.hidden, config.attention_size());
  out.qkv_input = reader.site(module("self_attn.qkv_input"), out.q.name, config.hidden, true);
  reader.require_equal_inputs(out.qkv_input, out.q.name, out.k.name);
  reader.require_equal_inputs(out.qkv_input, out.q.name, out.v.name);
  out.out_input =
      reader.site(module("self_attn.o_input"), out.out.name, config.attention_size(), true);
  if (config.mixture())
    out.router = reader.linear(module(family.router), config.experts, config.hidden);
  for (int e = 0; e < config.experts; ++e) {
    ExpertTensors ffn;
    ffn.gate = reader.linear(expert(family.gate, e), config.intermediate, config.hidden);
    ffn.up = reader.linear(expert(family.up, e), config.intermediate, config.hidden);
    ffn.down = reader.linear(expert(family.down, e), config.hidden, config.intermediate);
    out.experts.push_back(std::move(ffn));
  }
  const ExpertTensors& first = out.experts.front();
  out.ffn_input = reader.site(module(family.ffn_site), first.gate.name, config.hidden, true);
  out.down_input =
      reader.site(first.down.name + "_input", first.down.name, config.intermediate, false);
  for (const ExpertTensors& ffn : out.experts) {
    reader.require_equal_inputs(out.ffn_input, first.gate.name, ffn.gate.name);
    reader.require_equal_inputs(out.ffn_input, first.gate.name, ffn.up.name);
    reader.require_equal_inputs(out.down_input, first.down.name, ffn.down.name);
  }
  return out;
}

std::unique_ptr<Layer> bind_layer(backend::Backend& backend, const LayerTensors& tensors) {
  auto layer = std::make_unique<Layer>();
  layer->qk_hadamard = tensors.qk_hadamard;
  layer->kv_clip = tensors.kv_clip;
  layer->open_page = tensors.open_page;
  layer->window = tensors.window;
  if (!tensors.q_norm.empty()) {
    layer->q_norm = upload(backend, tensors.q_norm);
    layer->k_norm = upload(backend, tensors.k_norm);
  }
  if (!tensors.key_offset.empty()) layer->key_offset = upload(backend, tensors.key_offset);
  layer->attention_norm = upload(backend, tensors.attention_norm);
  layer->ffn_norm = upload(backend, tensors.ffn_norm);
  bind_site(backend, tensors.qkv_input, layer->qkv_input);
  bind_site(backend, tensors.out_input, layer->out_input);
  bind_site(backend, tensors.ffn_input, layer->ffn_input);
  bind_site(backend, tensors.down_input, layer->down_input);
  layer->qkv = pack(backend, {&tensors.q, &tensors.k, &tensors.v}, tensors.qkv_input);
  layer->out = pack(backend, {&tensors.out}, tensors.out_input);
  if (tensors.router.n > 0) {
    const Site plain{.segments = format::whole(format::kF32, tensors.router.k())};
    bind_site(backend, plain, layer->router_input);
    // In f32, which no backend rounds: near ties of two experts must fall the same way everywhere.
    LinearTensors exact = from_f32(tensors.router.name, tensors.router.n, tensors.router.k(),
                                   format::kF32, to_f32(tensors.router).data());
    exact.bias = tensors.router.bias;
    layer->router = pack(backend, {&exact}, plain);
  }
  for (const ExpertTensors& ffn : tensors.experts) {
    layer->gate_up.push_back(pack(backend, {&ffn.gate, &ffn.up}, tensors.ffn_input));
    layer->down.push_back(pack(backend, {&ffn.down}, tensors.down_input));
    layer->gate_up_views.push_back(layer->gate_up.back().get());
    layer->down_views.push_back(layer->down.back().get());
  }
  return layer;
}

LinearTensors read_head(const ModelFiles& files, const ModelConfig& config, const Scheme& scheme) {
  const TensorReader reader(files, scheme);
  if (scheme.find("lm_head") != nullptr || has_own_head(files, config))
    return reader.linear("lm_head", config.vocabulary, config.hidden);
  if (!config.tied_embeddings)
    fail("{}: tensor 'lm_head.weight' is missing and tie_word_embeddings is false",
         files.folder().string());
  LinearTensors head = reader.linear("model.embed_tokens", config.vocabulary, config.hidden);
  head.name = "lm_head";
  return head;
}

std::unique_ptr<Ends> bind_ends(backend::Backend& backend, const EndTensors& tensors) {
  auto ends = std::make_unique<Ends>();
  const int hidden = tensors.table.k();
  ends->embedding = upload(backend, tensors.table.part[0].codes);
  ends->table = {ends->embedding.data(), tensors.table.segments.at[0].format, tensors.table.n,
                 hidden};
  ends->final_norm = upload(backend, tensors.final_norm);
  const Site input{.name = "lm_head_input", .segments = format::whole(format::kF32, hidden)};
  bind_site(backend, input, ends->head_input);
  ends->head = pack(backend, {&tensors.head}, input);
  if (tensors.basis.n == 0) return ends;
  const std::vector<float> q = to_f32(tensors.basis);
  std::vector<float> transposed(q.size());
  for (size_t i = 0; i < static_cast<size_t>(hidden); ++i)
    for (size_t j = 0; j < static_cast<size_t>(hidden); ++j)
      transposed[j * static_cast<size_t>(hidden) + i] = q[i * static_cast<size_t>(hidden) + j];
  const LinearTensors into =
      from_f32(tensors.basis.name, hidden, hidden, format::kF32, transposed.data());
  ends->into_basis = pack(backend, {&into}, input);  // y = x w^T
  ends->out_of_basis = pack(backend, {&tensors.basis}, input);
  return ends;
}

std::unique_ptr<Ends> load_ends(const ModelFiles& files, const ModelConfig& config,
                                const Scheme& scheme, backend::Backend& backend) {
  const Scheme as_in_the_source;
  const TensorReader reader(files, scheme), plain(files, as_in_the_source);
  std::string module = embedding_tensor(files, config);
  module.resize(module.size() - std::string_view(".weight").size());
  EndTensors tensors;
  tensors.table = plain.linear(module, config.vocabulary, config.hidden);
  tensors.final_norm = reader.vector("model.norm.weight", config.hidden);
  tensors.head = read_head(files, config, scheme);
  if (scheme.stream_basis)
    tensors.basis = plain.linear(std::string(kStreamBasis), config.hidden, config.hidden);
  for (const char* name : {"model.embed_tokens.weight", "lm_head.weight"})
    if (files.converts()) files.release(name);
  return bind_ends(backend, tensors);
}

std::unique_ptr<Model> load_model(const ModelFiles& files, backend::Backend& backend,
                                  const LoadOptions& options) {
  const std::string source = files.source_of("config.json");
  auto model = std::make_unique<Model>();
  model->backend = &backend;
  model->config = parse_config(files.config(), source);
  extend_positions(model->config, options.positions);
  model->scheme = parse_scheme(files.config(), model->config, format::KvKind::kF32, source);
  if (options.kv) model->scheme.kv.assign(model->config.layers, *options.kv);
  model->ends = load_ends(files, model->config, model->scheme, backend);
  for (int i = 0; i < model->config.layers; ++i) {
    model->layers.push_back(
        bind_layer(backend, read_layer(files, model->config, model->scheme, i)));
    // What is stored in other types is in memory twice now.
    if (files.converts()) files.release_below(module_name(i, ""));
    if (options.progress) options.progress(i + 1, model->config.layers);
  }
  return model;
}

}  // namespace atom::model
