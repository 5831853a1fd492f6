#include "checkpoint/packed_config.h"

#include <algorithm>
#include <cctype>
#include <initializer_list>
#include <tuple>
#include <utility>

#include "base/error.h"
#include "text/regex.h"

namespace atom::checkpoint {
namespace {

using Layout = PackedFormat::Layout;

constexpr int64_t kMostGroup = 1 << 20;
constexpr std::string_view kExpression = "re:";

std::string lowered(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

std::string shown_value(const Json& value) {
  return value.dump(-1, ' ', true, Json::error_handler_t::replace).substr(0, 60);
}

[[noreturn]] void refuse_field(const std::string& source, std::string_view key, const Json& value,
                               std::string_view rule) {
  fail("{}: the field \"{}\" of the quantization is {}, {}", source, key, shown_value(value), rule);
}

// Error: the field is there and holds another value than null or `only`.
void require_value(const Json& object, std::string_view key, const Json& only,
                   const std::string& source) {
  const auto it = object.find(key);
  if (it == object.end() || it->is_null() || *it == only || (it->empty() && it->is_structured()))
    return;
  refuse_field(source, key, *it,
               only.is_null() ? "which is not supported"
                              : "which is not supported: only " + only.dump() + " is");
}

std::string word(const Json& object, std::string_view key, std::string_view otherwise,
                 const std::string& source, std::initializer_list<std::string_view> known) {
  std::string value = lowered(get_string_or(object, key, otherwise, source));
  if (std::find(known.begin(), known.end(), value) != known.end()) return value;
  std::string rule = "which is not supported: only";
  for (const std::string_view one : known)
    rule += (one == *known.begin() ? " " : ", ") + std::string(one);
  refuse_field(source, key, value, rule);
}

// -1 and null: a scale for the whole row.
int64_t group_of(const Json& object, std::string_view key, const std::string& source) {
  const int64_t group =
      get_int_or(object, key, -1, {.source = source, .min = -1, .max = kMostGroup});
  if (group == 0) refuse_field(source, key, group, "but must be -1 or positive");
  return group < 0 ? PackedFormat::kAll : group;
}

int bits_of(const Json& object, std::string_view key, const std::string& source,
            std::initializer_list<int> known) {
  const int64_t bits = get_int(object, key, {.source = source, .min = 1, .max = 32});
  if (std::find(known.begin(), known.end(), bits) != known.end()) return static_cast<int>(bits);
  refuse_field(source, key, bits, "which is not supported");
}

PackedConfig read_gptq(const Json& q, const std::string& source) {
  PackedFormat format{.layout = Layout::kGptq};
  format.bits = bits_of(q, "bits", source, {2, 3, 4, 8});
  format.group = group_of(q, "group_size", source);
  format.symmetric = get_bool_or(q, "sym", true, source);
  format.ordered = get_bool_or(q, "desc_act", false, source);
  format.zeros_less_one =
      word(q, "checkpoint_format", "gptq", source, {"gptq", "gptq_v2"}) == "gptq";
  require_value(q, "pack_dtype", "int32", source);
  require_value(q, "is_marlin_format", false, source);
  require_value(q, "rotation", nullptr, source);
  require_value(q, "adapter", nullptr, source);
  if (const auto it = q.find("dynamic"); it != q.end() && it->is_object())
    for (const auto& [key, value] :
         it->items())  // "-:" leaves modules out, which their tensors show
      if (!key.starts_with("-:")) refuse_field(source, "dynamic", key, "which is not supported");
  return {"GPTQ", source, {{{"Linear"}, format}}};
}

PackedConfig read_awq(const Json& q, const std::string& source) {
  PackedFormat format{.layout = Layout::kAwq};
  format.bits = bits_of(q, q.contains("w_bit") ? "w_bit" : "bits", source, {4});
  format.group = group_of(q, q.contains("q_group_size") ? "q_group_size" : "group_size", source);
  format.symmetric = !get_bool_or(q, "zero_point", true, source);
  word(q, "version", "gemm", source, {"gemm"});
  return {"AWQ", source, {{{"Linear"}, format}}};
}

// A list of two, or "128x128".
std::pair<int64_t, int64_t> block_of(const Json& weights, const std::string& source) {
  const auto it = weights.find("block_structure");
  if (it == weights.end() || !it->is_array() || it->size() != 2)
    refuse_field(source, "block_structure", it == weights.end() ? Json(nullptr) : *it,
                 "but must list rows and columns with the strategy block");
  const Json sizes = {{"rows", (*it)[0]}, {"columns", (*it)[1]}};
  const IntField field{.source = source, .min = 1, .max = kMostGroup};
  return {get_int(sizes, "rows", field), get_int(sizes, "columns", field)};
}

PackedFormat::Inputs inputs_of(const Json& group, const std::string& source) {
  const auto it = group.find("input_activations");
  if (it == group.end() || it->is_null()) return PackedFormat::Inputs::kFloat;
  if (!it->is_object()) refuse_field(source, "input_activations", *it, "but must be an object");
  const auto is = [&](const char* key, const Json& value) {
    const auto found = it->find(key);
    return found != it->end() && *found == value;
  };
  const bool tokens = is("num_bits", 8) && is("type", "int") && is("strategy", "token") &&
                      is("dynamic", true) && !is("symmetric", false);
  return tokens ? PackedFormat::Inputs::kInt8PerToken : PackedFormat::Inputs::kOther;
}

void read_strategy(const Json& weights, const std::string& source, PackedFormat& format) {
  const bool grouped = weights.contains("group_size") &&
                       weights["group_size"].is_number_integer() && weights["group_size"] != -1;
  const std::string strategy = word(weights, "strategy", grouped ? "group" : "tensor", source,
                                    {"tensor", "channel", "group", "block", "tensor_group"});
  if (strategy == "tensor") format.rows = PackedFormat::kAll;
  if (strategy == "group" || strategy == "tensor_group")
    format.group = get_int(weights, "group_size", {.source = source, .min = 1, .max = kMostGroup});
  if (strategy == "block") std::tie(format.rows, format.group) = block_of(weights, source);
}

// A group's own format wins; int-quantized, naive-quantized and float-quantized differ in name only.
PackedFormat read_scheme(const Json& group, const std::string& overall, const std::string& source) {
  const auto it = group.find("weights");
  if (it == group.end() || !it->is_object())
    fail("{}: a group of config_groups must have an object \"weights\", but {}", source,
         shown_field(group, "weights"));
  const Json& weights = *it;
  const std::string name =
      word(group, "format", overall, source,
           {"pack-quantized", "int-quantized", "float-quantized", "naive-quantized",
            "nvfp4-pack-quantized", "mxfp4-pack-quantized"});
  const bool is_float = word(weights, "type", "int", source, {"int", "float"}) == "float";
  require_value(weights, "dynamic", false, source);
  require_value(group, "output_activations", nullptr, source);
  PackedFormat format{.symmetric = get_bool_or(weights, "symmetric", true, source),
                      .inputs = inputs_of(group, source)};
  read_strategy(weights, source, format);
  const bool fp4 = name.ends_with("fp4-pack-quantized"), packed = name == "pack-quantized";
  if (is_float != (fp4 || name == "float-quantized") && name != "naive-quantized")
    refuse_field(source, "type", weights.value("type", Json("int")),
                 "which the format " + name + " does not have");
  if (fp4) {
    const bool nv = name.starts_with("nv");
    format.layout = nv ? Layout::kNvfp4 : Layout::kMxfp4;
    format.bits = bits_of(weights, "num_bits", source, {4});
    require_value(weights, "group_size", nv ? 16 : 32, source);
  } else if (packed) {
    format.layout = Layout::kPacked;
    format.bits = bits_of(weights, "num_bits", source, {2, 4, 8});
    if (format.rows != 1)
      refuse_field(source, "strategy", weights.value("strategy", Json("tensor")),
                   "which pack-quantized does not have");
    const Json order = weights.value("actorder", Json(nullptr));
    format.ordered = order == "group" || order == "dynamic" || order == true;
  } else {
    format.layout = is_float ? Layout::kFloat8 : Layout::kInt8;
    format.bits = bits_of(weights, "num_bits", source, {8});
  }
  if (is_float && !format.symmetric)
    refuse_field(source, "symmetric", false, "which floats do not have");
  return format;
}

PackedConfig read_compressed(const Json& q, const std::string& source) {
  for (const char* key : {"sparsity_config", "transform_config", "kv_cache_scheme"})
    require_value(q, key, nullptr, source);
  word(q, "quantization_status", "compressed", source, {"compressed", "frozen"});
  const std::string format = get_string_or(q, "format", "", source);
  PackedConfig config{"compressed-tensors", source, {}};
  const auto groups = q.find("config_groups");
  if (groups == q.end() || !groups->is_object() || groups->empty())
    fail("{}: the quantization must have an object \"config_groups\" with a group, but {}", source,
         shown_field(q, "config_groups"));
  for (const auto& [name, group] : groups->items()) {
    const auto targets = group.is_object() ? group.find("targets") : group.end();
    if (!group.is_object() || targets == group.end() || !targets->is_array())
      fail("{}: the group {} of config_groups must have a list \"targets\", but {}", source,
           shown_value(Json(name)), shown_field(group, "targets"));
    PackedGroup out{{}, read_scheme(group, format, source)};
    for (const Json& target : *targets) {
      if (!target.is_string()) refuse_field(source, "targets", target, "but must list words");
      out.targets.push_back(target.get<std::string>());
    }
    config.groups.push_back(std::move(out));
  }
  return config;
}

// As Python's re.match: from the first character on.
bool matches(std::string_view expression, std::string_view module, const std::string& source) {
  const text::Regex regex = text::Regex::compile(expression, source + ": config_groups");
  const auto hit = text::RegexSearch(regex).next(module, 0);
  return hit && hit->begin == 0;
}

}  // namespace

const PackedFormat* PackedConfig::find(std::string_view module) const {
  for (const PackedGroup& group : groups)
    for (const std::string& target : group.targets)
      if (target == module) return &group.format;
  for (const PackedGroup& group : groups)
    for (const std::string& target : group.targets)
      if (target.starts_with(kExpression) &&
          matches(std::string_view(target).substr(kExpression.size()), module, source))
        return &group.format;
  for (const PackedGroup& group : groups)
    for (const std::string& target : group.targets)
      if (target == "Linear") return &group.format;
  return nullptr;
}

std::optional<PackedConfig> read_packed_config(const Json& quantization,
                                               const std::string& source) {
  if (!quantization.is_object())
    fail("{}: the quantization must be a JSON object, but is {}", source,
         shown_value(quantization));
  const std::string method = lowered(get_string_or(quantization, "quant_method", "", source));
  if (method == "gptq") return read_gptq(quantization, source);
  if (method == "awq") return read_awq(quantization, source);
  if (method == "compressed-tensors") return read_compressed(quantization, source);
  return std::nullopt;
}

}  // namespace atom::checkpoint
