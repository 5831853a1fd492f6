#include "model/scheme.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "model/linear_scheme_json.h"

namespace atom::model {
namespace {

using format::KvKind;

Json kv_json(KvKind kind) {
  if (!format::is_quantized(kind)) return nullptr;
  return Json{{"num_bits", format::kv_bits(kind)},
              {"type", "int"},
              {"symmetric", false},
              {"strategy", "attn_head"},
              {"dynamic", true}};
}

// Whether a kv_cache_scheme, which has one num_bits, says it all.
bool uniform(const std::vector<KvKind>& kv) {
  if (kv.front() == KvKind::kInt8Int4) return false;
  return std::all_of(kv.begin(), kv.end(), [&](KvKind k) { return k == kv.front(); });
}

std::vector<KvKind> parse_kv(const Json& q, const ModelConfig& config, std::string_view source) {
  KvKind all = KvKind::kF16;
  if (const auto it = q.find("kv_cache_scheme"); it != q.end() && !it->is_null()) {
    if (!it->is_object()) fail("{}: kv_cache_scheme must be an object or null", source);
    check_number(*it, "kv_cache_scheme", true, source);
    const int64_t bits = get_int(*it, "num_bits", {.source = source, .min = 1, .max = 32});
    const bool known = (bits == 4 || bits == 8) &&
                       get_string_or(*it, "type", "", source) == "int" &&
                       get_string_or(*it, "strategy", "", source) == "attn_head" &&
                       !get_bool_or(*it, "symmetric", true, source);
    if (!known)
      fail("{}: kv_cache_scheme {} is not supported (int4 or int8 per attn_head, asymmetric)",
           source, it->dump().substr(0, 120));
    all = bits == 4 ? KvKind::kInt4 : KvKind::kInt8;
  }
  std::vector<KvKind> kv(config.layers, all);
  if (const auto it = q.find("kv_cache_layers"); it != q.end() && !it->is_null()) {
    if (!it->is_array() || static_cast<int>(it->size()) != config.layers)
      fail("{}: kv_cache_layers must list one format for each of the {} layers", source,
           config.layers);
    for (int i = 0; i < config.layers; ++i) {
      if (!(*it)[i].is_string()) fail("{}: kv_cache_layers[{}] must be a word", source, i);
      try {
        kv[i] = format::parse_kv((*it)[i].get<std::string>());
      } catch (const Error& error) {
        fail("{}: kv_cache_layers[{}]: {}", source, i, error.what());
      }
    }
  }
  return kv;
}

void check_top_level(const Json& q, std::string_view method, std::string_view source) {
  static const Words known = {"quant_method",
                              "format",
                              "config_groups",
                              "kv_cache_scheme",
                              "ignore",
                              "kv_cache_layers",
                              "order_partitions",
                              "qk_hadamard",
                              "kv_clip",
                              "kv_open_page",
                              "key_offset",
                              "stream_basis",
                              "quantization_status",
                              "global_compression_ratio",
                              "version",
                              "provenance",
                              "sparsity_config",
                              "transform_config"};
  refuse_other_keys(q, "quantization_config", known, source);
  const auto format = q.find("format");
  require_known_format(format == q.end() ? Json(nullptr) : *format, source);
  const auto version = q.find("version");
  // That of compressed-tensors is the release which wrote the file.
  if (method == "atom" && (version == q.end() || *version != Json(1)))
    fail("{}: quantization_config version {} is not supported (only 1)", source,
         version == q.end() ? "null" : version->dump().substr(0, 60));
  for (const char* key : {"sparsity_config", "transform_config"})
    if (const auto it = q.find(key); it != q.end() && !it->is_null() && !it->empty())
      fail("{}: quantization_config '{}' is not supported", source, key);
  if (get_int_or(q, "order_partitions", 1, {.source = source}) != 1)
    fail("{}: order_partitions {} is not supported (only 1)", source, q["order_partitions"].dump());
}

// What a group's "targets" may name.
struct Targets {
  std::set<std::string> linears;  // of the model
  std::set<std::string> ignored;
  bool has_rest = false;  // a group has named all the others: "Linear"
};

void assign_targets(const Json& group, const LinearScheme& linear, std::string_view source,
                    Targets& known, Scheme& out) {
  const auto targets = group.find("targets");
  if (targets == group.end() || !targets->is_array())
    fail("{}: a group of quantization_config has no list 'targets'", source);
  for (const Json& target : *targets) {
    const std::string word = target.is_string() ? target.get<std::string>() : target.dump();
    if (word == "Linear") {
      if (known.has_rest) fail("{}: quantization_config targets 'Linear' twice", source);
      known.has_rest = true;
      for (const std::string& module : known.linears)
        if (!known.ignored.contains(module)) out.linears.emplace(module, linear);
    } else if (known.linears.contains(word) || word == "lm_head") {
      if (word == "lm_head" &&
          (linear.hadamard != 0 || linear.kept != 0 || format::is_integer(linear.input)))
        fail(
            "{}: quantization_config rounds or transforms the input of lm_head, which must be 16 "
            "bits",
            source);
      if (!out.linears.emplace(word, linear).second)
        fail("{}: quantization_config targets '{}' twice", source, word);
    } else {
      fail("{}: quantization_config target '{}' is no linear of this model", source,
           word.substr(0, 120));
    }
  }
}

// compressed-tensors can say it: one scheme everywhere, no kept channels, 16-bit KV-cache and head.
bool is_compressed_tensors(const Scheme& scheme, const ModelConfig& config) {
  if (scheme.linears.size() != linear_modules(config).size() || scheme.linears.contains("lm_head"))
    return false;
  const LinearScheme& first = scheme.linears.begin()->second;
  for (const auto& [module, linear] : scheme.linears)
    if (!(linear == first)) return false;
  const bool w8a8 = first.weight == format::kInt8 && first.input == format::kInt8;
  const bool w4a16 = format::is_int4(first.weight) && !format::is_progressive(first.weight) &&
                     first.weight.group != 0 && !format::is_integer(first.input);
  return first.kept == 0 && first.hadamard == 0 && scheme.qk_hadamard == 0 &&
         !scheme.stream_basis && !scheme.key_offset && (w8a8 || w4a16) && uniform(scheme.kv) &&
         !format::is_quantized(scheme.kv[0]);
}

}  // namespace

format::Segments weight_segments(const LinearScheme& scheme, int k) {
  return {{format::Segment{scheme.weight, k - scheme.kept},
           format::Segment{scheme.kept_weight, scheme.kept}}};
}

format::Segments input_segments(const LinearScheme& scheme, int k) {
  return {{format::Segment{scheme.input, k - scheme.kept},
           format::Segment{scheme.kept_input, scheme.kept}}};
}

const LinearScheme* Scheme::find(const std::string& module) const {
  const auto it = linears.find(module);
  return it == linears.end() ? nullptr : &it->second;
}

std::string module_name(int layer, std::string_view below) {
  return fmt::format("model.layers.{}.{}", layer, below);
}

std::string expert_module_name(int layer, std::string_view pattern, int expert) {
  std::string below(pattern);
  if (const size_t at = below.find("{}"); at != std::string::npos)
    below.replace(at, 2, std::to_string(expert));
  return module_name(layer, below);
}

std::vector<std::string> linear_modules(const ModelConfig& config) {
  std::vector<std::string> out;
  for (int i = 0; i < config.layers; ++i) {
    for (const char* name : {"q_proj", "k_proj", "v_proj", "o_proj"})
      out.push_back(module_name(i, std::string("self_attn.") + name));
    for (int e = 0; e < config.experts; ++e)
      for (const std::string_view name :
           {config.family->gate, config.family->up, config.family->down})
        out.push_back(expert_module_name(i, name, e));
  }
  return out;
}

Scheme parse_scheme(const Json& config_json, const ModelConfig& config, KvKind plain_kv,
                    std::string_view source) {
  Scheme out;
  out.kv.assign(config.layers, plain_kv);
  const auto it = config_json.find("quantization_config");
  if (it == config_json.end() || it->is_null()) return out;
  if (!it->is_object()) fail("{}: quantization_config must be an object", source);
  const std::string method = get_string_or(*it, "quant_method", "", source);
  if (method != "atom" && method != "compressed-tensors")
    fail("{}: quant_method '{}' is not supported (supported: atom, compressed-tensors, gptq, awq)",
         source, method);
  check_top_level(*it, method, source);
  out.quantized = true;
  out.compressed_tensors_names = method == "compressed-tensors";
  Targets targets;
  if (const auto list = it->find("ignore"); list != it->end() && list->is_array())
    for (const Json& name : *list)
      if (name.is_string()) targets.ignored.insert(name.get<std::string>());
  if (const auto groups = it->find("config_groups"); groups != it->end()) {
    if (!groups->is_object()) fail("{}: config_groups must be an object", source);
    for (std::string& module : linear_modules(config)) targets.linears.insert(std::move(module));
    for (const auto& [name, group] : groups->items()) {
      if (!group.is_object()) fail("{}: config_groups '{}' must be an object", source, name);
      const LinearScheme linear = parse_group(group, source);
      const bool fp4 = format::is_e2m1(linear.weight) || format::is_e2m1(linear.input);
      if (out.compressed_tensors_names && (fp4 || format::is_progressive(linear.weight)))
        fail("{}: config_groups '{}' holds {}, which only quant_method 'atom' has", source, name,
             fp4 ? "four-bit floats" : "'progressive'");
      assign_targets(group, linear, source, targets, out);
    }
  }
  out.kv = parse_kv(*it, config, source);
  out.qk_hadamard = parse_hadamard(*it, "qk_hadamard", source);
  out.kv_clip = static_cast<float>(
      get_number_or(*it, "kv_clip", 1.0, {.source = source, .min = 1e-3, .max = 1.0}));
  const std::string open = get_string_or(*it, "kv_open_page", "", source);
  if (!open.empty() && open != format::name(KvKind::kInt8))
    fail("{}: kv_open_page \"{}\" is not supported (only int8)", source, open.substr(0, 60));
  out.open_page = !open.empty();
  out.key_offset = get_bool_or(*it, "key_offset", false, source);
  out.stream_basis = get_bool_or(*it, "stream_basis", false, source);
  return out;
}

Json scheme_json(const Scheme& scheme, const ModelConfig& config) {
  check(!scheme.kv.empty() && static_cast<int>(scheme.kv.size()) == config.layers,
        "one KV format a layer");
  std::vector<std::pair<LinearScheme, std::vector<std::string>>> groups;
  std::vector<std::string> modules = linear_modules(config);
  modules.emplace_back("lm_head");
  std::vector<std::string> ignore;
  for (const std::string& module : modules) {
    const LinearScheme* linear = scheme.find(module);
    if (linear == nullptr) {
      ignore.push_back(module);
      continue;
    }
    auto group =
        std::find_if(groups.begin(), groups.end(), [&](auto& g) { return g.first == *linear; });
    if (group == groups.end()) group = groups.insert(group, {*linear, {}});
    group->second.push_back(module);
  }
  const bool common = is_compressed_tensors(scheme, config);
  if (groups.size() == 1 && groups[0].second.size() == modules.size() - 1 && ignore.size() == 1)
    groups[0].second = {"Linear"};
  for (int i = 0; i < config.layers && config.mixture(); ++i)
    ignore.push_back(module_name(i, config.family->router));

  Json out;
  out["quant_method"] = common ? "compressed-tensors" : "atom";
  if (!common) out["version"] = 1;
  const bool int8 = common && groups[0].first.weight == format::kInt8;
  out["format"] = !common ? "atom" : int8 ? "int-quantized" : "pack-quantized";
  out["quantization_status"] = "compressed";
  out["config_groups"] = Json::object();
  for (size_t i = 0; i < groups.size(); ++i)
    out["config_groups"][fmt::format("group_{}", i)] =
        group_json(groups[i].first, groups[i].second);
  out["kv_cache_scheme"] = uniform(scheme.kv) ? kv_json(scheme.kv.front()) : Json(nullptr);
  if (!uniform(scheme.kv)) {
    out["kv_cache_layers"] = Json::array();
    for (const KvKind kind : scheme.kv) out["kv_cache_layers"].push_back(format::name(kind));
  }
  if (!common) out["order_partitions"] = 1;
  if (scheme.qk_hadamard != 0) out["qk_hadamard"] = scheme.qk_hadamard;
  if (scheme.kv_clip != 1.0f) out["kv_clip"] = scheme.kv_clip;
  if (scheme.open_page) out["kv_open_page"] = format::name(format::KvKind::kInt8);
  if (scheme.key_offset) out["key_offset"] = true;
  if (scheme.stream_basis) out["stream_basis"] = true;
  out["ignore"] = ignore;
  return out;
}

}  // namespace atom::model
