#include "quantizer/provenance.h"

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
  json["source"]["config_sha256"] = hash(files.folder() / "config.json");
  json["source"]["weights_sha256"] = Json::array();
  for (const checkpoint::SafetensorsFile& file : files.files())
    json["source"]["weights_sha256"].push_back(hash(file.path()));
  return json;
}

}  // namespace atom::quantizer
