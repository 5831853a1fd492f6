#include "model/weights.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "format/list.h"
#include "model/fp4_checkpoint.h"
#include "model/plain_tensors.h"

namespace atom::model {
namespace {

using checkpoint::ModelFiles;
using format::Format;
using tensor::DType;
using tensor::TensorView;

// Reads tensors of one checkpoint with their rules.
class Reader {
 public:
  Reader(const ModelFiles& files, const Scheme& scheme) : files_(files), scheme_(scheme) {}

  // [n] as f32.
  std::vector<float> vector(const std::string& name, int n) const {
    const TensorView view = floating(name, {n});
    std::vector<float> out = tensor::widen(view);
    for (const float v : out)
      if (!std::isfinite(v)) refuse_value(name, v);
    return out;
  }

  // [n, k], in whatever format the scheme gives the module.
  LinearTensors linear(const std::string& module, int n, int k) const {
    const LinearScheme* scheme = scheme_.find(module);
    LinearTensors out{.name = module, .n = n};
    if (scheme == nullptr) {
      out.part[0] = {plain(module + ".weight", n, k, out.segments), {}};
    } else {
      if (scheme->kept > k)
        fail("{}: kept_channels {} of '{}' exceed its {} inputs", where(), scheme->kept, module, k);
      out.segments = weight_segments(*scheme, k);
      if (out.segments.at[0].size > 0) out.part[0] = normal(module, n, out.segments.at[0]);
      if (out.segments.at[1].size > 0) out.part[1] = kept(module, n, out.segments.at[1]);
    }
    if (files_.has(module + ".bias")) out.bias = vector(module + ".bias", n);
    return out;
  }

  // Input of `module`, whose order lies under `site` (empty: the site never has one).
  Site site(const std::string& name, const std::string& module, int k, bool ordered) const {
    Site out{.name = name, .segments = format::whole(format::kF32, k)};
    const LinearScheme* scheme = scheme_.find(module);
    if (scheme == nullptr) return out;
    out.segments = input_segments(*scheme, k);
    out.clip = scheme->clip;
    out.hadamard = scheme->hadamard;
    if (ordered && files_.has(name + ".order")) out.order = permutation(name + ".order", k);
    return out;
  }

  // All linears that read one site must describe the same input.
  void require_equal_inputs(const Site& site, const std::string& first,
                            const std::string& other) const {
    const LinearScheme* a = scheme_.find(first);
    const LinearScheme* b = scheme_.find(other);
    const bool equal = a == nullptr || b == nullptr
                           ? a == b
                           : a->input == b->input && a->kept_input == b->kept_input &&
                                 a->kept == b->kept && a->clip == b->clip &&
                                 a->hadamard == b->hadamard;
    if (!equal)
      fail("{}: '{}' and '{}' share the input '{}' but describe it differently", where(), first,
           other, site.name);
  }

 private:
  std::string where() const { return files_.folder().string(); }

  [[noreturn]] void refuse_value(const std::string& name, float value) const {
    fail("{}: tensor '{}' holds {}; weights must be finite", where(), name, value);
  }

  TensorView shaped(const std::string& name, const tensor::Shape& shape) const {
    const TensorView view = files_.tensor(name);
    if (!(view.shape == shape))
      fail("{}: tensor '{}' must have shape {} by config.json and has {}", where(), name,
           shape.to_string(), view.shape.to_string());
    return view;
  }

  TensorView typed(const std::string& name, const tensor::Shape& shape, DType dtype) const {
    const TensorView view = shaped(name, shape);
    if (view.dtype != dtype)
      fail("{}: tensor '{}' must be {} and is {}", where(), name, tensor::dtype_name(dtype),
           tensor::dtype_name(view.dtype));
    return view;
  }

  TensorView floating(const std::string& name, const tensor::Shape& shape) const {
    const TensorView view = shaped(name, shape);
    if (!tensor::is_floating(view.dtype))
      fail("{}: tensor '{}' must be F32, F16 or BF16 and is {}", where(), name,
           tensor::dtype_name(view.dtype));
    return view;
  }

