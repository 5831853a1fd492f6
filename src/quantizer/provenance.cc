#include "quantizer/provenance.h"

#include <cstdint>
#include <span>

#include "base/sha256.h"
#include "checkpoint/manifest.h"

namespace atom::quantizer {

Json provenance(const QuantizeOptions& options) {
  const checkpoint::ModelFiles& files = *options.input;
  const auto hash = [](const std::filesystem::path& path) {
    return checkpoint::make_manifest_entry(path.parent_path(), path.filename().string()).sha256;
  };
  Json json;
  json["producer"] = "atom";
  json["version"] = ATOM_VERSION;
  json["recipe"] = to_json(options.recipe);
  json["calibration"] = {{"sha256", options.calibration_sha256},
                         {"samples", options.samples},
                         {"sequence", options.sequence},
                         {"seed", options.seed}};
  const std::string config = files.small_file("config.json", UINT64_MAX).value();
  json["source"]["config_sha256"] = sha256_hex(std::as_bytes(std::span(config)));
  json["source"]["weights_sha256"] = Json::array();
  for (const std::filesystem::path& path : files.weight_paths())
    json["source"]["weights_sha256"].push_back(hash(path));
  return json;
}

Json report_json(const QuantizeOptions& options, const QuantizeReport& report) {
  Json json;
  json["version"] = ATOM_VERSION;
  json["recipe"] = to_json(options.recipe);
  json["calibration"] = {{"name", options.calibration_name},
                         {"tokens", options.calibration.size()},
                         {"samples", options.samples},
                         {"sequence", options.sequence},
                         {"seed", options.seed}};
  json["input_bytes"] = report.input_bytes;
  json["output_bytes"] = report.output_bytes;
  json["bits_per_weight"] = report.bits_per_weight;
  json["seconds"] = report.seconds;
  json["forward_seconds"] = report.forward_seconds;
  json["peak_rss"] = report.peak_rss;
  json["resumed_layers"] = report.resumed_layers;
  json["notices"] = report.notices;
  return json;
}

Json module_json(const model::LinearTensors& linear, const Solved& solved, bool compensated) {
  Json module = {{"name", linear.name}};
  module["format"] = format::name(linear.segments.at[0].format);
  module["kept"] = linear.segments.at[1].size;
  module["rounding"] = compensated ? "gptq" : "rtn";
  module["error"] = solved.output_error >= 0 ? Json(solved.output_error) : Json(nullptr);
  module["weight_error"] = solved.weight_error;
  module["tokens"] = nullptr;
  return module;
}

}  // namespace atom::quantizer
