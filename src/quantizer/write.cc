#include "quantizer/write.h"

#include <fmt/format.h>

#include <algorithm>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "model/generation_config.h"
#include "model/plain_tensors.h"
#include "model/tensor_reader.h"
#include "quantizer/stored_values.h"

namespace atom::quantizer {
namespace {

using checkpoint::TensorInfo;
using tensor::DType;
using tensor::Shape;

constexpr std::string_view kLayerPrefix = "model.layers.";
constexpr std::string_view kEmbedding = "model.embed_tokens.weight";
constexpr std::string_view kHead = "lm_head.weight";
constexpr const char* kSmallFiles[] = {"tokenizer.json",
                                       "tokenizer_config.json",
                                       "tokenizer.model",
                                       "generation_config.json",
                                       "special_tokens_map.json",
                                       "chat_template.jinja",
                                       "added_tokens.json",
                                       "vocab.json",
                                       "merges.txt",
                                       "vocab.txt"};

// Layer of a tensor name, -1 when it belongs to none.
int layer_of(std::string_view name) {
  if (!name.starts_with(kLayerPrefix)) return -1;
  name.remove_prefix(kLayerPrefix.size());
  const size_t digits = name.find_first_not_of("0123456789");
  if (digits == 0 || digits > 6 || digits == std::string_view::npos || name[digits] != '.')
    return -1;
  return std::stoi(std::string(name.substr(0, digits)));
}

// Wide elements first, so that no tensor of a file is misaligned by an odd count of bytes before
// it.
template <typename List>
void sort_by_width(List& list) {
  std::stable_sort(list.begin(), list.end(), [](const auto& a, const auto& b) {
    return tensor::dtype_size(a.info.dtype) > tensor::dtype_size(b.info.dtype);
  });
}

}  // namespace

void require_source(const checkpoint::ModelFiles& files, const model::ModelConfig& config) {
  model::require_plain_tensors(files, config);
  if (const std::optional<Json>& generation = files.generation_config())
    model::parse_generation_config(*generation, config.vocabulary,
                                   files.source_of("generation_config.json"));
}

CheckpointWriter::CheckpointWriter(const WritePlan& plan, const checkpoint::OutputFolder& folder)
    : plan_(plan), folder_(folder) {
  for (int i = 0; i < plan_.config->layers; ++i) groups_.push_back(plan_layer(i));
  groups_.push_back(plan_ends());

  std::vector<TensorInfo> all;
  uint64_t total = 0;
  for (const std::vector<Stored>& group : groups_)
    for (const Stored& stored : group) {
      all.push_back(stored.info);
      total += tensor::byte_size(stored.info.dtype, stored.info.shape);
    }
  output_bytes_ = static_cast<int64_t>(total);
  folder_.require_space(total);
  file_.emplace(folder_.path(), std::move(all), plan_.shard_bytes);
}

CheckpointWriter::~CheckpointWriter() = default;

void CheckpointWriter::plan_linear(const std::string& module, std::vector<Stored>& out) const {
  const model::LinearScheme& scheme = *plan_.scheme->find(module);
  std::string source = module + ".weight";
  if (module == "lm_head" && !model::has_own_head(*plan_.files, *plan_.config))
    source = model::embedding_tensor(*plan_.files, *plan_.config);
  const checkpoint::TensorHeader weight = plan_.files->header(source);
  if (weight.shape.rank() != 2 || !tensor::is_floating(weight.dtype))
    fail("{}: tensor '{}' must be a floating-point matrix, but is {} {}",
         plan_.files->folder().string(), source, tensor::dtype_name(weight.dtype),
         weight.shape.to_string());
  const int64_t n = weight.shape[0];
  const format::Segments segments = weight_segments(scheme, static_cast<int>(weight.shape[1]));
  const auto add = [&](std::string_view suffix, DType dtype, Shape shape, Origin origin) {
    out.push_back({{module + std::string(suffix), dtype, shape}, origin, module});
  };
  const format::Segment normal = segments.at[0], kept = segments.at[1];
  const int64_t normal_groups = format::groups(normal.format, normal.size);
  if (normal.size > 0 && format::is_e2m1(normal.format)) {
    add(".weight_packed", DType::U8, {n, format::row_bytes(normal.format, normal.size)},
        Origin::kCodes0);
    const bool global = format::has_global_scale(normal.format);
    const bool half = format::weight_scale_bytes(normal.format) == 2;
    add(".weight_scale",
        half     ? DType::F16
        : global ? DType::F8_E4M3
                 : DType::U8,
        {n, normal_groups}, Origin::kScales0);
    if (global) add(".weight_global_scale", DType::F32, {1}, Origin::kGlobalScale);
  } else if (normal.size > 0 && format::is_int4(normal.format)) {
    add(".weight_packed", DType::I32, {n, format::row_bytes(normal.format, normal.size) / 4},
        Origin::kCodes0);
    if (format::is_progressive(normal.format)) {
      add(".weight_multiplier", DType::I8, {n, normal_groups}, Origin::kMultipliers);
      add(".weight_row_scale", DType::F32, {n}, Origin::kScales0);
    } else {
      add(".weight_scale", DType::F16, {n, normal_groups}, Origin::kScales0);
    }
    if (plan_.scheme->compressed_tensors_names)
      add(".weight_shape", DType::I64, {2}, Origin::kShape);
  } else if (normal.size > 0) {
    add(".weight", DType::I8, {n, normal.size}, Origin::kCodes0);
    add(".weight_scale", DType::F32, {n, 1}, Origin::kScales0);
  }
  if (kept.size == 0) return;
  const bool integer = format::is_integer(kept.format);
  add(".kept_weight", integer ? DType::I8 : weight.dtype, {n, kept.size}, Origin::kCodes1);
  if (integer) add(".kept_scale", DType::F32, {n}, Origin::kScales1);
}

void CheckpointWriter::plan_order(const std::string& site, const Permutation& order,
                                  std::vector<Stored>& out) const {
  if (order.empty()) return;
  out.push_back(
      {{site + ".order", DType::I32, {static_cast<int64_t>(order.size())}}, Origin::kOrder, site});
}

// Linears that stay in floating point but are not those of the source.
bool CheckpointWriter::is_changed(int index, const std::string& module) const {
  using Changed = WritePlan::Changed;
  if (plan_.changed == Changed::kHeads)
    for (const char* name : {"q_proj", "k_proj", "v_proj", "o_proj"})
      if (module == model::module_name(index, std::string("self_attn.") + name)) return true;
  return plan_.changed == Changed::kStream && plan_.config->mixture() &&
         module == model::module_name(index, plan_.config->family->router);
}

std::vector<CheckpointWriter::Stored> CheckpointWriter::plan_layer(int index) const {
  std::vector<Stored> out;
  const std::string prefix = fmt::format("{}{}.", kLayerPrefix, index);
  for (const std::string& name : plan_.files->tensor_names()) {
    if (!name.starts_with(prefix)) continue;
    const std::string module = name.substr(0, name.rfind('.'));
    const bool quantized = plan_.scheme->find(module) != nullptr;
    if (quantized && name.ends_with(".weight")) {
      plan_linear(module, out);
      continue;
    }
    const checkpoint::TensorHeader view = plan_.files->header(name);
    const bool bias = name.ends_with(".bias");
    // A folded order moves the biases of gate and up with their rows.
    if (bias && (quantized || is_changed(index, module)))
      out.push_back({{name, view.dtype, view.shape}, Origin::kBias, module});
    else if (is_changed(index, module))
      out.push_back({{name, changed_dtype(view.dtype), view.shape}, Origin::kFloat, module});
    else if (plan_.changed == WritePlan::Changed::kStream && module.ends_with("layernorm"))
      out.push_back({{name, view.dtype, view.shape}, Origin::kOnes, name});
    else
      out.push_back({{name, view.dtype, view.shape}, Origin::kSource, name});
  }
  if (!plan_.orders.empty()) {
    const LayerOrders& orders = plan_.orders[static_cast<size_t>(index)];
    plan_order(model::module_name(index, "self_attn.qkv_input"), orders.qkv, out);
    plan_order(model::module_name(index, "self_attn.o_input"), orders.out, out);
    plan_order(model::module_name(index, plan_.config->family->ffn_site), orders.ffn, out);
  }
  if (plan_.scheme->key_offset)
    out.push_back({{model::module_name(index, model::kKeyOffset),
                    tensor::DType::F32,
                    {int64_t{plan_.config->kv_heads} * plan_.config->head_dim}},
                   Origin::kKeyOffset,
                   ""});
  sort_by_width(out);
  return out;
}

std::vector<CheckpointWriter::Stored> CheckpointWriter::plan_ends() const {
  std::vector<Stored> out;
  const bool new_head = plan_.scheme->find("lm_head") != nullptr;
  for (const std::string& name : plan_.files->tensor_names()) {
    const int layer = layer_of(name);
    if (layer >= 0 && layer < plan_.config->layers) continue;
    const checkpoint::TensorHeader view = plan_.files->header(name);
    if (plan_.head) {
      if (name == kEmbedding || name == kHead) continue;
      if (name == "model.norm.weight") {
        out.push_back({{name, view.dtype, view.shape}, Origin::kOnes, name});
        continue;
      }
    }
    if (new_head && name == kHead) {
      // A tied pair that is stored under the head's name only: the embedding gets its own.
      if (!plan_.files->has(kEmbedding))
        out.push_back({{std::string(kEmbedding), view.dtype, view.shape}, Origin::kSource, name});
      continue;
    }
    out.push_back({{name, view.dtype, view.shape}, Origin::kSource, name});
  }
  if (plan_.head) plan_tables(new_head, out);
  if (plan_.scheme->stream_basis) {
    const int64_t hidden = plan_.config->hidden;
    const std::string name = std::string(model::kStreamBasis) + ".weight";
    out.push_back({{name, tensor::DType::F32, {hidden, hidden}}, Origin::kBasis, ""});
  }
  if (new_head) plan_linear("lm_head", out);
  sort_by_width(out);
  return out;
}

// Embedding and head in the new basis of the stream. The head takes the final norm's gains, so it is a tensor of its
// own even where the source ties both.
void CheckpointWriter::plan_tables(bool new_head, std::vector<Stored>& out) const {
  const std::string table = model::embedding_tensor(*plan_.files, *plan_.config);
  const std::string head =
      model::has_own_head(*plan_.files, *plan_.config) ? std::string(kHead) : table;
  const auto add = [&](std::string_view name, Origin origin, const std::string& from) {
    const checkpoint::TensorHeader view = plan_.files->header(from);
    out.push_back({{std::string(name), changed_dtype(view.dtype), view.shape}, origin, from});
  };
  add(kEmbedding, Origin::kEmbedding, table);
  if (!new_head) add(kHead, Origin::kHead, head);
}

void CheckpointWriter::append(const Stored& stored, std::span<const std::byte> bytes) {
  file_->write(stored.info.name, bytes);
}

void CheckpointWriter::copy(const Stored& stored) {
  const tensor::TensorView view = plan_.files->tensor(stored.from);
  model::require_finite(plan_.files->folder().string(), stored.from, view);
  append(stored, view.bytes);
  plan_.files->release(stored.from);
}

void CheckpointWriter::write(const Stored& stored,
                             std::span<const model::LinearTensors* const> linears,
                             std::span<const model::Site* const> sites) {
  if (stored.origin == Origin::kSource) return copy(stored);
  if (stored.origin == Origin::kKeyOffset) return append(stored, std::as_bytes(key_offset_));
  if (stored.origin == Origin::kBasis) return append(stored, std::as_bytes(plan_.stream_basis));
  if (stored.origin == Origin::kOnes) {
    const std::vector<float> ones(static_cast<size_t>(stored.info.shape.elements()), 1.0f);
    return append(stored, narrowed(stored.info.name, ones, stored.info.dtype));
  }
  if (stored.origin == Origin::kEmbedding || stored.origin == Origin::kHead) {
    const RowChange& change = stored.origin == Origin::kEmbedding ? plan_.embedding : plan_.head;
    const tensor::TensorView view = plan_.files->tensor(stored.from);
    model::require_finite(plan_.files->folder().string(), stored.from, view);
    return append(stored, changed_table(stored.info.name, view, change, stored.info.dtype));
  }
  if (stored.origin == Origin::kOrder) {
    for (const model::Site* site : sites)
      if (site->name == stored.from) return append(stored, std::as_bytes(std::span(site->order)));
    invariant_failed("an order of an unknown site", std::source_location::current());
  }
  const auto found =
      std::find_if(linears.begin(), linears.end(),
                   [&](const model::LinearTensors* linear) { return linear->name == stored.from; });
  check(found != linears.end(), "a quantized tensor of an unknown linear");
  const model::LinearTensors& linear = **found;
  if (stored.origin == Origin::kShape) {
    const int64_t shape[2] = {linear.n, linear.k()};
    return append(stored, std::as_bytes(std::span(shape)));
  }
  if (stored.origin == Origin::kBias)
    return append(stored, narrowed(stored.info.name, linear.bias, stored.info.dtype));
  if (stored.origin == Origin::kFloat)
    return append(stored, narrowed(stored.info.name, model::to_f32(linear), stored.info.dtype));
  if (stored.origin == Origin::kMultipliers)
    return append(stored, std::as_bytes(std::span(linear.part[0].multipliers)));
  if (stored.origin == Origin::kGlobalScale)
    return append(stored, std::as_bytes(std::span(linear.part[0].global_scale)));
  const int part = stored.origin == Origin::kCodes0 || stored.origin == Origin::kScales0 ? 0 : 1;
  const bool scales = stored.origin == Origin::kScales0 || stored.origin == Origin::kScales1;
  if (!scales && !format::is_integer(linear.segments.at[part].format))
    check(dtype_of(linear.segments.at[part].format) == stored.info.dtype,
          "kept channels changed their type");
  append(stored, scales ? linear.part[part].scales : linear.part[part].codes);
}

void CheckpointWriter::write_layer(int index, const model::LayerTensors* layer) {
  std::vector<const model::LinearTensors*> linears;
  std::vector<const model::Site*> sites;
  if (layer != nullptr) {
    key_offset_ = layer->key_offset;
    linears = {&layer->q, &layer->k, &layer->v, &layer->out, &layer->router};
    for (const model::ExpertTensors& expert : layer->experts)
      linears.insert(linears.end(), {&expert.gate, &expert.up, &expert.down});
    sites = {&layer->qkv_input, &layer->out_input, &layer->ffn_input};
  }
  for (const Stored& stored : groups_[static_cast<size_t>(index)]) {
    write(stored, linears, sites);
    if (stored.origin != Origin::kSource && plan_.files->has(stored.from + ".weight"))
      plan_.files->release(stored.from + ".weight");
  }
}

void CheckpointWriter::write_ends(const model::LinearTensors* head) {
  std::vector<const model::LinearTensors*> linears;
  if (head != nullptr) linears.push_back(head);
  for (const Stored& stored : groups_.back()) write(stored, linears, {});
}

void CheckpointWriter::write_text(const std::string& name, const std::string& text) {
  write_file_atomically(folder_.path() / name, text);
  entries_.push_back(checkpoint::make_manifest_entry(folder_.path(), name));
}

void CheckpointWriter::write_config() {
  if (!plan_.scheme->quantized) {
    write_text("config.json", plan_.files->small_file("config.json", UINT64_MAX).value());
    return;
  }
  Json config = plan_.files->config();
  // A quantized head is a tensor of its own beside the 16-bit embedding.
  // So is one that took the gains of the final norm.
  if (plan_.scheme->find("lm_head") != nullptr || plan_.head) config["tie_word_embeddings"] = false;
  config["quantization_config"] = model::scheme_json(*plan_.scheme, *plan_.config);
  write_text("config.json", config.dump(2) + "\n");
}

void CheckpointWriter::copy_small_files() {
  for (const char* name : kSmallFiles) {
    std::error_code ignored;
    const bool is_file = plan_.files->is_gguf() ||
                         std::filesystem::is_regular_file(plan_.files->folder() / name, ignored);
    if (!is_file) continue;
    if (const auto bytes = plan_.files->small_file(name, UINT64_MAX)) write_text(name, *bytes);
  }
}

void CheckpointWriter::finish(const Json& provenance) {
  entries_ = file_->finish();
  write_config();
  copy_small_files();
  write_text("atom_provenance.json", provenance.dump(2) + "\n");
  checkpoint::write_manifest(folder_.path(), entries_);
}

}  // namespace atom::quantizer
