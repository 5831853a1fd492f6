#include "model/linear_scheme_json.h"

#include <fmt/format.h>

#include "base/error.h"
#include "model/fp4_checkpoint.h"

namespace atom::model {
namespace {

using format::Format;

// One side of a group in compressed-tensors' words. `per_row` is its name for one scale per row:
// "channel" for weights, "token" for activations.
Json number_json(Format f, std::string_view per_row, bool dynamic) {
  if (!format::is_integer(f)) return Json{{"num_bits", 16}, {"type", "float"}};
  if (format::is_e2m1(f)) return fp4_json(f, dynamic);
  Json out{{"num_bits", format::bits(f)}, {"type", "int"}, {"symmetric", true}};
  if (format::is_int4(f) && f.group != 0) {
    out["strategy"] = "group";
    out["group_size"] = f.group;
    if (format::is_progressive(f)) out["progressive"] = true;
  } else {
    out["strategy"] = per_row;
  }
  out["dynamic"] = dynamic;
  return out;
}

void require_null(const Json& object, std::string_view name, std::string_view key,
                  std::string_view source) {
  const auto it = object.find(key);
  if (it != object.end() && !it->is_null())
    fail("{}: {} holds '{}' {}, which is not supported (only null)", source, name, key,
         it->dump().substr(0, 120));
}

}  // namespace

void refuse_other_keys(const Json& object, std::string_view name, const Words& known,
                       std::string_view source) {
  for (const auto& [key, value] : object.items())
    if (!known.contains(key)) fail("{}: {} has the unknown key '{}'", source, name, key);
}

// One description of numbers, as compressed-tensors writes it. Observers only made the scales.
void check_number(const Json& number, std::string_view name, bool dynamic,
                  std::string_view source) {
  static const Words known = {"num_bits",   "type",        "symmetric",       "strategy",
                              "group_size", "dynamic",     "clip_ratio",      "block_structure",
                              "actorder",   "observer",    "observer_kwargs", "scale_dtype",
                              "zp_dtype",   "progressive", "hadamard",        "signed_scales"};
  refuse_other_keys(number, name, known, source);
  if (name != "weights") require_null(number, name, "progressive", source);
  for (const char* key : {"block_structure", "actorder", "zp_dtype"})
    require_null(number, name, key, source);
  const std::string strategy = get_string_or(number, "strategy", "", source);
  const bool fp4 = is_fp4(number);
  if (!fp4) require_null(number, name, "scale_dtype", source);
  if (strategy != "group" && !fp4) require_null(number, name, "group_size", source);
  if (name != "input_activations")
    for (const char* key : {"clip_ratio", "hadamard", "signed_scales"})
      require_null(number, name, key, source);
  if ((get_string_or(number, "type", "int", source) == "int" || fp4) &&
      get_bool_or(number, "dynamic", false, source) != dynamic)
    fail("{}: {} must have 'dynamic' {} (weights have stored scales, other numbers have none)",
         source, name, dynamic);
}

int parse_hadamard(const Json& object, std::string_view key, std::string_view source) {
  if (!object.contains(key)) return 0;
  const int64_t block = get_int(object, key, {.source = source, .min = 2, .max = 128});
  if ((block & (block - 1)) != 0)
    fail("{}: quantization_config '{}' must be a power of two, but is {}", source, key, block);
  return static_cast<int>(block);
}

namespace {

// Absent or null: unquantized.
Format parse_number(const Json& group, std::string_view key, std::string_view per_row,
                    std::string_view source) {
  const auto it = group.find(key);
  if (it == group.end() || it->is_null()) return format::kF32;
  if (!it->is_object()) fail("{}: quantization_config '{}' must be an object", source, key);
  check_number(*it, key, per_row == "token", source);
  const std::string type = get_string_or(*it, "type", "int", source);
  const int64_t bits = get_int(*it, "num_bits", {.source = source, .min = 1, .max = 32});
  if (type == "float" && bits == 16) return format::kF32;
  if (const Format fp4 = parse_fp4(*it); fp4 != format::kF32) return fp4;
  const std::string strategy = get_string_or(*it, "strategy", "", source);
  if (type == "int" && get_bool_or(*it, "symmetric", true, source)) {
    const bool progressive = get_bool_or(*it, "progressive", false, source);
    if (bits == 8 && strategy == per_row && !progressive) return format::kInt8;
    if (bits == 4 && strategy == per_row && !progressive) return format::int4(0);
    if (bits == 4 && strategy == "group") {
      const int64_t size = get_int(*it, "group_size", {.source = source, .min = 1, .max = 4096});
      try {
        return format::parse_format(fmt::format("int4.g{}{}", size, progressive ? ".p" : ""));
      } catch (const Error& error) {
        fail("{}: {} has the group_size {}: {}", source, key, size, error.what());
      }
    }
  }
  fail("{}: quantization_config '{}' holds {}, which no supported format expresses", source, key,
       it->dump().substr(0, 120));
}

}  // namespace

Json group_json(const LinearScheme& s, const std::vector<std::string>& targets) {
  Json out;
  out["targets"] = targets;
  out["weights"] = number_json(s.weight, "channel", false);
  out["input_activations"] =
      format::is_integer(s.input) ? number_json(s.input, "token", true) : Json(nullptr);
  if (has_clip(s.input)) out["input_activations"]["clip_ratio"] = s.clip;
  if (s.signed_scales) out["input_activations"]["signed_scales"] = true;
  if (s.hadamard != 0) out["input_activations"]["hadamard"] = s.hadamard;
  if (s.kept > 0) {
    out["kept_channels"] = s.kept;
    out["kept_weights"] = number_json(s.kept_weight, "channel", false);
    out["kept_input_activations"] =
        format::is_integer(s.kept_input) ? number_json(s.kept_input, "token", true) : Json(nullptr);
  }
  return out;
}

void require_known_format(const Json& format, std::string_view source) {
  for (const char* word : {"atom", "int-quantized", "pack-quantized"})
    if (format == Json(word)) return;
  fail(
      "{}: quantization_config format {} is not supported (supported: atom, int-quantized, "
      "pack-quantized)",
      source, format.dump().substr(0, 60));
}

LinearScheme parse_group(const Json& group, std::string_view source) {
  static const Words known = {"targets",       "weights",           "input_activations",
                              "kept_channels", "kept_weights",      "kept_input_activations",
                              "format",        "output_activations"};
  refuse_other_keys(group, "a group of quantization_config", known, source);
  require_null(group, "a group of quantization_config", "output_activations", source);
  if (const auto it = group.find("format"); it != group.end() && !it->is_null())
    require_known_format(*it, source);
  LinearScheme s;
  s.weight = parse_number(group, "weights", "channel", source);
  s.input = parse_number(group, "input_activations", "token", source);
  if (const auto it = group.find("input_activations"); it != group.end() && it->is_object()) {
    s.clip = static_cast<float>(
        get_number_or(*it, "clip_ratio", 1.0, {.source = source, .min = 1e-3, .max = 1.0}));
    s.signed_scales = get_bool_or(*it, "signed_scales", false, source);
    if (s.signed_scales && (!format::is_int4(s.input) || s.input.group == 0))
      fail("{}: 'signed_scales' is of int4 groups, but the input is {}", source,
           format::name(s.input));
    s.hadamard = parse_hadamard(*it, "hadamard", source);
    if (s.clip != 1.0f && format::is_e2m1(s.input) && !has_clip(s.input))
      fail("{}: 'clip_ratio' is {}, but {} has none", source, s.clip, format::name(s.input));
  }
  s.kept = static_cast<int>(
      get_int_or(group, "kept_channels", 0, {.source = source, .min = 0, .max = 1 << 20}));
  if (s.kept > 0) {
    s.kept_weight = parse_number(group, "kept_weights", "channel", source);
    s.kept_input = parse_number(group, "kept_input_activations", "token", source);
    for (const Format f : {s.kept_weight, s.kept_input})
      if (format::bits(f) == 4)
        fail("{}: kept channels must have 8 or 16 bits, but are {}", source, format::name(f));
  }
  return s;
}

}  // namespace atom::model
