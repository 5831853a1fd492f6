#include <array>

#include "base/error.h"
#include "model/config.h"

namespace atom::model {
namespace {

// A family with LLaMA's names, and the traits in which it differs.
constexpr Family dense(std::string_view architecture, Family traits) {
  traits.architecture = architecture;
  traits.gate = "mlp.gate_proj";
  traits.up = "mlp.up_proj";
  traits.down = "mlp.down_proj";
  traits.ffn_site = "mlp.gate_up_input";
  return traits;
}

constexpr std::array kFamilies = {
    dense("LlamaForCausalLM", {}),
    dense("MistralForCausalLM",
          {.window = WindowRule::kAlways, .usual_window = 4096, .strict = true}),
    dense(
        "Qwen2ForCausalLM",
        {.window = WindowRule::kAskedFrom, .usual_window = 4096, .qkv_bias = true, .strict = true}),
    dense(
        "Qwen3ForCausalLM",
        {.window = WindowRule::kAskedFrom, .usual_window = 4096, .qk_norm = true, .strict = true}),
    dense("Phi3ForCausalLM", {.window = WindowRule::kAlways, .fused = true, .strict = true}),
    Family{.architecture = "MixtralForCausalLM",
           .gate = "block_sparse_moe.experts.{}.w1",
           .up = "block_sparse_moe.experts.{}.w3",
           .down = "block_sparse_moe.experts.{}.w2",
           .router = "block_sparse_moe.gate",
           .experts_key = "num_local_experts",
           .ffn_site = "block_sparse_moe.experts_input",
           .window = WindowRule::kAlways},
    Family{.architecture = "Qwen3MoeForCausalLM",
           .gate = "mlp.experts.{}.gate_proj",
           .up = "mlp.experts.{}.up_proj",
           .down = "mlp.experts.{}.down_proj",
           .router = "mlp.gate",
           .experts_key = "num_experts",
           .ffn_site = "mlp.experts_input",
           .renormalize_key = "norm_topk_prob",
           .intermediate_key = "moe_intermediate_size",
           .window = WindowRule::kAsked,
           .usual_window = 4096,
           .qk_norm = true,
           .strict = true,
           .sparse_step = true},
};

}  // namespace

const Family& find_family(std::string_view architecture, std::string_view source) {
  for (const Family& family : kFamilies)
    if (family.architecture == architecture) return family;
  std::string known;
  for (const Family& family : kFamilies)
    known += (known.empty() ? "" : ", ") + std::string(family.architecture);
  fail("{}: architecture '{}' is not supported (supported: {})", source, architecture, known);
}

std::vector<std::string> supported_architectures() {
  std::vector<std::string> names;
  for (const Family& family : kFamilies) names.emplace_back(family.architecture);
  return names;
}

}  // namespace atom::model
