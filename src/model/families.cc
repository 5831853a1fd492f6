#include <array>

#include "base/error.h"
#include "model/config.h"

namespace atom::model {
namespace {

constexpr std::array kFamilies = {
    Family{.architecture = "LlamaForCausalLM",
           .gate = "mlp.gate_proj",
           .up = "mlp.up_proj",
           .down = "mlp.down_proj",
           .router = "",
           .experts_key = "",
           .ffn_site = "mlp.gate_up_input"},
    Family{.architecture = "MixtralForCausalLM",
           .gate = "block_sparse_moe.experts.{}.w1",
           .up = "block_sparse_moe.experts.{}.w3",
           .down = "block_sparse_moe.experts.{}.w2",
           .router = "block_sparse_moe.gate",
           .experts_key = "num_local_experts",
           .ffn_site = "block_sparse_moe.experts_input"},
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
