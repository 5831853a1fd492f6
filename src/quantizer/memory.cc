#include "quantizer/memory.h"

#include <algorithm>

#include "base/log.h"
#include "quantizer/calibrate.h"

namespace atom::quantizer {

MemoryEstimate estimate_memory(const Recipe& recipe, const model::ModelConfig& config,
                               int64_t tokens) {
  const int64_t ffn = int64_t{3} * config.experts * config.hidden * config.intermediate;
  const int64_t layer =
      ffn + int64_t{config.hidden} * (config.qkv_size() + config.attention_size());
  // A layer is held in 16 bits as read and as permuted, and packed, at most in f32, on the backend;
  // the embedding, and a quantized head in f32 with its codes, while no layer is.
  const int64_t ends =
      int64_t{config.vocabulary} * config.hidden * (format::is_integer(recipe.head) ? 20 : 4);
  MemoryEstimate out;
  out.activations = tokens * config.hidden * int64_t{sizeof(float)};
  // Transforms need it in f32 from the beginning, and one linear of it once more.
  out.weights = std::max(layer * (recipe.transform.any() ? 14 : 8), ends);
  // A search holds it twice and a changed copy, in f32, one of them on the backend too.
  if (recipe.search_kept) out.weights = std::max(out.weights, layer * 18);
  const int64_t square = int64_t{config.hidden} * config.hidden;
  if (recipe.transform.any()) {
    const int64_t heads = int64_t{2} * config.kv_heads * config.head_dim * config.head_dim;
    out.transforms =
        config.layers * (heads * 4 + int64_t{config.experts} * config.intermediate * 8);
    out.second_moments = square * 8;
    if (recipe.transform.residual) out.second_moments += square * 32;  // its eigenproblem
  }
  if (recipe.rounding == Rounding::kGptq && recipe.preset != "w16a16") {
    const int64_t widest = std::max({config.hidden, config.intermediate, config.attention_size()});
    out.second_moments = std::max(out.second_moments, Grams::bytes(config) + widest * widest * 12);
  }
  return out;
}

void release_layer(const checkpoint::ModelFiles& files, int layer) {
  files.release_below(model::module_name(layer, ""));
}

void log_memory(const Recipe& recipe, const model::ModelConfig& config, int64_t tokens) {
  const auto mebibytes = [](int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); };
  const MemoryEstimate memory = estimate_memory(recipe, config, tokens);
  log_info(
      "memory: about {:.0f} MiB of calibration activations, {:.0f} MiB for a layer or the "
      "embedding, {:.0f} MiB of second moments, independent of the number of layers; {:.0f} MiB of "
      "transforms",
      mebibytes(memory.activations), mebibytes(memory.weights), mebibytes(memory.second_moments),
      mebibytes(memory.transforms));
}

}  // namespace atom::quantizer
