#include "ablation_steps.h"

#include <array>

namespace atom::app {
namespace {

using quantizer::Recipe;

constexpr std::array kPublished = {
    AblationStep{"W4A4 round to nearest, per channel and token",
                 [](Recipe& recipe, int) {
                   recipe = quantizer::preset("w4a4", quantizer::Method::kPublished);
                   recipe.rounding = quantizer::Rounding::kNearest;
                   recipe.group = 0;
                   recipe.clip_weights = 1;
                   recipe.clip_activations = 1;
                   recipe.kept = 0;
                   recipe.order = quantizer::Order::kNone;
                   recipe.kv = {format::KvKind::kF16};
                 }},
    AblationStep{"+ ordered channels, the last kept in f16",
                 [](Recipe& recipe, int kept) {
                   recipe.order = quantizer::Order::kEnergy;
                   recipe.kept = kept;
                   recipe.kept_format = format::kF16;
                 }},
    AblationStep{"+ kept channels in int8",
                 [](Recipe& recipe, int) { recipe.kept_format = format::kInt8; }},
    AblationStep{"+ groups of 128", [](Recipe& recipe, int) { recipe.group = 128; }},
    AblationStep{"+ clip 0.85 weights, 0.9 inputs",
                 [](Recipe& recipe, int) {
                   recipe.clip_weights = 0.85f;
                   recipe.clip_activations = 0.9f;
                 }},
    AblationStep{"+ GPTQ",
                 [](Recipe& recipe, int) { recipe.rounding = quantizer::Rounding::kGptq; }},
    AblationStep{"+ KV-cache int4 (method published)",
                 [](Recipe& recipe, int) { recipe.kv = {format::KvKind::kInt4}; }},
};

constexpr AblationStep kStart = {"method published", [](Recipe& recipe, int kept) {
                                   recipe =
                                       quantizer::preset("w4a4", quantizer::Method::kPublished);
                                   recipe.kept = kept;
                                 }};

constexpr std::array kBest = {
    AblationStep{"+ equalized channels",
                 [](Recipe& recipe, int) { recipe.transform.equalize = true; }},
    AblationStep{"+ Hadamard of every head",
                 [](Recipe& recipe, int) { recipe.transform.heads = true; }},
    AblationStep{"+ K without its mean",
                 [](Recipe& recipe, int) { recipe.transform.center = true; }},
    AblationStep{"+ residual stream in its principal components",
                 [](Recipe& recipe, int) { recipe.transform.residual = true; }},
    AblationStep{"+ Hadamard before down_proj",
                 [](Recipe& recipe, int) { recipe.transform.down = true; }},
    AblationStep{"+ searched weight clips", [](Recipe& recipe, int) { recipe.clip_weights = 0; }},
    AblationStep{"+ searched input clips",
                 [](Recipe& recipe, int) { recipe.clip_activations = 0; }},
    AblationStep{"+ signed scales", [](Recipe& recipe, int) { recipe.signed_scales = true; }},
    AblationStep{"+ codes refined by coordinate descent",
                 [](Recipe& recipe, int) { recipe.refine = true; }},
    AblationStep{"+ KV-cache clip 0.95", [](Recipe& recipe, int) { recipe.clip_kv = 0.95f; }},
    AblationStep{"+ open page of the KV-cache in int8 (method best)",
                 [](Recipe& recipe, int) { recipe.open_page = true; }},
    AblationStep{"the same with groups of 64", [](Recipe& recipe, int) { recipe.group = 64; }},
    AblationStep{"the same with groups of 32", [](Recipe& recipe, int) { recipe.group = 32; }},
    AblationStep{"method best with kept channels per site by measured error",
                 [](Recipe& recipe, int) {
                   recipe.group = 128;
                   recipe.search_kept = recipe.kept != 0;
                 }},
    AblationStep{"method best with K in 8 bits, V in 4",
                 [](Recipe& recipe, int) {
                   recipe.search_kept = false;
                   recipe.kv = {format::KvKind::kInt8Int4};
                 }},
};

}  // namespace

std::vector<AblationStep> ablation_steps(std::string_view which) {
  std::vector<AblationStep> steps;
  if (which == "best")
    steps.push_back(kStart);
  else
    steps.assign(kPublished.begin(), kPublished.end());
  if (which != "published") steps.insert(steps.end(), kBest.begin(), kBest.end());
  return steps;
}

}  // namespace atom::app
