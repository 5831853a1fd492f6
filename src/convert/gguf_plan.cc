#include "convert/gguf_plan.h"

#include <array>
#include <set>

#include "base/error.h"
#include "model/plain_tensors.h"

namespace atom::convert {
namespace {

constexpr std::string_view kHead = "lm_head.weight";

class Planner {
 public:
  Planner(const checkpoint::ModelFiles& files, const GgufSource& source, const std::string& type)
      : files_(files), source_(source), type_(type) {}

  GgufPlan run() {
    const model::ModelConfig& config = *source_.config;
    const std::string table = model::embedding_tensor(files_, config);
    add("token_embd.weight", {table});
    for (const RopeFactors& factors : rope_factors(source_))
      plan_.tensors.push_back({.info = {factors.name,
                                        &checkpoint::gguf_type("F32"),
                                        {static_cast<int64_t>(factors.values.size())}},
                               .values = factors.values});
    for (int i = 0; i < config.layers; ++i) add_layer(i);
    add("output_norm.weight", {"model.norm.weight"});
    if (model::has_own_head(files_, config)) add("output.weight", {std::string(kHead)});
    refuse_the_rest();
    return std::move(plan_);
  }

 private:
  void add_layer(int index) {
    const std::string from = fmt::format("model.layers.{}.", index);
    const std::string to = fmt::format("blk.{}.", index);
    const model::ModelConfig& config = *source_.config;
    for (const auto& [gguf, module] : checkpoint::gguf_modules()) {
      const bool query = gguf == "attn_q", key = gguf == "attn_k";
      const int heads = !source_.architecture->interleaved ? 0
                        : query                            ? config.heads
                        : key                              ? config.kv_heads
                                                           : 0;
      for (const char* suffix : {".weight", ".bias"})
        if (is_alone(gguf) && files_.has(from + std::string(module) + suffix))
          add(to + std::string(gguf) + suffix, {from + std::string(module) + suffix}, heads);
    }
    if (source_.architecture->fused) add_fused(from, to);
    if (!config.family->experts_key.empty()) add_experts(from, to);
  }

  // Of an architecture that has q, k, v and gate, up in one tensor.
  bool is_alone(std::string_view gguf) const {
    if (!source_.architecture->fused) return true;
    constexpr std::array kParts = {"attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_up"};
    return std::find(kParts.begin(), kParts.end(), gguf) == kParts.end();
  }

  void add_fused(const std::string& from, const std::string& to) {
    const auto fuse = [&](const char* gguf, const char* whole, std::vector<std::string> parts) {
      const std::string name = from + whole + ".weight";
      for (std::string& part : parts) part = from + part + ".weight";
      add(to + gguf + ".weight", files_.has(name) ? std::vector{name} : parts);
    };
    fuse("attn_qkv", "self_attn.qkv_proj",
         {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"});
    fuse("ffn_up", "mlp.gate_up_proj", {"mlp.gate_proj", "mlp.up_proj"});
  }

  void add_experts(const std::string& from, const std::string& to) {
    const checkpoint::GgufArchitecture& row = *source_.architecture;
    add(to + "ffn_gate_inp.weight", {from + std::string(row.router) + ".weight"});
    for (const auto& [gguf, pattern] :
         {std::pair("ffn_gate_exps", row.expert_gate), std::pair("ffn_up_exps", row.expert_up),
          std::pair("ffn_down_exps", row.expert_down)}) {
      std::vector<std::string> sources;
      for (int e = 0; e < source_.config->experts; ++e)
        sources.push_back(from + fmt::format(fmt::runtime(pattern), e) + ".weight");
      add(to + gguf + ".weight", std::move(sources), 0, true);
    }
  }

  void add(std::string name, std::vector<std::string> sources, int heads = 0, bool stack = false) {
    const tensor::Shape first = files_.header(sources[0]).shape;
    std::vector<int64_t> dims(first.dims().begin(), first.dims().end());
    if (stack) {
      dims.insert(dims.begin(), static_cast<int64_t>(sources.size()));
    } else {
      dims[0] = 0;
      for (const std::string& source : sources) dims[0] += files_.header(source).shape[0];
    }
    const bool router = name.ends_with("ffn_gate_inp.weight");
    std::string type = dims.size() == 1 || router ? "F32" : type_;
    if (dims.back() % checkpoint::gguf_type(type).block != 0) {
      plan_.as_f16.push_back(name);
      type = "F16";
    }
    for (const std::string& source : sources) used_.insert(source);
    plan_.tensors.push_back(
        {.info = {std::move(name), &checkpoint::gguf_type(type), tensor::Shape(dims)},
         .sources = std::move(sources),
         .heads = heads});
  }

  // All but what the model computes anew (old files' inv_freq) or does not read (the head of a tied pair).
  void refuse_the_rest() const {
    for (const std::string& name : files_.tensor_names())
      if (!used_.contains(name) && !name.ends_with(".rotary_emb.inv_freq") &&
          !(name == kHead && source_.config->tied_embeddings))
        fail("{}: tensor {} has no place in a GGUF file of the architecture {}",
             files_.folder().string(), checkpoint::gguf_quoted(name), source_.architecture->name);
  }

  const checkpoint::ModelFiles& files_;
  const GgufSource& source_;
  const std::string& type_;
  GgufPlan plan_;
  std::set<std::string, std::less<>> used_;
};

}  // namespace

GgufPlan plan_gguf(const checkpoint::ModelFiles& files, const GgufSource& source,
                   const std::string& type) {
  return Planner(files, source, type).run();
}

}  // namespace atom::convert
