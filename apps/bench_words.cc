#include "bench_words.h"

#include <algorithm>
#include <array>

#include "quantizer/recipe.h"

namespace atom::app {
namespace {

struct PublicShape {
  const char* name;
  int hidden, intermediate, layers, heads, kv_heads, vocabulary, experts, chosen;
};

// head_dim is hidden / heads in all of them.
constexpr std::array kShapes = {
    PublicShape{"llama-7b", 4096, 11008, 32, 32, 32, 32000, 1, 1},
    PublicShape{"llama-13b", 5120, 13824, 40, 40, 40, 32000, 1, 1},
    PublicShape{"llama-30b", 6656, 17920, 60, 52, 52, 32000, 1, 1},
    PublicShape{"llama-65b", 8192, 22016, 80, 64, 64, 32000, 1, 1},
    PublicShape{"llama2-70b", 8192, 28672, 80, 64, 8, 32000, 1, 1},
    PublicShape{"llama3-8b", 4096, 14336, 32, 32, 8, 128256, 1, 1},
    PublicShape{"mixtral-8x7b", 4096, 14336, 32, 32, 8, 32000, 8, 2},
    PublicShape{"qwen2-7b", 3584, 18944, 28, 28, 4, 152064, 1, 1},
};

model::ModelConfig config_of(const PublicShape& shape) {
  model::ModelConfig config;
  config.family = &model::find_family(shape.experts > 1 ? "MixtralForCausalLM" : "LlamaForCausalLM",
                                      shape.name);
  config.vocabulary = shape.vocabulary;
  config.hidden = shape.hidden;
  config.intermediate = shape.intermediate;
  config.layers = shape.layers;
  config.heads = shape.heads;
  config.kv_heads = shape.kv_heads;
  config.head_dim = shape.hidden / shape.heads;
  config.max_positions = 1 << 20;
  config.norm_epsilon = 1e-5f;
  config.rope_theta = 10000;
  config.experts = shape.experts;
  config.experts_per_token = shape.chosen;
  return config;
}

NamedShape shape_of(const std::string& option, const std::string& word) {
  for (const PublicShape& shape : kShapes)
    if (word == shape.name) return {word, config_of(shape)};
  const size_t cross = word.find('x');
  const auto is_number = [](std::string_view text) {
    return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
  };
  if (cross == std::string::npos || !is_number(word.substr(0, cross)) ||
      !is_number(word.substr(cross + 1)))
    usage_fail("{}: '{}' is not one of {}, or HIDDENxINTERMEDIATE", option, word,
               joined(shape_names()));
  const WholeRange range = {.min = 64, .max = 1 << 17, .multiple = 64};
  PublicShape shape{word.c_str(), 0, 0, 32, 0, 0, 32000, 1, 1};
  shape.hidden = static_cast<int>(parse_whole(option, word.substr(0, cross), range));
  shape.intermediate = static_cast<int>(parse_whole(option, word.substr(cross + 1), range));
  shape.heads = shape.kv_heads = shape.hidden / (shape.hidden % 128 == 0 ? 128 : 64);
  return {word, config_of(shape)};
}

}  // namespace

std::vector<std::string> word_list(const std::string& option, const std::string& text) {
  std::vector<std::string> words;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    words.push_back(text.substr(begin, end - begin));
    if (words.back().empty()) usage_fail("{}: '{}' has an empty word", option, text);
    begin = end + 1;
  }
  return words;
}

std::vector<int> whole_list(const std::string& option, const std::string& text,
                            const WholeRange& range) {
  std::vector<int> numbers;
  for (const std::string& word : word_list(option, text))
    numbers.push_back(static_cast<int>(parse_whole(option, word, range)));
  return numbers;
}

std::vector<std::string> choice_list(const std::string& option, const std::string& text,
                                     const std::vector<std::string>& known) {
  std::vector<std::string> words = word_list(option, text);
  for (const std::string& word : words)
    if (std::find(known.begin(), known.end(), word) == known.end())
      usage_fail("{}: '{}' is not one of {}", option, word, joined(known));
  return words;
}

std::vector<std::string> shape_names() {
  std::vector<std::string> names;
  for (const PublicShape& shape : kShapes) names.emplace_back(shape.name);
  return names;
}

std::vector<NamedShape> shape_list(const std::string& option, const std::string& text) {
  std::vector<NamedShape> shapes;
  for (const std::string& word : word_list(option, text)) shapes.push_back(shape_of(option, word));
  return shapes;
}

std::vector<std::string> bench_presets() {
  std::vector<std::string> names = quantizer::preset_names();
  names.insert(names.begin(), "fp");
  return names;
}

model::Scheme bench_scheme(const std::string& preset, const std::string& method,
                           const std::string& kv, const model::ModelConfig& config) {
  Json fields = {{"preset", preset == "fp" ? "w16a16" : preset}, {"method", method}};
  if (!kv.empty()) fields["kv"] = kv;
  quantizer::Recipe recipe;
  quantizer::apply_json(recipe, fields, "options");
  std::vector<std::string> notices;
  return quantizer::to_scheme(recipe, config, notices);
}

std::string kv_word(const model::Scheme& scheme) {
  const format::KvKind kind = scheme.kv.front();
  const bool open = scheme.open_page && format::has_int4_side(kind);
  return std::string(format::name(kind)) + (open ? ", open page" : "");
}

void add_bench_options(CLI::App& verb, BenchOptions& options) {
  text_option(verb, "--shapes", options.shapes,
              {"LIST", "Of " + joined(shape_names()) +
                           ",\nor HIDDENxINTERMEDIATE [llama-7b; ops on a GPU: and llama2-70b]"});
  choice_option(
      verb, "--method", options.method, {"best", "published"},
      {"NAME", "best or published: transforms and open pages as\nquantize gives them [best]"});
  whole_option(verb, "--rounds", options.rounds, {.min = 1, .max = 1000},
               {"N", "Rounds; the best counts [5]"});
  number_option(verb, "--sustained", options.sustained, {.min = 0, .max = 600},
                {"SECONDS", "Load before each measurement [0]"});
}

Json ceilings_json(const backend::Ceilings& ceilings) {
  return {{"read_bytes_per_second", ceilings.read_bytes},
          {"copy_bytes_per_second", ceilings.copy_bytes},
          {"operations_per_second_16", ceilings.operations16},
          {"operations_per_second_8", ceilings.operations8},
          {"origin", ceilings.origin}};
}

std::string ceilings_words(const backend::Ceilings& ceilings) {
  if (ceilings.read_bytes == 0) return "unknown";
  std::string text = fmt::format("{:.2f} GB/s read", ceilings.read_bytes / 1e9);
  if (ceilings.operations16 > 0)
    text += fmt::format(", {:.0f} TFLOPS in 16 bits, {:.0f} TOPS in 8",
                        ceilings.operations16 / 1e12, ceilings.operations8 / 1e12);
  return text + " (" + ceilings.origin + ")";
}

}  // namespace atom::app
