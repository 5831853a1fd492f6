// The fields of a recipe in JSON (docs/formats.md, "Recipe").
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "quantizer/recipe.h"

namespace atom::quantizer {
namespace {

using format::KvKind;

constexpr std::pair<std::string_view, Method> kMethods[] = {{"published", Method::kPublished},
                                                            {"best", Method::kBest}};
constexpr int kMaxKept = 1 << 20;
constexpr double kLeastClip = 1e-3;

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
  if (clip < kLeastClip)
    fail("{}: the field \"{}\" must be \"search\" or in [0.001, 1], but is {}", source, key, clip);
  return static_cast<float>(clip);
}

KvKind kv_word(const Json& value, std::string_view source) {
  if (value.is_string())
    for (const KvKind kind : {KvKind::kF16, KvKind::kInt8, KvKind::kInt4, KvKind::kInt8Int4})
      if (value.get<std::string>() == format::name(kind)) return kind;
  fail(
      "{}: the field \"kv\" must be f16, int8, int4 or k8v4, or a list with one of them per layer, "
      "but "
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

constexpr std::pair<const char*, int KeptCounts::*> kSites[] = {{"qkv", &KeptCounts::qkv},
                                                                {"o", &KeptCounts::out},
                                                                {"gate_up", &KeptCounts::ffn},
                                                                {"down", &KeptCounts::down}};

// A number, {"search": number}, or an object with the number of every site.
KeptCounts kept_of(const Json& json, std::string_view source) {
  const auto count = [&](const Json& object, const char* key) {
    return static_cast<int>(get_int(object, key, {.source = source, .min = 0, .max = kMaxKept}));
  };
  const Json& value = json.at("kept");
  if (!value.is_object()) return count(json, "kept");
  if (value.contains("search") && value.size() == 1) return count(value, "search");
  KeptCounts out = 0;
  for (const auto& [site, member] : kSites) {
    if (!value.contains(site))
      fail("{}: the field \"kept\" must name qkv, o, gate_up and down, but lacks {}", source, site);
    out.*member = count(value, site);
  }
  for (const auto& [key, ignored] : value.items())
    if (std::none_of(std::begin(kSites), std::end(kSites),
                     [&](const auto& site) { return key == site.first; }))
      fail("{}: the field \"kept\" must name qkv, o, gate_up and down, but names \"{}\"", source,
           key.substr(0, 60));
  return out;
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
    recipe.kept = kept_of(json, source);
    recipe.search_kept = json.at(key).is_object() && json.at(key).contains("search");
  } else if (key == "kept_format") {
    recipe.kept_format = format::parse_format(word_of(json, key, source, {"f16", "int8"}));
  } else if (key == "order") {
    const bool none = word_of(json, key, source, {"none", "energy"}) == "none";
    recipe.order = none ? Order::kNone : Order::kEnergy;
  } else if (key == "refine") {
    recipe.refine = get_bool_or(json, key, false, source);
  } else if (key == "scales") {
    recipe.signed_scales = word_of(json, key, source, {"positive", "signed"}) == "signed";
  } else if (key == "transform") {
    recipe.transform = transforms_of(json.at(key), source);
  } else if (key == "clip_kv") {
    recipe.clip_kv =
        static_cast<float>(get_number(json, key, {.source = source, .min = kLeastClip, .max = 1}));
  } else if (key == "open_page") {
    recipe.open_page = word_of(json, key, source, {"none", "int8"}) == "int8";
  } else if (key == "kv") {
    recipe.kv = kv_of(json.at(key), source);
  } else if (key == "head") {
    recipe.head = format::parse_format(word_of(json, key, source, {"f16", "int8", "int4.g128"}));
  } else {
    fail(
        "{}: unknown field \"{}\" (known: preset, method, rounding, refine, group, clip_weights, "
        "clip_activations, scales, kept, kept_format, order, transform, kv, clip_kv, open_page, "
        "head)",
        source, key.substr(0, 60));
  }
}

Method method_of(const Json& json, std::string_view source) {
  const std::string word = word_of(json, "method", source, {"published", "best"});
  for (const auto& [name, method] : kMethods)
    if (word == name) return method;
  return Method::kPublished;
}

}  // namespace

std::vector<std::string> method_names() {
  std::vector<std::string> names;
  for (const auto& [name, method] : kMethods) names.emplace_back(name);
  return names;
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

Json to_json(const KeptCounts& kept) {
  if (kept.equal()) return kept.qkv;
  Json json;
  for (const auto& [site, member] : kSites) json[site] = kept.*member;
  return json;
}

Json to_json(const LayerChoice& choice, const Recipe& recipe) {
  Json json{
      {"kept", to_json(choice.kept)}, {"transform", Json::array()}, {"by_error", choice.by_error}};
  for (const auto& [word, member] : kTransforms) {
    const bool dropped = (member == &Transforms::heads && !choice.heads) ||
                         (member == &Transforms::down && !choice.down);
    if (recipe.transform.*member && !dropped) json["transform"].push_back(word);
  }
  return json;
}

Json to_json(std::span<const LayerChoice> chosen, const Recipe& recipe) {
  Json json = Json::array();
  for (const LayerChoice& choice : chosen) json.push_back(to_json(choice, recipe));
  return json;
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
  json["refine"] = recipe.refine;
  if (!has_fixed_groups(recipe))
    json["group"] = recipe.group == 0 ? Json("row") : Json(recipe.group);
  json["clip_weights"] = clip(recipe.clip_weights);
  json["clip_activations"] = clip(recipe.clip_activations);
  json["scales"] = recipe.signed_scales ? "signed" : "positive";
  json["kept"] = recipe.search_kept ? Json{{"search", recipe.kept.qkv}} : to_json(recipe.kept);
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
  json["clip_kv"] = clip(recipe.clip_kv);
  json["open_page"] = recipe.open_page ? "int8" : "none";
  json["head"] = format::name(recipe.head);
  return json;
}

}  // namespace atom::quantizer
