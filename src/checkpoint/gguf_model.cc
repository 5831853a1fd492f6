#include "checkpoint/gguf_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "checkpoint/gguf_names.h"
#include "checkpoint/gguf_tokenizer.h"

namespace atom::checkpoint {
namespace {

constexpr std::string_view kWeight = ".weight";

std::string full_name(const GgufName& name, std::string_view below) {
  return fmt::format("model.layers.{}.{}{}", name.layer, below, name.suffix);
}

bool is_index(std::string_view digits) {
  return !digits.empty() && digits.size() <= 6 && (digits == "0" || digits[0] != '0') &&
         digits.find_first_not_of("0123456789") == std::string_view::npos;
}

std::string with_expert(std::string_view pattern, std::string_view expert) {
  const size_t at = pattern.find("{}");
  return std::string(pattern.substr(0, at)) + std::string(expert) +
         std::string(pattern.substr(at + 2));
}

// Tensors that describe RoPE: they are read into the config.
bool is_rope(std::string_view name) {
  return name == "rope_freqs.weight" || name == "rope_factors_long.weight" ||
         name == "rope_factors_short.weight";
}

std::optional<GgufName> split_layer_name(std::string_view name) {
  if (!name.starts_with("blk.")) return std::nullopt;
  name.remove_prefix(4);
  const size_t dot = name.find('.'), last = name.rfind('.');
  if (dot == std::string_view::npos || dot == last) return std::nullopt;
  if (!is_index(name.substr(0, dot))) return std::nullopt;
  return GgufName{name.substr(0, dot), name.substr(dot + 1, last - dot - 1), name.substr(last)};
}

}  // namespace

GgufModel::GgufModel(const std::filesystem::path& path) : file_(path) {
  if (const int64_t parts = file_.integer("split.count").value_or(1); parts > 1)
    file_.refuse_key("split.count", fmt::format("the model lies in {} files, which is not "
                                                "supported: merge them into one",
                                                parts));
  read_config();
  for (const GgufTensor& stored : file_.tensors())
    if (!is_rope(stored.name)) map_tensor(stored);
  for (const auto& [name, part] : parts_) names_.push_back(name);
}

void GgufModel::add(std::string name, const Part& part) {
  if (!part.stored->type->dtype)
    file_.refuse_tensor(
        part.stored->name,
        fmt::format("the type {} is not supported (only F32, F16, BF16, Q8_0, Q4_0)",
                    part.stored->type->name));
  if (part.shape.rank() > 2)
    file_.refuse_tensor(part.stored->name,
                        fmt::format("it must be a vector or a matrix, but has the shape {}",
                                    part.shape.to_string()));
  if (part.heads > 0 && part.shape[0] % (int64_t{2} * part.heads) != 0)
    file_.refuse_tensor(
        part.stored->name,
        fmt::format("its {} rows must be {} heads of an even size", part.shape[0], part.heads));
  if (parts_.contains(name))
    file_.refuse_tensor(part.stored->name,
                        fmt::format("another tensor of the file means the same: {}", name));
  parts_.emplace(std::move(name), part);
}

void GgufModel::map_stacked(const GgufTensor& stored, const std::vector<std::string>& names) {
  const tensor::Shape& shape = stored.shape;
  if (shape.rank() != 3 || shape[0] != static_cast<int64_t>(names.size()))
    file_.refuse_tensor(stored.name,
                        fmt::format("it must have a matrix for each of {} experts, but has the "
                                    "shape {}",
                                    names.size(), shape.to_string()));
  for (size_t i = 0; i < names.size(); ++i)
    add(names[i], {&stored, {shape[1], shape[2]}, static_cast<int64_t>(i) * shape[1]});
}

void GgufModel::map_rows(const GgufTensor& stored,
                         const std::vector<std::pair<std::string, int64_t>>& names) {
  int64_t rows = 0;
  for (const auto& [name, count] : names) rows += count;
  if (stored.shape.rank() != 2 || stored.shape[0] != rows)
    file_.refuse_tensor(stored.name,
                        fmt::format("it must be a matrix of {} rows, but has the shape {}", rows,
                                    stored.shape.to_string()));
  int64_t first = 0;
  for (const auto& [name, count] : names) {
    add(name, {&stored, {count, stored.shape[1]}, first});
    first += count;
  }
}

// Experts: a stack of their matrices, or, in older files, a tensor for each. False: it is something else.
bool GgufModel::map_experts(const GgufTensor& stored, const GgufName& name) {
  for (const auto& [word, pattern] : {std::pair("ffn_gate", architecture_->expert_gate),
                                      std::pair("ffn_up", architecture_->expert_up),
                                      std::pair("ffn_down", architecture_->expert_down)}) {
    if (!name.below.starts_with(word) || name.suffix != kWeight) continue;
    const std::string_view rest = name.below.substr(std::string_view(word).size());
    const auto experts = config_.at(std::string(architecture_->experts_key)).get<int64_t>();
    if (rest == "_exps") {
      std::vector<std::string> names;
      for (int64_t i = 0; i < experts; ++i)
        names.push_back(full_name(name, with_expert(pattern, std::to_string(i))));
      map_stacked(stored, names);
      return true;
    }
    if (!rest.starts_with('.') || !is_index(rest.substr(1))) continue;
    if (std::stoll(std::string(rest.substr(1))) >= experts)
      file_.refuse_tensor(stored.name, fmt::format("there are only {} experts", experts));
    add(full_name(name, with_expert(pattern, rest.substr(1))), {&stored, stored.shape});
    return true;
  }
  return false;
}

void GgufModel::map_layer(const GgufTensor& stored, const GgufName& name) {
  const auto count = [&](const char* key) { return config_.at(key).get<int64_t>(); };
  const auto full = [&](std::string_view below) { return full_name(name, below); };
  if (config_.contains(architecture_->experts_key)) {
    if (name.below == "ffn_gate_inp")
      return add(full(architecture_->router), {&stored, stored.shape});
    if (map_experts(stored, name)) return;
  }
  const int64_t heads = count("num_attention_heads"), kv_heads = count("num_key_value_heads");
  const int64_t queries = heads * count("head_dim"), keys = kv_heads * count("head_dim");
  if (name.below == "attn_qkv" && name.suffix == kWeight)
    return map_rows(stored, {{full("self_attn.q_proj"), queries},
                             {full("self_attn.k_proj"), keys},
                             {full("self_attn.v_proj"), keys}});
  if (architecture_->fused && name.below == "ffn_up" && name.suffix == kWeight)
    return map_rows(stored, {{full("mlp.gate_proj"), count("intermediate_size")},
                             {full("mlp.up_proj"), count("intermediate_size")}});
  const std::string_view module = module_of_gguf(name.below);
  if (module.empty()) refuse_name(stored);
  const int64_t interleaved = !architecture_->interleaved ? 0
                              : name.below == "attn_q"    ? heads
                              : name.below == "attn_k"    ? kv_heads
                                                          : 0;
  add(full(module), {&stored, stored.shape, 0, static_cast<int>(interleaved)});
}

void GgufModel::map_tensor(const GgufTensor& stored) {
  for (const auto& [gguf, name] : {std::pair("token_embd.weight", "model.embed_tokens.weight"),
                                   std::pair("output_norm.weight", "model.norm.weight"),
                                   std::pair("output.weight", "lm_head.weight")})
    if (stored.name == gguf) return add(name, {&stored, stored.shape});
  const std::optional<GgufName> name = split_layer_name(stored.name);
  if (!name || (name->suffix != kWeight && name->suffix != ".bias")) refuse_name(stored);
  map_layer(stored, *name);
}

void GgufModel::refuse_name(const GgufTensor& stored) const {
  file_.refuse_tensor(stored.name,
                      fmt::format("the architecture {} has no such tensor", architecture_->name));
}

TensorHeader GgufModel::header(std::string_view name) const {
  const Part& part = parts_.find(name)->second;
  const GgufType& type = *part.stored->type;
  return {*type.dtype, part.shape, type.name,
          static_cast<uint64_t>(part.shape.elements()) / type.block * type.bytes};
}

// The rows of `part`, as its header says.
std::vector<std::byte> GgufModel::converted(const Part& part) const {
  const bool vector = part.shape.rank() == 1;
  const int64_t rows = vector ? 1 : part.shape[0];
  std::vector<std::byte> out(tensor::byte_size(*part.stored->type->dtype, part.shape));
  decode_gguf(*part.stored, part.first, rows, out);
  if (part.heads == 0) return out;
  // Row 2 i + s of a head is its row s * half + i; a bias has one element a row.
  const size_t count = static_cast<size_t>(part.shape[0]), row = out.size() / count;
  const size_t size = count / static_cast<size_t>(part.heads), half = size / 2;
  std::vector<std::byte> ordered(out.size());
  for (size_t i = 0; i < count; ++i) {
    const size_t within = i % size;
    const size_t from = i - within + within % half * 2 + within / half;
    std::copy_n(out.begin() + static_cast<ptrdiff_t>(from * row), row,
                ordered.begin() + static_cast<ptrdiff_t>(i * row));
  }
  return ordered;
}

tensor::TensorView GgufModel::tensor(std::string_view name) const {
  const Part& part = parts_.find(name)->second;
  const TensorHeader head = header(name);
  if (!part.stored->type->packed && part.heads == 0) {
    const uint64_t row = head.bytes / static_cast<uint64_t>(part.shape[0]);
    return {head.dtype, head.shape,
            part.stored->bytes.subspan(static_cast<uint64_t>(part.first) * row, head.bytes)};
  }
  const std::lock_guard lock(mutex_);
  auto found = converted_.find(name);
  if (found == converted_.end()) {
    found = converted_.emplace(name, converted(part)).first;
    file_.release(*part.stored);
  }
  return {head.dtype, head.shape, found->second};
}

void GgufModel::release(std::string_view name) const {
  file_.release(*parts_.find(name)->second.stored);
  const std::lock_guard lock(mutex_);
  if (const auto found = converted_.find(name); found != converted_.end()) converted_.erase(found);
}

std::optional<std::string> GgufModel::small_file(std::string_view name) const {
  if (name == "config.json") return config_.dump(2) + "\n";
  return gguf_tokenizer_file(file_, name);
}

}  // namespace atom::checkpoint
