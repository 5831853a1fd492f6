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
constexpr std::pair<std::string_view, Method> kMethods[] = {{"published", Method::kPublished},
                                                            {"best", Method::kBest}};
constexpr int kMaxKept = 1 << 20;

std::string shown(const Json& value) {
  return value.dump(-1, ' ', true, Json::error_handler_t::replace).substr(0, 60);
}

std::string word_of(const Json& json, std::string_view key, std::string_view source,
                    std::initializer_list<std::string_view> allowed) {
  const std::string word = get_string(json, key, source);
  if (std::find(allowed.begin(), allowed.end(), word) != allowed.end()) return word;
  fail("{}: the field \"{}\" must be one of {}, but is \"{}\"", source, key,
       fmt::join(allowed, ", "), word.substr(0, 60));
}

int group_of(const Json& json, std::string_view source) {
  const Json& value = json.at("group");
  if (value.is_string() && value.get<std::string>() == "row") return 0;
  for (const int group : {32, 64, 128})
    if (value.is_number_integer() && value.get<int64_t>() == group) return group;
  fail("{}: the field \"group\" must be 32, 64, 128 or \"row\", but is {}", source, shown(value));
}

float clip_of(const Json& json, std::string_view key, std::string_view source) {
  if (json.at(key) == Json("search")) return 0;
  const double clip = get_number(json, key, {.source = source, .min = 0, .max = 1});
  if (static_cast<float>(clip) < 1e-3f)
    fail("{}: the field \"{}\" must be \"search\" or in [0.001, 1], but is {}", source, key, clip);
  return static_cast<float>(clip);
}

KvKind kv_word(const Json& value, std::string_view source) {
  if (value.is_string())
    for (const KvKind kind : {KvKind::kF16, KvKind::kInt8, KvKind::kInt4})
      if (value.get<std::string>() == format::name(kind)) return kind;
  fail(
      "{}: the field \"kv\" must be f16, int8 or int4, or a list with one of them per layer, but "
      "holds {}",
      source, shown(value));
}

std::vector<KvKind> kv_of(const Json& value, std::string_view source) {
  if (!value.is_array()) return {kv_word(value, source)};
  if (value.empty()) fail("{}: the field \"kv\" must not be an empty list", source);
  std::vector<KvKind> kinds;
  for (const Json& word : value) kinds.push_back(kv_word(word, source));
  return kinds;
}

constexpr std::pair<const char*, bool Transforms::*> kTransforms[] = {
    {"equalize", &Transforms::equalize},
    {"heads", &Transforms::heads},
    {"residual", &Transforms::residual},
    {"down", &Transforms::down},
    {"center", &Transforms::center}};

// "none", or a list of words.
Transforms transforms_of(const Json& value, std::string_view source) {
  Transforms out;
  if (value == Json("none")) return out;
  bool known = value.is_array();
  for (size_t i = 0; known && i < value.size(); ++i) {
    known = false;
    for (const auto& [word, member] : kTransforms)
      if (value[i] == Json(word)) known = out.*member = true;
  }
  if (!known)
    fail(
        "{}: the field \"transform\" must be \"none\" or a list of equalize, heads, residual, "
        "down, center, but is {}",
        source, shown(value));
  return out;
}

// FP4 whose groups and scales are those of a standard.
bool has_fixed_groups(const Recipe& recipe) {
  return recipe.preset == "mxfp4" || recipe.preset == "nvfp4";
}

void apply_field(Recipe& recipe, const Json& json, const std::string& key,
                 std::string_view source) {
  if (key == "preset" || key == "method") return;  // applied first
  if (key == "rounding") {
    const bool nearest = word_of(json, key, source, {"rtn", "gptq"}) == "rtn";
    recipe.rounding = nearest ? Rounding::kNearest : Rounding::kGptq;
  } else if (key == "group") {
    if (has_fixed_groups(recipe))
      fail("{}: the field \"group\" cannot be set with preset {}, whose groups are {} values",
           source, recipe.preset,
           recipe.preset == "mxfp4" ? format::kMxfp4.group : format::kNvfp4.group);
    recipe.group = group_of(json, source);
  } else if (key == "clip_weights") {
    recipe.clip_weights = clip_of(json, key, source);
  } else if (key == "clip_activations") {
    recipe.clip_activations = clip_of(json, key, source);
  } else if (key == "kept") {
    recipe.kept =
        static_cast<int>(get_int(json, key, {.source = source, .min = 0, .max = kMaxKept}));
  } else if (key == "kept_format") {
    recipe.kept_format = format::parse_format(word_of(json, key, source, {"f16", "int8"}));
  } else if (key == "order") {
    const bool none = word_of(json, key, source, {"none", "energy"}) == "none";
    recipe.order = none ? Order::kNone : Order::kEnergy;
  } else if (key == "transform") {
    recipe.transform = transforms_of(json.at(key), source);
  } else if (key == "kv") {
    recipe.kv = kv_of(json.at(key), source);
  } else if (key == "head") {
    recipe.head = format::parse_format(word_of(json, key, source, {"f16", "int8", "int4.g128"}));
  } else {
    fail(
        "{}: unknown field \"{}\" (known: preset, method, rounding, group, clip_weights, "
        "clip_activations, kept, kept_format, order, transform, kv, head)",
        source, key.substr(0, 60));
  }
}