  static Format format_of(DType dtype) {
    return dtype == DType::F32 ? format::kF32 : dtype == DType::F16 ? format::kF16 : format::kBF16;
  }

  static std::vector<std::byte> copy(std::span<const std::byte> bytes) {
    return {bytes.begin(), bytes.end()};
  }

  void require_finite(const std::string& name, const TensorView& view) const {
    format::visit(format_of(view.dtype), [&](auto f) {
      using F = decltype(f);
      if constexpr (!F::kInteger) {
        typename F::Storage value;
        for (size_t at = 0; at < view.bytes.size(); at += sizeof(value)) {
          std::memcpy(&value, view.bytes.data() + at, sizeof(value));
          if (!std::isfinite(F::widen(value))) refuse_value(name, F::widen(value));
        }
      }
    });
  }

  std::vector<std::byte> plain(const std::string& name, int n, int k,
                               format::Segments& segments) const {
    const TensorView view = floating(name, {n, k});
    require_finite(name, view);
    segments = format::whole(format_of(view.dtype), k);
    return copy(view.bytes);
  }

  std::vector<std::byte> scales(const std::string& name, const tensor::Shape& shape,
                                DType dtype) const {
    const TensorView view = typed(name, shape, dtype);
    require_finite(name, view);
    return copy(view.bytes);
  }

  std::vector<std::byte> row_scales(const std::string& name, int n) const {
    std::vector<std::byte> bytes = scales(name, {n}, DType::F32);
    for (size_t at = 0; at < bytes.size(); at += sizeof(float)) {
      float scale;
      std::memcpy(&scale, bytes.data() + at, sizeof(scale));
      if (!(scale > 0))
        fail("{}: tensor '{}' holds {}; row scales must be positive", where(), name, scale);
    }
    return bytes;
  }

  // Larger ones could overflow the s32 sum of a row.
  std::vector<uint8_t> multipliers(const std::string& name, const tensor::Shape& shape) const {
    const TensorView view = typed(name, shape, DType::U8);
    std::vector<uint8_t> out(view.bytes.size());
    std::memcpy(out.data(), view.bytes.data(), out.size());
    for (const uint8_t multiplier : out)
      if (multiplier < 1 || multiplier > format::Int4Progressive::kMostMultiplier)
        fail("{}: tensor '{}' holds the multiplier {}, which is outside 1..15", where(), name,
             multiplier);
    return out;
  }

  std::vector<std::byte> byte_scales(const std::string& name, const tensor::Shape& shape,
                                     DType dtype, uint8_t largest) const {
    const TensorView view = typed(name, shape, dtype);
    require_scale_bytes(where(), name, view, largest);
    return copy(view.bytes);
  }

  LinearTensors::Part fp4(const std::string& module, int n, const format::Segment& segment) const {
    const tensor::Shape shape = {n, format::groups(segment.format, segment.size)};
    const std::string scale = module + ".weight_scale", global = module + ".weight_global_scale";
    const int64_t bytes = format::row_bytes(segment.format, segment.size);
    LinearTensors::Part part;
    part.codes = copy(typed(module + ".weight_packed", {n, bytes}, DType::U8).bytes);
    if (format::weight_scale_bytes(segment.format) == 2) {
      part.scales = scales(scale, shape, DType::F16);
    } else if (!format::has_global_scale(segment.format)) {
      part.scales = byte_scales(scale, shape, DType::U8, format::kE8M0NaN - 1);
    } else {
      part.scales = byte_scales(scale, shape, DType::F8_E4M3, format::kE4M3Largest);
      part.global_scale = read_global_scale(where(), global, typed(global, {1}, DType::F32));
    }
    return part;
  }

