#include "model/packed_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "checkpoint/packed_model.h"
#include "model/config.h"
#include "model/linear_scheme_json.h"
#include "model/scheme.h"

namespace atom::model {
namespace {

using checkpoint::ModelFiles;
using checkpoint::PackedModel;
using checkpoint::PackedView;
using checkpoint::PackedWeight;
using tensor::DType;

bool holds(const ModelFiles& files, const std::string& name, DType dtype) {
  return files.has(name) && files.header(name).dtype == dtype;
}

// Whether `module` is stored as Atom stores such a linear. Other programs write scales of other types, and the code -128.
bool as_atom_stores(const ModelFiles& files, const std::string& module, const LinearScheme& scheme,
                    bool own) {
  const std::string weight = module + ".weight", scale = module + ".weight_scale";
  if (!format::is_integer(scheme.weight)) return files.has(weight);
  if (files.has(module + ".weight_zero_point") || files.has(module + ".weight_g_idx")) return false;
  if (format::is_int4(scheme.weight))
    return holds(files, module + ".weight_packed", DType::I32) && holds(files, scale, DType::F16);
  if (!holds(files, weight, DType::I8) || !holds(files, scale, DType::F32)) return false;
  if (own) return true;
  const tensor::TensorView codes = files.tensor(weight);
  const bool fits =
      std::find(codes.bytes.begin(), codes.bytes.end(), std::byte{0x80}) == codes.bytes.end();
  files.release(weight);
  return fits;
}

bool reads_as_it_is(const ModelFiles& files) {
  const std::string source = files.source_of("config.json");
  std::error_code ignored;
  const bool own = std::filesystem::exists(files.folder() / "atom_provenance.json", ignored);
  try {
    const ModelConfig config = parse_config(files.config(), source);
    const Scheme scheme = parse_scheme(files.config(), config, format::KvKind::kF32, source);
    return std::all_of(scheme.linears.begin(), scheme.linears.end(), [&](const auto& linear) {
      return as_atom_stores(files, linear.first, linear.second, own);
    });
  } catch (const Error&) {
    return false;  // the other reader says why, if it cannot read it either
  }
}

// Why the linears are not computed with as they are stored; empty: they are.
std::string misfit_of(const PackedModel& packed, const ModelConfig& config) {
  if (config.family->fused) return "linears are stored as one";
  const std::vector<std::string> modules = linear_modules(config);
  const std::set<std::string> known(modules.begin(), modules.end());
  const PackedWeight& first = packed.weights().begin()->second;
  for (const std::string& module : modules)
    if (!packed.weights().contains(module)) return module + " is not quantized";
  for (const auto& [module, weight] : packed.weights()) {
    const bool head = module == "lm_head";
    if (!head && !known.contains(module)) return module + " is quantized, too";
    std::string reason = weight.misfit();
    if (reason.empty() && head && !weight.is_int4())
      reason = "int8 inputs of the head are not read";
    if (reason.empty() && (weight.is_int4() != first.is_int4() ||
                           (weight.is_int4() && weight.group() != first.group())))
      reason = "it differs from " + first.module();
    if (!reason.empty()) return module + ": " + reason;
  }
  return {};
}

// config.json of such a model, as Atom would have written it.
Json fitting_config(const ModelFiles& files, const PackedModel& packed, const ModelConfig& config) {
  const PackedWeight& first = packed.weights().begin()->second;
  LinearScheme linear;
  linear.weight =
      first.is_int4() ? format::int4(static_cast<int32_t>(first.group())) : format::kInt8;
  linear.input = first.is_int4() ? format::kF32 : format::kInt8;
  Scheme scheme{.quantized = true};
  scheme.kv.assign(static_cast<size_t>(config.layers), format::KvKind::kF16);
  for (const auto& [module, weight] : packed.weights()) scheme.linears[module] = linear;
  Json json = files.config();
  json["quantization_config"] = scheme_json(scheme, config);
  return json;
}

}  // namespace

void see_packed(ModelFiles& files, Weights weights) {
  const auto stored = files.config().find("quantization_config");
  const bool quantized = stored != files.config().end() && !stored->is_null();
  const std::string method =
      quantized && stored->is_object()
          ? get_string_or(*stored, "quant_method", "", files.source_of("config.json"))
          : "";
  if (quantized && method != "gptq" && method != "awq" && method != "compressed-tensors") return;
  if (quantized && weights == Weights::kAsStored && reads_as_it_is(files)) return;
  std::unique_ptr<PackedModel> packed = files.read_packed();
  if (packed == nullptr) return;
  const ModelConfig config = parse_config(files.config(), files.source_of("config.json"));
  std::string note = packed->description();
  const std::string misfit =
      weights == Weights::kFloats ? "a source of weights" : misfit_of(*packed, config);
  Json json = files.config();
  if (misfit.empty()) {
    json = fitting_config(files, *packed, config);
    packed->see(PackedView::kStored);
    note += "; computed with as stored";
  } else {
    json.erase("quantization_config");
    packed->see(PackedView::kFloats);
    note += weights == Weights::kFloats ? "; read as F32"
                                        : "; read as F32, 32 bits a weight, since " + misfit;
    if (weights == Weights::kAsStored) log_warning("{}: {}", files.folder().string(), note);
  }
  files.see_packed(std::move(packed), std::move(json), std::move(note));
}

}  // namespace atom::model
