#include "model/open_files.h"

#include <algorithm>
#include <charconv>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "model/config.h"
#include "model/packed_files.h"
#include "model/scheme.h"

namespace atom::model {
namespace {

using checkpoint::ModelFiles;

struct Part {
  const char* module;
  int rows;
};

void split(ModelFiles& files, int layer, const char* fused, const std::vector<Part>& parts) {
  const std::string name = module_name(layer, fused) + ".weight";
  if (const std::string bias = module_name(layer, fused) + ".bias"; files.has(bias))
    fail("{}: tensor \"{}\" is not supported: linears that are stored as one have no biases",
         files.folder().string(), bias);
  if (!files.has(name)) return;  // written by Atom: apart already
  std::vector<ModelFiles::RowPart> rows;
  for (const Part& part : parts)
    rows.push_back({module_name(layer, part.module) + ".weight", int64_t{part.rows}});
  files.split_rows(name, rows);
}

bool is_fused(const Json& config) {
  const auto names = config.find("architectures");
  if (names == config.end() || !names->is_array() || names->empty()) return false;
  for (const std::string& known : supported_architectures())
    if (names->front() == known) return find_family(known, "").fused;
  return false;
}

}  // namespace

ModelFiles open_files(const std::filesystem::path& folder, Weights weights) {
  ModelFiles files = ModelFiles::open(folder);
  see_packed(files, weights);
  if (!is_fused(files.config())) return files;
  const ModelConfig config = parse_config(files.config(), files.source_of("config.json"));
  const int queries = config.attention_size(), keys = config.kv_heads * config.head_dim;
  for (int i = 0; i < config.layers; ++i) {
    split(files, i, "self_attn.qkv_proj",
          {{"self_attn.q_proj", queries}, {"self_attn.k_proj", keys}, {"self_attn.v_proj", keys}});
    split(files, i, "mlp.gate_up_proj",
          {{"mlp.gate_proj", config.intermediate}, {"mlp.up_proj", config.intermediate}});
  }
  return files;
}

std::string layers_left_out(const ModelFiles& files, int layers) {
  constexpr std::string_view kLayers = "model.layers.";
  int64_t tensors = 0, last = -1;
  for (const std::string& name : files.tensor_names()) {
    int64_t layer = -1;
    if (!name.starts_with(kLayers)) continue;
    std::from_chars(name.data() + kLayers.size(), name.data() + name.size(), layer);
    if (layer < layers) continue;
    ++tensors;
    last = std::max(last, layer);
  }
  if (tensors == 0) return "";
  return fmt::format(
      "{}: {} tensors of layers {} to {} are left out: config.json has num_hidden_layers {}",
      files.folder().string(), tensors, layers, last, layers);
}

}  // namespace atom::model