  // Kernels negate codes, and -128 has no negative in eight bits.
  std::vector<std::byte> int8_codes(const std::string& name, const tensor::Shape& shape) const {
    const TensorView view = typed(name, shape, DType::I8);
    if (std::find(view.bytes.begin(), view.bytes.end(), std::byte{0x80}) != view.bytes.end())
      fail("{}: tensor '{}' holds the code -128, which is outside -127..127", where(), name);
    return copy(view.bytes);
  }

  LinearTensors::Part normal(const std::string& module, int n, format::Segment& segment) const {
    if (!format::is_integer(segment.format)) {
      format::Segments found;
      LinearTensors::Part part{plain(module + ".weight", n, segment.size, found), {}};
      segment.format = found.at[0].format;
      return part;
    }
    if (format::is_e2m1(segment.format)) return fp4(module, n, segment);
    const int64_t groups = format::groups(segment.format, segment.size);
    if (format::is_int4(segment.format)) {
      const TensorView codes =
          typed(module + ".weight_packed", {n, format::row_bytes(segment.format, segment.size) / 4},
                DType::I32);
      if (format::is_progressive(segment.format))
        return {copy(codes.bytes), row_scales(module + ".weight_row_scale", n),
                multipliers(module + ".weight_multiplier", {n, groups})};
      return {copy(codes.bytes), scales(module + ".weight_scale", {n, groups}, DType::F16)};
    }
    return {int8_codes(module + ".weight", {n, segment.size}),
            scales(module + ".weight_scale", {n, 1}, DType::F32)};
  }

  LinearTensors::Part kept(const std::string& module, int n, format::Segment& segment) const {
    if (!format::is_integer(segment.format)) {
      format::Segments found;
      LinearTensors::Part part{plain(module + ".kept_weight", n, segment.size, found), {}};
      segment.format = found.at[0].format;
      return part;
    }
    return {int8_codes(module + ".kept_weight", {n, segment.size}),
            scales(module + ".kept_scale", {n}, DType::F32)};
  }

  std::vector<int32_t> permutation(const std::string& name, int k) const {
    const TensorView view = typed(name, {k}, DType::I32);
    std::vector<int32_t> out(k);
    std::memcpy(out.data(), view.bytes.data(), view.bytes.size());
    std::vector<bool> seen(k, false);
    for (int i = 0; i < k; ++i) {
      if (out[i] < 0 || out[i] >= k || seen[out[i]])
        fail("{}: tensor '{}' must be a permutation of 0..{} and holds {} at {}", where(), name,
             k - 1, out[i], i);
      seen[out[i]] = true;
    }
    return out;
  }

