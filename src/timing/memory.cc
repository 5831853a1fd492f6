#include "timing/memory.h"

#include <string>
#include <string_view>

#include "model/plain_tensors.h"
#include "timing/operation.h"

namespace atom::timing {
namespace {

double stored_bytes(const format::Segments& segments, int n, double float_bytes) {
  double row = 0;
  for (const format::Segment& s : segments.at) {
    if (s.size == 0) continue;
    if (!format::is_integer(s.format)) {
      row += float_bytes * s.size;
      continue;
    }
    row += static_cast<double>(format::row_bytes(s.format, s.size)) +
           format::weight_scales(s.format, s.size) * format::weight_scale_bytes(s.format) +
           format::weight_multipliers(s.format, s.size);
  }
  return row * n;
}

double linear_bytes(const model::Scheme& scheme, const std::string& module, int n, int k,
                    double float_bytes) {
  const model::LinearScheme* linear = scheme.find(module);
  if (linear == nullptr) return float_bytes * n * k;
  return stored_bytes(model::weight_segments(*linear, k), n, float_bytes);
}

struct LayerBytes {
  double qkv = 0, out = 0, gate_up = 0, down = 0;  // of one expert
};
LayerBytes bytes_of(const model::ModelConfig& config, const model::Scheme& scheme,
                    double float_bytes = 2) {
  const auto attention = [&](std::string_view below, int n, int k) {
    return linear_bytes(scheme, model::module_name(0, below), n, k, float_bytes);
  };
  const auto expert = [&](std::string_view part, int n, int k) {
    return linear_bytes(scheme, model::expert_module_name(0, part, 0), n, k, float_bytes);
  };
  const int hidden = config.hidden, kv = config.kv_heads * config.head_dim;
  const model::Family& family = *config.family;
  LayerBytes out;
  out.qkv = attention("self_attn.q_proj", config.attention_size(), hidden) +
            2 * attention("self_attn.k_proj", kv, hidden);
  out.out = attention("self_attn.o_proj", hidden, config.attention_size());
  out.gate_up = 2 * expert(family.gate, config.intermediate, hidden);
  out.down = expert(family.down, hidden, config.intermediate);
  return out;
}

double copied(double bytes, size_t rotated) { return bytes * copies_for(bytes, rotated); }

}  // namespace

double layer_bytes(const model::ModelConfig& config, const model::Scheme& scheme,
                   double float_bytes) {
  const LayerBytes bytes = bytes_of(config, scheme, float_bytes);
  return bytes.qkv + bytes.out + config.experts * (bytes.gate_up + bytes.down);
}

double float_bytes_of(const checkpoint::ModelFiles& files, const model::ModelConfig& config) {
  const std::string name = model::embedding_tensor(files, config);
  return static_cast<double>(tensor::dtype_size(files.header(name).dtype));
}

model::WeightBytes weight_bytes(const model::ModelConfig& config, const model::Scheme& scheme,
                                double float_bytes) {
  const LayerBytes bytes = bytes_of(config, scheme, float_bytes);
  model::WeightBytes out;
  out.attention = static_cast<int64_t>(bytes.qkv + bytes.out);
  out.expert = static_cast<int64_t>(bytes.gate_up + bytes.down);
  if (config.mixture())
    out.router =
        static_cast<int64_t>(linear_bytes(scheme, model::module_name(0, config.family->router),
                                          config.experts, config.hidden, float_bytes));
  out.head = static_cast<int64_t>(
      linear_bytes(scheme, "lm_head", config.vocabulary, config.hidden, float_bytes));
  return out;
}

double step_memory(const model::ModelConfig& config, const model::Scheme& scheme,
                   const StepShape& shape) {
  const double ends = 2 * 2.0 * config.vocabulary * config.hidden;  // embedding and head
  double cache = 0;
  for (const format::KvKind kind : scheme.kv) {
    const format::KvLayout layout = {
        .kind = kind, .kv_heads = config.kv_heads, .head_dim = config.head_dim};
    cache += static_cast<double>(layout.page_bytes()) *
             kv::pages_for(shape.context + StepBench::kMostSteps, layout);
  }
  return config.layers * layer_bytes(config, scheme) + ends + shape.batch * cache +
         4.0 * shape.batch * config.vocabulary;
}

double layer_ops_memory(const model::ModelConfig& config, const model::Scheme& scheme, int rows,
                        size_t rotated) {
  const LayerBytes bytes = bytes_of(config, scheme);
  const double row =
      2.0 * config.hidden + config.qkv_size() + config.attention_size() + 2.0 * config.intermediate;
  return copied(bytes.qkv, rotated) + copied(bytes.out, rotated) + copied(bytes.gate_up, rotated) +
         copied(bytes.down, rotated) + 4.0 * rows * row;
}

double attention_ops_memory(const model::ModelConfig& config, const AttentionShape& shape,
                            size_t rotated) {
  const format::KvLayout layout = {
      .kind = shape.cache, .kv_heads = config.kv_heads, .head_dim = config.head_dim};
  double pages = 0, rows = 0;
  for (const int context : shape.contexts) {
    pages += kv::pages_for(context, layout);
    rows += shape.prompts ? context : 1;
  }
  const double cache = pages * static_cast<double>(layout.page_bytes());
  return (shape.prompts ? cache : copied(cache, rotated)) +
         4.0 * rows * (config.qkv_size() + config.attention_size());
}

}  // namespace atom::timing