Method method_of(const Json& json, std::string_view source) {
  const std::string word = word_of(json, "method", source, {"published", "best"});
  for (const auto& [name, method] : kMethods)
    if (word == name) return method;
  return Method::kPublished;
}

bool is_fp4(const Recipe& recipe) { return recipe.preset == "fp4" || has_fixed_groups(recipe); }

bool has_four_bit_weights(const Recipe& recipe) {
  return recipe.preset == "w4a4" || recipe.preset == "w4a8" || recipe.preset == "w4a16" ||
         is_fp4(recipe);
}

// Those that may keep channels, and order them.
bool has_segments(const Recipe& recipe) {
  return recipe.preset == "w4a4" || recipe.preset == "w4a8" || is_fp4(recipe);
}

// Inputs whose clip may be other than 1.
bool has_clipped_inputs(const Recipe& recipe) {
  return recipe.preset == "w4a4" || recipe.preset == "fp4";
}

bool quantizes_kv(const Recipe& recipe) {
  return std::any_of(recipe.kv.begin(), recipe.kv.end(),
                     [](KvKind kind) { return format::kv_bits(kind) < 16; });
}

// Method best: what is not in `given` follows from the preset and from what is (docs/accuracy.md, "Method best").
void fit_best(Recipe& recipe, const Json& given) {
  if (recipe.method != Method::kBest) return;
  const bool weights_only = recipe.preset == "w4a16", nothing_else = recipe.preset == "w16a16";
  if (!given.contains("transform")) {
    const bool may = recipe.kept == 0 || recipe.kept_format == format::kInt8;
    const bool heads = !(nothing_else || weights_only) || quantizes_kv(recipe);
    recipe.transform = {};
    if (may && (!nothing_else || heads))
      recipe.transform = {.equalize = true,
                          .heads = heads,
                          .residual = !nothing_else,
                          .down = !nothing_else && !weights_only,
                          .center = quantizes_kv(recipe)};
  }
  if (!given.contains("clip_weights") && has_four_bit_weights(recipe))
    recipe.clip_weights = recipe.preset == "mxfp4" ? 1.0f : 0.0f;
  const bool searchable = recipe.rounding == Rounding::kGptq && recipe.group != 0;
  if (!given.contains("clip_activations") && has_clipped_inputs(recipe))
    recipe.clip_activations = searchable ? 0.0f : recipe.preset == "fp4" ? 1.0f : 0.9f;
}

// Fields that contradict the preset.
void refuse_contradictions(const Recipe& recipe, std::string_view source) {
  if (recipe.kept % 16 != 0)
    fail("{}: the field \"kept\" must be a multiple of 16, but is {}", source, recipe.kept);
  if (!has_segments(recipe) && recipe.kept != 0)
    fail("{}: the field \"kept\" must be 0 with preset {}, but is {}", source, recipe.preset,
         recipe.kept);
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
  const bool integer_inputs = has_segments(recipe) || recipe.preset == "w8a8";
  if (recipe.transform.down && !integer_inputs)
    fail(
        "{}: the field \"transform\" must not hold down with preset {}, whose inputs are not "
        "rounded",
        source, recipe.preset);
  if (recipe.transform.residual && recipe.preset == "w16a16")
    fail("{}: the field \"transform\" must not hold residual with preset w16a16", source);
  if (recipe.transform.any() && recipe.kept > 0 && recipe.kept_format != format::kInt8)
    fail("{}: the field \"kept_format\" must be int8 beside transforms, but is f16", source);
  if (!has_four_bit_weights(recipe) && recipe.rounding == Rounding::kGptq)
    fail("{}: the field \"rounding\" must be rtn with preset {}, but is gptq", source,
         recipe.preset);
}

// The largest kept count that linears of k inputs can have.
int kept_limit(int k) {
  const int leaves_one = (k - 1) / 16 * 16;
  return leaves_one == 0 && k % 16 == 0 ? k : leaves_one;
}

bool is_down(const std::string& module, const model::ModelConfig& config) {
  std::string_view down = config.family->down;
  if (const size_t at = down.find("{}"); at != std::string_view::npos) down = down.substr(at + 2);
  return module.ends_with(down);
}

int inputs_of(const std::string& module, const model::ModelConfig& config) {
  if (module.ends_with("self_attn.o_proj")) return config.attention_size();
  return is_down(module, config) ? config.intermediate : config.hidden;
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
  out.kept = kept;
  if (kept == 0) return out;
  const bool integer = recipe.kept_format == format::kInt8;
  out.kept_weight = out.kept_input = integer ? format::kInt8 : format::kF32;
  return out;
}

}  // namespace

std::vector<std::string> preset_names() { return {kPresets.begin(), kPresets.end()}; }

