#include "quantizer/recipe.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>
#include <utility>

#include "base/error.h"
#include "format/hadamard.h"

namespace atom::quantizer {
namespace {

using format::Format;
using format::KvKind;

constexpr std::array<std::string_view, 8> kPresets = {"w16a16", "w8a8", "w4a16", "w4a8",
                                                      "w4a4",   "fp4",  "mxfp4", "nvfp4"};
constexpr float kBestKvClip = 0.95f;

bool is_down(const std::string& module, const model::ModelConfig& config) {
  std::string_view down = config.family->down;
  if (const size_t at = down.find("{}"); at != std::string_view::npos) down = down.substr(at + 2);
  return module.ends_with(down);
}

// Width of the linear's input, and the kept channels that are wanted of it.
struct Input {
  int k = 0;
  int kept = 0;
};

Input input_of(const std::string& module, const KeptCounts& kept,
               const model::ModelConfig& config) {
  if (module.ends_with("self_attn.o_proj")) return {config.attention_size(), kept.out};
  if (is_down(module, config)) return {config.intermediate, kept.down};
  const bool attention = module.find(".self_attn.") != std::string::npos;
  return {config.hidden, attention ? kept.qkv : kept.ffn};
}

model::LinearScheme linear_scheme(const Recipe& recipe, int kept) {
  model::LinearScheme out;
  const Format four_bits = recipe.preset == "fp4"     ? format::e2m1(recipe.group)
                           : recipe.preset == "mxfp4" ? format::kMxfp4
                           : recipe.preset == "nvfp4" ? format::kNvfp4
                                                      : format::int4(recipe.group);
  const bool int8_input = recipe.preset == "w8a8" || recipe.preset == "w4a8";
  out.weight = recipe.preset == "w4a8"        ? format::int4_progressive(recipe.group)
               : has_four_bit_weights(recipe) ? four_bits
                                              : format::kInt8;
  out.input = int8_input ? format::kInt8 : has_segments(recipe) ? four_bits : format::kF32;
  // A clip counts only with groups: a whole row always holds its largest value.
  // A searched one is filled in when it is known.
  if (has_clipped_inputs(recipe) && recipe.group != 0 && recipe.clip_activations != 0)
    out.clip = recipe.clip_activations;
  out.signed_scales = recipe.signed_scales && recipe.preset == "w4a4";
  out.kept = kept;
  if (kept == 0) return out;
  const bool integer = recipe.kept_format == format::kInt8;
  out.kept_weight = out.kept_input = integer ? format::kInt8 : format::kF32;
  return out;
}

}  // namespace

int most_kept(int k) {
  const int leaves_one = (k - 1) / 16 * 16;
  return leaves_one == 0 && k % 16 == 0 ? k : leaves_one;
}

bool has_fixed_groups(const Recipe& recipe) {
  return recipe.preset == "mxfp4" || recipe.preset == "nvfp4";
}

bool is_fp4(const Recipe& recipe) { return recipe.preset == "fp4" || has_fixed_groups(recipe); }

bool has_int4_weights(const Recipe& recipe) {
  return recipe.preset == "w4a4" || recipe.preset == "w4a8" || recipe.preset == "w4a16";
}

bool has_four_bit_weights(const Recipe& recipe) {
  return has_int4_weights(recipe) || is_fp4(recipe);
}

bool has_segments(const Recipe& recipe) {
  return recipe.preset == "w4a4" || recipe.preset == "w4a8" || is_fp4(recipe);
}

bool has_clipped_inputs(const Recipe& recipe) {
  return recipe.preset == "w4a4" || recipe.preset == "fp4";
}

bool has_int4_kv(const Recipe& recipe) {
  return std::any_of(recipe.kv.begin(), recipe.kv.end(), format::has_int4_side);
}

bool quantizes_kv(const Recipe& recipe) {
  return std::any_of(recipe.kv.begin(), recipe.kv.end(), format::is_quantized);
}

namespace {

// Presets whose linears compressed-tensors can name.
bool could_be_compressed_tensors(const Recipe& recipe) {
  return recipe.preset == "w8a8" || recipe.preset == "w4a16";
}

// What keeps the others of them from being written under that name, the transform of down_proj's inputs aside.
bool has_parts_without_words(const Recipe& recipe) {
  return quantizes_kv(recipe) || format::is_integer(recipe.head);
}

}  // namespace

void fit_best(Recipe& recipe, const Json& given) {
  if (recipe.method != Method::kBest) return;
  const bool weights_only = recipe.preset == "w4a16", nothing_else = recipe.preset == "w16a16";
  if (!given.contains("transform")) {
    const bool may = recipe.kept == 0 || recipe.kept_format == format::kInt8;
    const bool heads = !(nothing_else || weights_only) || quantizes_kv(recipe);
    const bool readable = could_be_compressed_tensors(recipe) && !has_parts_without_words(recipe);
    recipe.transform = {};
    if (may && (!nothing_else || heads))
      recipe.transform = {.equalize = true,
                          .heads = heads,
                          .residual = !nothing_else,
                          .down = !nothing_else && !weights_only && !readable,
                          .center = quantizes_kv(recipe)};
  }
  if (!given.contains("clip_weights") && has_four_bit_weights(recipe))
    recipe.clip_weights = recipe.preset == "mxfp4" ? 1.0f : 0.0f;
  if (!given.contains("refine"))
    recipe.refine = has_four_bit_weights(recipe) && recipe.rounding == Rounding::kGptq;
  if (!given.contains("scales")) recipe.signed_scales = has_int4_weights(recipe);
  if (!given.contains("clip_kv")) recipe.clip_kv = has_int4_kv(recipe) ? kBestKvClip : 1.0f;
  if (!given.contains("open_page")) recipe.open_page = has_int4_kv(recipe);
  const bool searchable = recipe.rounding == Rounding::kGptq && recipe.group != 0;
  if (!given.contains("clip_activations") && has_clipped_inputs(recipe))
    recipe.clip_activations = searchable ? 0.0f : recipe.preset == "fp4" ? 1.0f : 0.9f;
}

void refuse_contradictions(const Recipe& recipe, std::string_view source) {
  for (const int kept : {recipe.kept.qkv, recipe.kept.out, recipe.kept.ffn, recipe.kept.down}) {
    if (kept % 16 != 0)
      fail("{}: the field \"kept\" must be a multiple of 16, but is {}", source, kept);
    if (!has_segments(recipe) && kept != 0)
      fail("{}: the field \"kept\" must be 0 with preset {}, but is {}", source, recipe.preset,
           kept);
  }
  if (recipe.search_kept && recipe.kept == 0)
    fail("{}: the field \"kept\" must search with a number of 16 or more, but has 0", source);
  if ((recipe.preset == "w4a8" || is_fp4(recipe)) && recipe.group == 0)
    fail("{}: the field \"group\" must be 32, 64 or 128 with preset {}, but is \"row\"", source,
         recipe.preset);
  if (!has_segments(recipe) && recipe.order != Order::kNone)
    fail("{}: the field \"order\" must be none with preset {}, but is energy", source,
         recipe.preset);
  if (recipe.clip_activations == 0 &&
      (!has_clipped_inputs(recipe) || recipe.rounding != Rounding::kGptq))
    fail(
        "{}: the field \"clip_activations\" can be \"search\" only with presets w4a4 and fp4 and "
        "rounding gptq",
        source);
  if (has_fixed_groups(recipe) && recipe.clip_activations != 1)
    fail("{}: the field \"clip_activations\" must be 1 with preset {}, but is {}", source,
         recipe.preset, recipe.clip_activations);
  if (recipe.preset == "mxfp4" && recipe.clip_weights != 1)
    fail(
        "{}: the field \"clip_weights\" must be 1 with preset mxfp4, whose scales are powers of "
        "two",
        source);
  if (!has_int4_kv(recipe) && recipe.clip_kv != 1)
    fail("{}: the field \"clip_kv\" must be 1 without an int4 or k8v4 KV-cache, but is {}", source,
         recipe.clip_kv);
  if (!has_int4_kv(recipe) && recipe.open_page)
    fail("{}: the field \"open_page\" can be int8 only with an int4 or k8v4 KV-cache", source);
  if (recipe.refine && recipe.rounding != Rounding::kGptq)
    fail("{}: the field \"refine\" can be true only with rounding gptq", source);
  if (recipe.signed_scales && !has_int4_weights(recipe))
    fail("{}: the field \"scales\" must be positive with preset {}, but is signed", source,
         recipe.preset);
  const bool integer_inputs = has_segments(recipe) || recipe.preset == "w8a8";
  if (recipe.transform.down && !integer_inputs)
    fail(
        "{}: the field \"transform\" must not hold down with preset {}, whose inputs are not "
        "rounded",
        source, recipe.preset);
  if (recipe.transform.residual && recipe.preset == "w16a16")
    fail("{}: the field \"transform\" must not hold residual with preset w16a16", source);
  if (recipe.transform.any() && recipe.kept != 0 && recipe.kept_format != format::kInt8)
    fail("{}: the field \"kept_format\" must be int8 beside transforms, but is f16", source);
  if (!has_four_bit_weights(recipe) && recipe.rounding == Rounding::kGptq)
    fail("{}: the field \"rounding\" must be rtn with preset {}, but is gptq", source,
         recipe.preset);
}

std::vector<std::string> preset_names() { return {kPresets.begin(), kPresets.end()}; }

Recipe preset(std::string_view name, Method method) {
  if (std::find(kPresets.begin(), kPresets.end(), name) == kPresets.end())
    fail("unknown preset \"{}\" (known: {})", name.substr(0, 60), fmt::join(kPresets, ", "));
  Recipe recipe;
  recipe.preset = name;
  recipe.method = method;
  if (name != "w4a4") recipe.clip_activations = 1.0f;
  if (is_fp4(recipe)) recipe.clip_weights = 1.0f;
  if (!has_segments(recipe)) {
    recipe.clip_weights = 1.0f;
    recipe.kept = 0;
    recipe.order = Order::kNone;
    recipe.kv = {KvKind::kF16};
    if (name != "w4a16") recipe.rounding = Rounding::kNearest;
  }
  fit_best(recipe, Json::object());
  return recipe;
}

namespace {

// What keeps a preset that compressed-tensors could name from being written under that name.
std::string beyond_compressed_tensors(const Recipe& recipe) {
  std::vector<std::string> parts;
  if (recipe.transform.down)
    parts.emplace_back(
        "the transform of down_proj's inputs (--compatible leaves it out, at some cost)");
  if (quantizes_kv(recipe)) parts.emplace_back("the KV-cache");
  if (format::is_integer(recipe.head)) parts.emplace_back("the head");
  return fmt::format("{}", fmt::join(parts, ", "));
}

}  // namespace

void make_own_format(Recipe& recipe) {
  if (recipe.preset != "w8a8") fail("preset {} has one form only; w8a8 has two", recipe.preset);
  if (recipe.method != Method::kBest) fail("the published method transforms nothing");
  recipe.transform.down = true;
}

void make_compatible(Recipe& recipe) {
  if (!could_be_compressed_tensors(recipe))
    fail("compressed-tensors has no words for preset {}, only for w8a8 and w4a16", recipe.preset);
  recipe.transform.down = false;
  if (const std::string beyond = beyond_compressed_tensors(recipe); !beyond.empty())
    fail("compressed-tensors has no words for {}", beyond);
}

model::Scheme to_scheme(const Recipe& recipe, const model::ModelConfig& config,
                        std::vector<std::string>& notices, std::span<const LayerChoice> chosen) {
  refuse_contradictions(recipe, "recipe");
  const int layers = config.layers;
  if (recipe.kv.size() != 1 && static_cast<int>(recipe.kv.size()) != layers)
    fail("recipe: the field \"kv\" must name one format or one per layer ({}), but lists {}",
         layers, recipe.kv.size());
  model::Scheme scheme;
  scheme.kv = recipe.kv.size() == 1 ? std::vector<KvKind>(layers, recipe.kv[0]) : recipe.kv;

  if (recipe.preset != "w16a16") {
    std::set<std::pair<int, int>> clamped;  // input widths and what was wanted
    const std::vector<std::string> modules = model::linear_modules(config);
    for (size_t i = 0; i < modules.size(); ++i) {
      const std::string& module = modules[i];
      const size_t layer = i * static_cast<size_t>(layers) / modules.size();
      const LayerChoice choice = chosen.empty() ? LayerChoice{.kept = recipe.kept} : chosen[layer];
      const auto [k, wanted] = input_of(module, choice.kept, config);
      const int kept = std::min(wanted, most_kept(k));
      if (kept < wanted && clamped.insert({k, wanted}).second)
        notices.push_back(fmt::format(
            "kept channels of linears with {} inputs clamped from {} to {}", k, wanted, kept));
      model::LinearScheme linear = linear_scheme(recipe, kept);
      if (recipe.transform.down && choice.down && is_down(module, config))
        linear.hadamard = Transforms::kBlock;
      scheme.linears.emplace(module, linear);
    }
  }
  if (recipe.transform.heads && quantizes_kv(recipe))
    scheme.qk_hadamard = format::hadamard_length(config.head_dim, Transforms::kBlock);
  scheme.kv_clip = recipe.clip_kv;
  scheme.open_page = recipe.open_page;
  model::LinearScheme head;
  head.weight = recipe.head;
  if (format::is_integer(recipe.head)) scheme.linears.emplace("lm_head", head);

  scheme.key_offset = recipe.transform.center && quantizes_kv(recipe) && !config.family->qk_norm;
  if (config.family->fused && chosen.empty())
    notices.push_back(
        "qkv_proj and gate_up_proj are written apart, as q_proj, k_proj, v_proj, gate_proj and "
        "up_proj: Atom reads that, programs that know this family by its fused names do not");
  if (config.family->qk_norm && chosen.empty() &&
      ((recipe.transform.center && quantizes_kv(recipe)) || recipe.transform.equalize))
    notices.push_back(
        "k_norm stands between k_proj and the cache: keys are neither balanced with queries nor "
        "centered");
  scheme.quantized = !scheme.linears.empty() || quantizes_kv(recipe);
  scheme.compressed_tensors_names =
      scheme.quantized &&
      model::scheme_json(scheme, config).at("quant_method") == "compressed-tensors";
  if (could_be_compressed_tensors(recipe) && !scheme.compressed_tensors_names)
    notices.push_back(
        fmt::format("transformers and vLLM cannot read this checkpoint: compressed-tensors has no "
                    "words for {}; transformers only warns, and takes the codes for weights",
                    beyond_compressed_tensors(recipe)));
  if (recipe.preset == "w8a8" && recipe.method == Method::kBest && chosen.empty() &&
      scheme.compressed_tensors_names && !recipe.transform.down)
    notices.emplace_back(
        "transformers and vLLM can read this checkpoint, since it is without the transform of "
        "down_proj's inputs; --own-format adds it, for Atom alone and with less error (KL "
        "divergence of ref-dense-11m 0.0007 instead of 0.0022)");
  // A tied pair stays one table, at the price of two products per token. Other programs do not know that.
  scheme.stream_basis = recipe.transform.residual && config.tied_embeddings &&
                        !format::is_integer(recipe.head) && !scheme.compressed_tensors_names;
  return scheme;
}

}  // namespace atom::quantizer
