// GGUF's architectures and names of tensors beside those of Hugging Face, as rows of data.
#pragma once

#include <span>
#include <string_view>

namespace atom::checkpoint {

struct GgufArchitecture {
  std::string_view name = {};        // general.architecture
  std::string_view model_type = {};  // of config.json
  std::string_view dense = {};    // "architectures" of config.json; empty: there is no such model
  std::string_view mixture = {};  // the same with experts
  bool interleaved = false;       // rows of q and k are stored in pairs (x0, x_half, x1, ...)
  bool fused = false;             // ffn_up holds the rows of gate and up
  // Modules of a mixture below "model.layers.N."; "{}" stands for the expert.
  std::string_view router = {}, expert_gate = {}, expert_up = {}, expert_down = {};
  std::string_view experts_key = {};  // of config.json: how many there are
};

// "blk.12.attn_q.weight" in its parts.
struct GgufName {
  std::string_view layer, below, suffix;  // "12", "attn_q", ".weight"
};

// Null where no row fits.
const GgufArchitecture* find_gguf_architecture(std::string_view name);

// The row of a name of config.json's "architectures"; Mistral's files are those of llama. Null where none fits.
const GgufArchitecture* gguf_architecture_of(std::string_view family);

// Modules of a layer in both spellings: {"attn_q", "self_attn.q_proj"}.
struct GgufModule {
  std::string_view gguf, module;
};
std::span<const GgufModule> gguf_modules();

// "attn_q" -> "self_attn.q_proj"; empty where no row fits.
std::string_view module_of_gguf(std::string_view name);

// The table of architectures for messages: "llama, qwen2, ...".
std::string_view gguf_architectures();

}  // namespace atom::checkpoint