std::vector<std::string> method_names() {
  std::vector<std::string> names;
  for (const auto& [name, method] : kMethods) names.emplace_back(name);
  return names;
}

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

void apply_json(Recipe& recipe, const Json& json, std::string_view source) {
  if (!json.is_object()) fail("{}: a recipe must be a JSON object, but is {}", source, shown(json));
  Recipe changed = recipe;
  const bool restart = json.contains("preset") || json.contains("method");
  if (restart) {
    const Method method = json.contains("method") ? method_of(json, source) : recipe.method;
    changed =
        preset(json.contains("preset")
                   ? word_of(json, "preset", source,
                             {"w16a16", "w8a8", "w4a16", "w4a8", "w4a4", "fp4", "mxfp4", "nvfp4"})
                   : recipe.preset,
               method);
  }
  for (const auto& [key, value] : json.items()) apply_field(changed, json, key, source);
  if (restart) fit_best(changed, json);
  refuse_contradictions(changed, source);
  recipe = std::move(changed);
}

Json to_json(const Recipe& recipe) {
  // Shortest decimal that gives the f32 back: 0.85, not 0.8500000238418579.
  const auto clip = [](float value) {
    return value == 0 ? Json("search") : Json(std::stod(fmt::format("{}", value)));
  };
  Json json;
  json["preset"] = recipe.preset;
  for (const auto& [name, method] : kMethods)
    if (recipe.method == method) json["method"] = name;
  json["rounding"] = recipe.rounding == Rounding::kGptq ? "gptq" : "rtn";
  if (!has_fixed_groups(recipe))
    json["group"] = recipe.group == 0 ? Json("row") : Json(recipe.group);
  json["clip_weights"] = clip(recipe.clip_weights);
  json["clip_activations"] = clip(recipe.clip_activations);
  json["kept"] = recipe.kept;
  json["kept_format"] = format::name(recipe.kept_format);
  json["order"] = recipe.order == Order::kEnergy ? "energy" : "none";
  json["transform"] = "none";
  if (recipe.transform.any()) {
    json["transform"] = Json::array();
    for (const auto& [word, member] : kTransforms)
      if (recipe.transform.*member) json["transform"].push_back(word);
  }
  if (recipe.kv.size() == 1) {
    json["kv"] = format::name(recipe.kv[0]);
  } else {
    json["kv"] = Json::array();
    for (const KvKind kind : recipe.kv) json["kv"].push_back(format::name(kind));
  }
  json["head"] = format::name(recipe.head);
  return json;
}

model::Scheme to_scheme(const Recipe& recipe, const model::ModelConfig& config,
                        std::vector<std::string>& notices) {
  refuse_contradictions(recipe, "recipe");
  const int layers = config.layers;
  if (recipe.kv.size() != 1 && static_cast<int>(recipe.kv.size()) != layers)
    fail("recipe: the field \"kv\" must name one format or one per layer ({}), but lists {}",
         layers, recipe.kv.size());
  model::Scheme scheme;
  scheme.kv = recipe.kv.size() == 1 ? std::vector<KvKind>(layers, recipe.kv[0]) : recipe.kv;

  if (recipe.preset != "w16a16") {
    std::set<int> clamped;  // input widths
    for (const std::string& module : model::linear_modules(config)) {
      const int k = inputs_of(module, config);
      const int kept = std::min(recipe.kept, kept_limit(k));
      if (kept < recipe.kept && clamped.insert(k).second)
        notices.push_back(fmt::format(
            "kept channels of linears with {} inputs clamped from {} to {}", k, recipe.kept, kept));
      model::LinearScheme linear = linear_scheme(recipe, kept);
      if (recipe.transform.down && is_down(module, config)) linear.hadamard = Transforms::kBlock;
      scheme.linears.emplace(module, linear);
    }
  }
  const auto quantized_kv = [](KvKind kind) { return format::kv_bits(kind) < 16; };
  if (recipe.transform.heads && std::any_of(scheme.kv.begin(), scheme.kv.end(), quantized_kv))
    scheme.qk_hadamard = format::hadamard_length(config.head_dim, Transforms::kBlock);
  if (format::is_integer(recipe.head))
    scheme.linears.emplace("lm_head", model::LinearScheme{.weight = recipe.head,
                                                          .input = format::kF32,
                                                          .kept_weight = {},
                                                          .kept_input = format::kF32,
                                                          .kept = 0,
                                                          .clip = 1.0f,
                                                          .hadamard = 0});

  scheme.key_offset = recipe.transform.center && quantizes_kv(recipe);
  scheme.quantized =
      !scheme.linears.empty() || std::any_of(scheme.kv.begin(), scheme.kv.end(), quantized_kv);
  scheme.compressed_tensors_names =
      scheme.quantized &&
      model::scheme_json(scheme, config).at("quant_method") == "compressed-tensors";
  // A tied pair stays one table, at the price of two products per token. Other programs do not know that.
  scheme.stream_basis = recipe.transform.residual && config.tied_embeddings &&
                        !format::is_integer(recipe.head) && !scheme.compressed_tensors_names;
  return scheme;
}

}  // namespace atom::quantizer
