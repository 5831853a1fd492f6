// atom inspect: what a model folder or a GGUF file holds, from its headers.
#include <algorithm>
#include <map>

#include "base/file.h"
#include "console.h"
#include "format/kv_page.h"
#include "session.h"
#include "verbs.h"

namespace atom::app::inspect {
namespace {

struct Options {
  CommonOptions common;
  std::string model;
};

bool ends_with(std::string_view text, std::string_view end) { return text.ends_with(end); }

// Inputs times outputs of a quantizable linear.
int64_t weights_of(const std::string& module, const model::ModelConfig& config) {
  const int64_t hidden = config.hidden;
  if (ends_with(module, "q_proj") || ends_with(module, "o_proj"))
    return hidden * config.attention_size();
  if (ends_with(module, "k_proj") || ends_with(module, "v_proj"))
    return hidden * config.kv_heads * config.head_dim;
  return hidden * config.intermediate;
}

// Tensors of one kind.
struct Share {
  int64_t tensors = 0;
  int64_t bytes = 0;
};

struct Contents {
  std::map<std::string, Share> kinds;
  int64_t total_bytes = 0;
  int64_t linear_bytes = 0;    // codes and scales of the quantizable linears
  int64_t linear_weights = 0;  // and their weights
  int64_t parameters = 0;      // of the model, whatever their format
};

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

// Module and the part of it that a tensor name names: "...q_proj" and "weight_scale".
std::pair<std::string, std::string> split_name(const std::string& name) {
  const size_t dot = name.rfind('.');
  if (dot == std::string::npos) return {name, ""};
  return {name.substr(0, dot), name.substr(dot + 1)};
}

std::string kind_of(const std::string& name, const checkpoint::TensorHeader& header,
                    const model::Scheme& scheme, bool linear) {
  const auto [module, part] = split_name(name);
  const std::string word = lower(header.stored);
  if (part == "order") return "channel orders";
  if (part == "bias") return "biases " + word;
  if (part == "key_offset") return "key offsets " + word;
  if (module == model::kStreamBasis) return "stream basis " + word;
  for (const char* scales : {"weight_scale", "kept_scale", "weight_row_scale", "weight_multiplier",
                             "weight_global_scale"})
    if (part == scales) return "scales";
  const bool head = module == "lm_head";
  if (linear || head) {
    const std::string owner = head ? "head " : "linears ";
    const model::LinearScheme* found = scheme.find(module);
    if (part == "weight_packed" && found != nullptr) return owner + format::name(found->weight);
    if (header.dtype == tensor::DType::I8) return owner + "int8";
    return owner + word;
  }
  if (ends_with(module, "embed_tokens")) return "embedding " + word;
  if (ends_with(module, "norm")) return "norms " + word;
  return "other " + word;
}

Contents read_contents(const checkpoint::ModelFiles& files, const model::ModelConfig& config,
                       const model::Scheme& scheme) {
  Contents contents;
  const std::vector<std::string> modules = model::linear_modules(config);
  for (const std::string& module : modules) contents.linear_weights += weights_of(module, config);
  contents.parameters = contents.linear_weights;
  for (const std::string& name : files.tensor_names()) {
    const checkpoint::TensorHeader view = files.header(name);
    const auto [module, part] = split_name(name);
    const bool linear = std::find(modules.begin(), modules.end(), module) != modules.end();
    const int64_t bytes = static_cast<int64_t>(view.bytes);
    Share& share = contents.kinds[kind_of(name, view, scheme, linear)];
    ++share.tensors;
    share.bytes += bytes;
    contents.total_bytes += bytes;
    if (linear && part != "bias") contents.linear_bytes += bytes;
    if ((!linear && module != "lm_head" && module != model::kStreamBasis && part == "weight") ||
        part == "bias")
      contents.parameters += view.shape.elements();
  }
  const bool own_head =
      scheme.find("lm_head") != nullptr || (files.has("lm_head.weight") && !config.tied_embeddings);
  if (own_head) contents.parameters += int64_t{config.vocabulary} * config.hidden;
  return contents;
}

// Layers that share one description.
struct LayerRange {
  int first = 0;
  int last = 0;
  std::vector<std::pair<std::string, std::string>> formats;  // modules, words
  std::string kv;
};

// Module names below the layer, experts collapsed, by the words of their formats.
std::vector<std::pair<std::string, std::string>> layer_formats(const checkpoint::ModelFiles& files,
                                                               const model::ModelConfig& config,
                                                               const model::Scheme& scheme,
                                                               int layer) {
  std::vector<std::pair<std::string, std::string>> result;
  const std::string prefix = model::module_name(layer, "");
  for (const std::string& module : model::linear_modules(config)) {
    if (module.rfind(prefix, 0) != 0) continue;
    const FormatWords words = linear_words(files, scheme, module);
    std::string line = fmt::format("weights {}, inputs {}", words.weights, words.inputs);
    const std::string below = module.substr(module.rfind('.') + 1);
    auto found = std::find_if(result.begin(), result.end(),
                              [&](const auto& entry) { return entry.second == line; });
    if (found == result.end()) {
      result.emplace_back(below, std::move(line));
    } else if ((" " + found->first + " ").find(" " + below + " ") == std::string::npos) {
      found->first += " " + below;
    }
  }
  return result;
}

std::vector<LayerRange> layer_ranges(const checkpoint::ModelFiles& files,
                                     const model::ModelConfig& config,
                                     const model::Scheme& scheme) {
  std::vector<LayerRange> ranges;
  for (int layer = 0; layer < config.layers; ++layer) {
    auto formats = layer_formats(files, config, scheme, layer);
    const bool open = scheme.open_page && format::has_int4_side(scheme.kv[layer]);
    const std::string kv =
        std::string(format::name(scheme.kv[layer])) + (open ? ", the page being filled int8" : "");
    if (!ranges.empty() && ranges.back().formats == formats && ranges.back().kv == kv)
      ranges.back().last = layer;
    else
      ranges.push_back({layer, layer, std::move(formats), kv});
  }
  return ranges;
}

int64_t kv_bytes_per_token(const model::ModelConfig& config, const model::Scheme& scheme) {
  int64_t bytes = 0;
  for (const format::KvKind kind : scheme.kv) {
    const format::KvLayout layout = {
        .kind = kind, .kv_heads = config.kv_heads, .head_dim = config.head_dim};
    bytes += layout.page_bytes() / layout.tokens;
  }
  return bytes;
}

// Of the tokenizer: ids and BOS, or why there is none.
Json tokenizer_json(const checkpoint::ModelFiles& files) {
  try {
    const std::optional<text::Tokenizer> tokenizer = find_tokenizer(files);
    if (!tokenizer) return nullptr;
    Json json = {{"ids", tokenizer->vocab_size()}, {"bos_id", nullptr}};
    if (tokenizer->bos_id()) json["bos_id"] = *tokenizer->bos_id();
    return json;
  } catch (const Error& error) {
    return {{"error", error.what()}};
  }
}

std::string tokenizer_text(const Json& json, const model::ModelConfig& config) {
  if (json.is_null()) return "none (no tokenizer.json, tokenizer.model, vocab.json or vocab.txt)";
  if (json.contains("error")) return json["error"].get<std::string>();
  std::string text = fmt::format("{} ids", json["ids"].get<int64_t>());
  if (!json["bos_id"].is_null()) text += fmt::format(", BOS {}", json["bos_id"].get<int64_t>());
  const int64_t ids = json["ids"].get<int64_t>();
  if (ids > config.vocabulary)
    text += fmt::format("; more than the model's vocabulary of {}", config.vocabulary);
  return text;
}

// What the quantizer noted beside the weights, or why it cannot be read; null when there is none.
Json provenance_json(const checkpoint::ModelFiles& files) {
  const std::filesystem::path path = files.folder() / "atom_provenance.json";
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return nullptr;
  try {
    return parse_json(read_file(path, 1 << 20), {.source = path.string()});
  } catch (const Error& error) {
    return {{"error", error.what()}};
  }
}

// Of one field, without the quotes of a string; "?" when it is missing.
std::string word_of(const Json& object, const char* key) {
  if (!object.is_object() || !object.contains(key)) return "?";
  const Json& value = object[key];
  if (value.is_string()) return value.get<std::string>();
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::vector<Fact> provenance_facts(const Json& provenance) {
  if (provenance.is_null()) return {};
  if (!provenance.is_object()) return {{"made by", "atom_provenance.json holds no object"}};
  if (provenance.contains("error")) return {{"made by", word_of(provenance, "error")}};
  const Json none = Json::object();
  const Json& recipe = provenance.contains("recipe") ? provenance["recipe"] : none;
  const Json& text = provenance.contains("calibration") ? provenance["calibration"] : none;
  std::vector<Fact> facts = {
      {"made by", word_of(provenance, "producer") + " " + word_of(provenance, "version")}};
  // mxfp4 and nvfp4 name no group.
  const std::string group =
      recipe.contains("group") ? ", group " + word_of(recipe, "group") : std::string();
  facts.push_back(
      {"recipe", fmt::format("{}, method {}, rounding {}{}, kept {} {}", word_of(recipe, "preset"),
                             word_of(recipe, "method"), word_of(recipe, "rounding"), group,
                             word_of(recipe, "kept"), word_of(recipe, "kept_format"))});
  facts.push_back({"calibration", fmt::format("{} windows of {}, seed {}, sha256 {}",
                                              word_of(text, "samples"), word_of(text, "sequence"),
                                              word_of(text, "seed"), word_of(text, "sha256"))});
  return facts;
}

struct Inspection {
  std::string folder;
  std::string packed_note;  // of linears that another program quantized
  model::ModelConfig config;
  model::Scheme scheme;
  Contents contents;
  std::vector<LayerRange> ranges;
  Json tokenizer;
  Json provenance;
  double bits_per_weight() const {
    return 8.0 * static_cast<double>(contents.linear_bytes) /
           static_cast<double>(contents.linear_weights);
  }
};

void print_inspection(const Inspection& it) {
  const model::ModelConfig& config = it.config;
  print_heading(it.folder);
  std::vector<Fact> facts = {
      {"architecture", std::string(config.family->architecture)},
      {"layers", fmt::format("{} of hidden {}, intermediate {}", config.layers, config.hidden,
                             config.intermediate)},
      {"attention",
       fmt::format("{} heads of {}, {} KV heads", config.heads, config.head_dim, config.kv_heads)},
      {"vocabulary", fmt::format("{}{}", config.vocabulary,
                                 config.tied_embeddings ? ", embedding and head tied" : "")},
      {"positions", fmt::format("{}, RoPE theta {}", config.max_positions, config.rope_theta)}};
  if (config.mixture())
    facts.push_back(
        {"experts", fmt::format("{}, {} a token", config.experts, config.experts_per_token)});
  if (!it.packed_note.empty()) facts.push_back({"stored as", it.packed_note});
  facts.push_back({"parameters", human_count(it.contents.parameters)});
  facts.push_back(
      {"size", fmt::format("{} of tensors, {:.3f} bits per weight in linears",
                           human_bytes(it.contents.total_bytes), it.bits_per_weight())});
  facts.push_back(
      {"KV-cache", fmt::format("{} a token", human_bytes(kv_bytes_per_token(config, it.scheme)))});
  facts.push_back({"tokenizer", tokenizer_text(it.tokenizer, config)});
  for (const LayerRange& range : it.ranges) {
    const std::string name = range.first == range.last
                                 ? fmt::format("layer {}", range.first)
                                 : fmt::format("layers {}-{}", range.first, range.last);
    const bool uniform = range.formats.size() == 1;
    for (size_t i = 0; i < range.formats.size(); ++i)
      facts.push_back(
          {i == 0 ? name : "", uniform ? range.formats[i].second
                                       : range.formats[i].first + ": " + range.formats[i].second});
    facts.push_back({"", "KV-cache " + range.kv});
  }
  for (Fact& fact : provenance_facts(it.provenance)) facts.push_back(std::move(fact));
  print_facts(facts);
  fmt::print("\n");
  Table table = {.header = {"tensors", "count", "bytes", "share"}};
  for (const auto& [kind, share] : it.contents.kinds)
    table.rows.push_back(
        {kind, std::to_string(share.tensors), human_bytes(share.bytes),
         fmt::format("{:.1f} %", 100.0 * static_cast<double>(share.bytes) /
                                     static_cast<double>(it.contents.total_bytes))});
  print_table(table);
}

Json inspection_json(const Inspection& it) {
  const model::ModelConfig& config = it.config;
  Json kinds = Json::array();
  for (const auto& [kind, share] : it.contents.kinds)
    kinds.push_back({{"kind", kind}, {"tensors", share.tensors}, {"bytes", share.bytes}});
  Json layers = Json::array();
  for (const LayerRange& range : it.ranges) {
    Json formats = Json::array();
    for (const auto& [modules, words] : range.formats)
      formats.push_back({{"modules", modules}, {"formats", words}});
    layers.push_back({{"first", range.first},
                      {"last", range.last},
                      {"formats", std::move(formats)},
                      {"kv", range.kv}});
  }
  return {{"model", it.folder},
          {"architecture", config.family->architecture},
          {"layers", config.layers},
          {"hidden", config.hidden},
          {"intermediate", config.intermediate},
          {"heads", config.heads},
          {"kv_heads", config.kv_heads},
          {"head_dim", config.head_dim},
          {"vocabulary", config.vocabulary},
          {"max_positions", config.max_positions},
          {"rope_theta", config.rope_theta},
          {"tied_embeddings", config.tied_embeddings},
          {"experts", config.experts},
          {"experts_per_token", config.experts_per_token},
          {"parameters", it.contents.parameters},
          {"quantized", it.scheme.quantized},
          {"stored_as", it.packed_note.empty() ? Json(nullptr) : Json(it.packed_note)},
          {"bytes", it.contents.total_bytes},
          {"bits_per_weight", it.bits_per_weight()},
          {"tensors", std::move(kinds)},
          {"kv_bytes_per_token", kv_bytes_per_token(config, it.scheme)},
          {"layer_formats", std::move(layers)},
          {"tokenizer", it.tokenizer},
          {"provenance", it.provenance}};
}

int run(const Options& options) {
  start(options.common);
  const checkpoint::ModelFiles files = open_model(options.model);
  Inspection it = {
      .folder = options.model, .packed_note = files.packed_note(), .config = load_config(files)};
  it.scheme = load_scheme(files, it.config);
  it.contents = read_contents(files, it.config, it.scheme);
  it.ranges = layer_ranges(files, it.config, it.scheme);
  it.tokenizer = tokenizer_json(files);
  it.provenance = provenance_json(files);
  if (options.common.json)
    print_json(inspection_json(it));
  else
    print_inspection(it);
  return kSuccess;
}

}  // namespace

void add(Program& program) {
  CLI::App& verb = add_verb(
      program.app(),
      {.name = "inspect",
       .text = "Show what a model folder holds",
       .footer =
           "Reads headers only, so it is quick for a model of any size. Bits per weight count "
           "codes "
           "and\n"
           "scales of the quantizable linears.\n"
           "\n"
           "JSON keys: model, architecture, layers, hidden, intermediate, heads, kv_heads, "
           "head_dim,\n"
           "vocabulary, max_positions, rope_theta, tied_embeddings, experts, experts_per_token,\n"
           "parameters, quantized, stored_as, bytes, bits_per_weight, tensors [{kind, tensors, "
           "bytes}],\n"
           "kv_bytes_per_token, layer_formats [{first, last, formats [{modules, formats}], kv}],\n"
           "tokenizer {ids, bos_id}, provenance (atom_provenance.json)"});
  const auto options = std::make_shared<Options>();
  argument(verb, "MODEL", options->model,
           "Model folder, plain or quantized, GGUF file, or org/name in\nthe Hugging Face cache");
  add_output_options(verb, options->common);
  on_run(program, verb, [options] { return run(*options); });
}

}  // namespace atom::app::inspect