  const ModelFiles& files_;
  const Scheme& scheme_;
};

template <typename T>
backend::Buffer upload(backend::Backend& backend, const std::vector<T>& values) {
  backend::Buffer out = backend.allocate(values.size() * sizeof(T));
  backend.upload(out.data(), values.data(), values.size() * sizeof(T));
  return out;
}

void bind_site(backend::Backend& backend, const Site& site, BoundSite& out) {
  out.spec.segments = site.segments;
  out.spec.clip = site.clip;
  out.spec.hadamard = site.hadamard;
  if (site.order.empty()) return;
  out.order = upload(backend, site.order);
  out.spec.order = out.order.as<int32_t>();
}

std::unique_ptr<backend::PackedLinear> pack(backend::Backend& backend,
                                            std::initializer_list<const LinearTensors*> parts,
                                            const Site& site) {
  std::vector<backend::LinearWeight> views;
  for (const LinearTensors* part : parts) views.push_back(view(*part));
  return backend.pack(views, site.segments);
}

}  // namespace

LayerTensors read_layer(const ModelFiles& files, const ModelConfig& config, const Scheme& scheme,
                        int index) {
  const Reader reader(files, scheme);
  const Family& family = *config.family;
  const auto module = [&](std::string_view below) { return module_name(index, below); };
  const auto expert = [&](std::string_view pattern, int e) {
    return expert_module_name(index, pattern, e);
  };
  const int kv_size = config.kv_heads * config.head_dim;

  LayerTensors out;
  out.kv = scheme.kv[index];
  out.qk_hadamard = scheme.qk_hadamard;
  if (scheme.key_offset)
    out.key_offset =
        reader.vector(module_name(index, kKeyOffset), config.kv_heads * config.head_dim);
  out.attention_norm = reader.vector(module("input_layernorm.weight"), config.hidden);
  out.ffn_norm = reader.vector(module("post_attention_layernorm.weight"), config.hidden);
  out.q = reader.linear(module("self_attn.q_proj"), config.attention_size(), config.hidden);
  out.k = reader.linear(module("self_attn.k_proj"), kv_size, config.hidden);
  out.v = reader.linear(module("self_attn.v_proj"), kv_size, config.hidden);
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
    layer->router = pack(backend, {&tensors.router}, plain);
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
  const Reader reader(files, scheme);
  if (scheme.find("lm_head") != nullptr || has_own_head(files, config))
    return reader.linear("lm_head", config.vocabulary, config.hidden);
  if (!config.tied_embeddings)
    fail("{}: tensor 'lm_head.weight' is missing and tie_word_embeddings is false",
         files.folder().string());
  LinearTensors head = reader.linear("model.embed_tokens", config.vocabulary, config.hidden);
  head.name = "lm_head";
  return head;
}

std::unique_ptr<Ends> load_ends(const ModelFiles& files, const ModelConfig& config,
                                const Scheme& scheme, backend::Backend& backend) {
  const Reader reader(files, scheme);
  auto ends = std::make_unique<Ends>();
  std::string module = embedding_tensor(files, config);
  module.resize(module.size() - std::string_view(".weight").size());
  const LinearTensors table =
      Reader(files, Scheme{}).linear(module, config.vocabulary, config.hidden);
  ends->embedding = upload(backend, table.part[0].codes);
  ends->table = {ends->embedding.data(), table.segments.at[0].format, config.vocabulary,
                 config.hidden};
  ends->final_norm = upload(backend, reader.vector("model.norm.weight", config.hidden));
  const LinearTensors head = read_head(files, config, scheme);
  const Site input{.name = "lm_head_input", .segments = format::whole(format::kF32, config.hidden)};
  bind_site(backend, input, ends->head_input);
  ends->head = pack(backend, {&head}, input);
  if (!scheme.stream_basis) return ends;
  const int hidden = config.hidden;
  const LinearTensors basis =
      Reader(files, Scheme{}).linear(std::string(kStreamBasis), hidden, hidden);
  const std::vector<float> q = to_f32(basis);
  std::vector<float> transposed(q.size());
  for (size_t i = 0; i < static_cast<size_t>(hidden); ++i)
    for (size_t j = 0; j < static_cast<size_t>(hidden); ++j)
      transposed[j * static_cast<size_t>(hidden) + i] = q[i * static_cast<size_t>(hidden) + j];
  const LinearTensors into = from_f32(basis.name, hidden, hidden, format::kF32, transposed.data());
  ends->into_basis = pack(backend, {&into}, input);  // y = x w^T
  ends->out_of_basis = pack(backend, {&basis}, input);
  return ends;
}

std::unique_ptr<Model> load_model(const ModelFiles& files, backend::Backend& backend,
                                  const LoadOptions& options) {
  const std::string source = (files.folder() / "config.json").string();
  auto model = std::make_unique<Model>();
  model->backend = &backend;
  model->config = parse_config(files.config(), source);
  model->scheme = parse_scheme(files.config(), model->config, format::KvKind::kF32, source);
  if (options.kv) model->scheme.kv.assign(model->config.layers, *options.kv);
  model->ends = load_ends(files, model->config, model->scheme, backend);
  for (int i = 0; i < model->config.layers; ++i) {
    model->layers.push_back(
        bind_layer(backend, read_layer(files, model->config, model->scheme, i)));
    if (options.progress) options.progress(i + 1, model->config.layers);
  }
  return model;
}

}  // namespace atom::model
