// atom quantize: a checkpoint to a quantized checkpoint.
#include "quantizer/quantize.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <map>

#include "base/file.h"
#include "console.h"
#include "quantize_run.h"
#include "session.h"
#include "verbs.h"

namespace atom::app::quantize {
namespace {

struct Options {
  CommonOptions common;
  std::string input;
  std::string output;
  std::string preset;
  std::string method;
  std::string kv;
  std::string group;
  std::string head;
  std::string recipe;
  std::string calibration;
  std::optional<int> kept;
  bool search_kept = false, compatible = false, own_format = false;
  std::optional<int> sequence;
  int samples = 128;
  uint64_t seed = 0;
  bool resume = false, no_journal = false;
};

// What the options say, as a recipe's fields. `preset` is the one that counts.
Json option_fields(const Options& options, const std::string& preset) {
  const bool w4a8 = preset == "w4a8", w4a4 = preset == "w4a4", fp4 = preset == "fp4";
  const bool fixed = preset == "mxfp4" || preset == "nvfp4";
  if (options.kept.value_or(0) != 0 && !w4a4 && !w4a8 && !fp4 && !fixed)
    usage_fail("--kept: preset {} keeps no channels, only w4a8, w4a4 and those of FP4 do", preset);
  if (options.search_kept && (options.kept == 0 || (!w4a4 && !w4a8 && !fp4 && !fixed)))
    usage_fail("--search-kept: there are no kept channels to search");
  if (!options.group.empty() && !w4a4 && !w4a8 && !fp4 && preset != "w4a16")
    usage_fail("--group: preset {} has no groups to choose, only w4a16, w4a8, w4a4 and fp4 do",
               preset);
  if (options.group == "row" && (w4a8 || fp4))
    usage_fail("--group: preset {} has no group row", preset);
  Json fields = Json::object();
  if (!options.preset.empty()) fields["preset"] = options.preset;
  if (!options.method.empty()) fields["method"] = options.method;
  if (!options.kv.empty()) fields["kv"] = options.kv;
  if (options.kept) fields["kept"] = *options.kept;
  if (options.search_kept) fields["kept"] = {{"search", options.kept.value_or(128)}};
  if (!options.group.empty())
    fields["group"] = options.group == "row" ? Json("row") : Json(std::stoi(options.group));
  if (!options.head.empty()) fields["head"] = options.head;
  return fields;
}

// The file's fields, then what the command line says; both together decide what method best adds.
quantizer::Recipe make_recipe(const Options& options) {
  Json file = Json::object();
  if (!options.recipe.empty())
    file = parse_json(read_file(options.recipe, 1 << 20), {.source = options.recipe});
  const std::string source = options.recipe.empty() ? "options" : options.recipe;
  quantizer::Recipe recipe;
  if (!file.is_object()) quantizer::apply_json(recipe, file, source);  // says what it is
  if (!options.preset.empty() && file.contains("preset") && file["preset"] != Json(options.preset))
    usage_fail("--preset: {} contradicts the preset {} of {}", options.preset,
               file["preset"].dump(), options.recipe);
  Json fields = {{"preset", options.preset.empty() ? "w4a4" : options.preset}, {"method", "best"}};
  fields.update(file);
  quantizer::apply_json(recipe, fields, source);
  fields.update(option_fields(options, recipe.preset));
  quantizer::apply_json(recipe, fields, source);
  if (options.compatible && options.own_format)
    usage_fail("--own-format: contradicts --compatible");
  try {
    if (options.compatible) quantizer::make_compatible(recipe);
    if (options.own_format) quantizer::make_own_format(recipe);
  } catch (const Error& error) {
    usage_fail("--{}: {}", options.compatible ? "compatible" : "own-format", error.what());
  }
  return recipe;
}

// Rounding to nearest in the order and basis of the source looks at no text.
bool reads_calibration(const quantizer::Recipe& recipe) {
  if (recipe.transform.any()) return true;
  const bool gptq = recipe.rounding == quantizer::Rounding::kGptq;
  if (recipe.preset == "w16a16") return gptq && format::is_int4(recipe.head);
  return gptq || recipe.order == quantizer::Order::kEnergy;
}

struct ModuleError {
  std::string name;
  double error;
};

// The modules of the report with the largest relative output error, largest first.
std::vector<ModuleError> worst_modules(const Json& report, size_t count) {
  std::vector<ModuleError> modules;
  if (!report.contains("modules") || !report["modules"].is_array()) return modules;
  for (const Json& module : report["modules"])
    if (module.contains("error") && module["error"].is_number() && module.contains("name"))
      modules.push_back({module["name"].get<std::string>(), module["error"].get<double>()});
  std::sort(modules.begin(), modules.end(),
            [](const ModuleError& a, const ModuleError& b) { return a.error > b.error; });
  modules.resize(std::min(modules.size(), count));
  return modules;
}

// Calibration tokens of the experts, by their number in the layer.
struct Coverage {
  int64_t least = std::numeric_limits<int64_t>::max();
  std::string where;  // module with the least
  int64_t sum = 0;
  int modules = 0;
};
std::map<int, Coverage> expert_coverage(const Json& report) {
  std::map<int, Coverage> experts;
  constexpr std::string_view kMark = ".experts.";
  for (const Json& module : report["modules"]) {
    const std::string name = module["name"].get<std::string>();
    const size_t at = name.find(kMark);
    if (at == std::string::npos || module["tokens"].is_null()) continue;
    Coverage& expert = experts[std::atoi(name.c_str() + at + kMark.size())];
    const int64_t tokens = module["tokens"].get<int64_t>();
    if (tokens < expert.least) {
      expert.least = tokens;
      expert.where = name.substr(0, at);
    }
    expert.sum += tokens;
    ++expert.modules;
  }
  return experts;
}

// A line per expert; of many experts only those that saw the least.
void add_coverage(const Json& report, std::vector<Fact>& facts) {
  constexpr size_t kLines = 16;
  const std::map<int, Coverage> by_number = expert_coverage(report);
  std::vector<std::pair<int, Coverage>> experts(by_number.begin(), by_number.end());
  if (experts.size() > kLines) {
    std::sort(experts.begin(), experts.end(),
              [](const auto& a, const auto& b) { return a.second.least < b.second.least; });
    experts.resize(kLines);
  }
  for (size_t i = 0; i < experts.size(); ++i) {
    const auto& [number, expert] = experts[i];
    facts.push_back({i == 0 ? "experts" : "",
                     fmt::format("{}: {} calibration tokens a layer, least {} in {}", number,
                                 expert.sum / expert.modules, expert.least, expert.where)});
  }
}

void print_summary(const Options& options, const QuantizeJob& job,
                   const quantizer::QuantizeReport& report) {
  print_heading(fmt::format("{} -> {}", options.input, options.output));
  const double ratio =
      report.output_bytes > 0 ? static_cast<double>(report.input_bytes) / report.output_bytes : 0;
  std::vector<Fact> facts = {
      {"size", fmt::format("{} -> {} ({:.2f}x smaller)", human_bytes(report.input_bytes),
                           human_bytes(report.output_bytes), ratio)},
      {"bits/weight",
       fmt::format("{:.3f} in quantized linears, scales counted", report.bits_per_weight)},
      {"calibration", fmt::format("{} windows of {} tokens of {}, seed {}", job.samples,
                                  job.sequence, job.calibration->name, job.seed)},
      {"time", fmt::format("{}, of it {} calibration", human_seconds(report.seconds),
                           human_seconds(report.forward_seconds))},
      {"peak memory", human_bytes(report.peak_rss)}};
  if (report.resumed_layers > 0)
    facts.push_back({"resumed", fmt::format("{} layers were done before", report.resumed_layers)});
  const std::vector<ModuleError> worst = worst_modules(report.json, 3);
  for (size_t i = 0; i < worst.size(); ++i)
    facts.push_back({i == 0 ? "worst" : "",
                     fmt::format("{}  |dY|^2/|Y|^2 {:.2e}", worst[i].name, worst[i].error)});
  add_coverage(report.json, facts);
  for (size_t i = 0; i < report.notices.size(); ++i)
    facts.push_back({i == 0 ? "notices" : "", report.notices[i]});
  print_facts(facts);
}

int run(const Options& options) {
  start(options.common);
  catch_signals();
  if (options.resume && options.no_journal)
    usage_fail("--no-journal: --resume continues a journal");
  const quantizer::Recipe recipe = make_recipe(options);
  const checkpoint::ModelFiles files = open_model(options.input, model::Weights::kFloats);
  const model::ModelConfig config = load_config(files);
  const int sequence = window_length("--sequence", options.sequence, config);
  if (reads_calibration(recipe)) require_memory(options.samples, sequence, config);
  TokenizedText calibration;
  {
    const text::Tokenizer tokenizer = load_tokenizer(files, config);
    calibration = calibration_text(options.calibration, tokenizer);
  }
  Runtime runtime(options.common);
  const QuantizeJob job = {.input = &files,
                           .output = options.output,
                           .recipe = recipe,
                           .calibration = &calibration,
                           .samples = options.samples,
                           .sequence = sequence,
                           .seed = options.seed,
                           .journal = !options.no_journal,
                           .resume = options.resume};
  const quantizer::QuantizeReport report = run_quantize(job, runtime);
  if (options.common.json)
    print_json(report.json);
  else
    print_summary(options, job, report);
  return kSuccess;
}

void add_recipe_options(CLI::App& verb, Options& options) {
  constexpr const char* kGroup = "Recipe";
  choice_option(
      verb, "--preset", options.preset, quantizer::preset_names(),
      {"NAME",
       "Bits of weights and inputs: w16a16, w8a8, w4a16,\nw4a8, w4a4, fp4, mxfp4, nvfp4 [w4a4]",
       kGroup});
  choice_option(
      verb, "--method", options.method, quantizer::method_names(),
      {"NAME", "best: what measures best; published: the recipe of\nthe Atom paper [best]",
       kGroup});
  choice_option(verb, "--kv", options.kv, {"f16", "int8", "int4", "k8v4"},
                {"FORMAT",
                 "KV-cache: f16, int8, int4 or k8v4 (K in int8, V in\nint4) [f16 for w16a16, w8a8 "
                 "and w4a16, else int4]",
                 kGroup});
  whole_option(
      verb, "--kept", options.kept, {.min = 0, .max = 1'000'000, .multiple = 16},
      {"N", "Channels kept in int8, a multiple of 16; clamped to\nwhat a layer has [128]", kGroup});
  flag_option(verb, "--search-kept", options.search_kept,
              {"",
               "Every layer chooses by measured error which channels it\nkeeps, at the cost of "
               "--kept everywhere",
               kGroup});
  choice_option(
      verb, "--group", options.group, {"32", "64", "128", "row"},
      {"N", "Four-bit values that share a scale: 32, 64, 128 or\nrow (int4) [128]", kGroup});
  choice_option(verb, "--head", options.head, {"f16", "int8", "int4.g128"},
                {"FORMAT", "LM head: f16 (as in the source), int8, int4.g128 [f16]", kGroup});
  flag_option(
      verb, "--compatible", options.compatible,
      {"",
       "Only what transformers and vLLM read, as w8a8 and w4a16\nare unless told otherwise; "
       "else refuse",
       kGroup});
  flag_option(verb, "--own-format", options.own_format,
              {"",
               "w8a8 with the transform of down_proj's inputs: a third\nof the KL divergence, but "
               "transformers and vLLM cannot\nread it",
               kGroup});
  text_option(verb, "--recipe", options.recipe,
              {"FILE", "JSON recipe whose fields replace the preset's; options\nwin over the file",
               kGroup});
}

void add_calibration_options(CLI::App& verb, Options& options) {
  constexpr const char* kGroup = "Calibration";
  text_option(verb, "--calibration", options.calibration,
              {"FILE", "UTF-8 text [embedded: a text inside the program]", kGroup});
  whole_option(verb, "--samples", options.samples, {.min = 1, .max = 100'000},
               {"N", "Random windows of the text [128]", kGroup});
  whole_option(verb, "--sequence", options.sequence, {.min = 2, .max = 1 << 20},
               {"N", "Tokens per window [2048, or what the model takes]", kGroup});
  seed_option(verb, options.seed, {"N", "Seed of the windows [0]", kGroup});
}

}  // namespace

void add(Program& program) {
  CLI::App& verb = add_verb(
      program.app(),
      {.name = "quantize",
       .text = "Quantize a checkpoint",
       .footer =
           "OUT appears complete or not at all; IN is only read. Equal inputs, options and seed "
           "give\n"
           "equal bytes whatever the number of threads. What is done is kept in .OUT.journal, "
           "which\n"
           "takes as much room as OUT: the same command with --resume goes on after a kill or an\n"
           "error, and ends with the bytes of an undisturbed run.\n"
           "\n"
           "--json prints the report, which also lies in OUT/report.json.\n"
           "\n"
           "JSON keys: version, recipe, calibration {name, tokens, samples, sequence, seed},\n"
           "input_bytes, output_bytes, bits_per_weight, seconds, forward_seconds, peak_rss, "
           "backend,\n"
           "threads, resumed_layers, notices, modules [{name, format, kept, rounding, error, "
           "weight_error,\n"
           "tokens (of calibration that reached it)}], chosen [{kept, transform, by_error}\n"
           "of every layer, with --search-kept]"});
  const auto options = std::make_shared<Options>();
  argument(verb, "IN", options->input,
           "Hugging Face model folder with safetensors weights,\nor a GGUF file");
  argument(verb, "OUT", options->output, "Folder to make; must not exist");
  flag_option(verb, "--resume", options->resume,
              {"", "Go on where a run that did not end stopped; without one,\nbegin", "Run"});
  flag_option(verb, "--no-journal", options->no_journal,
              {"", "Keep nothing that --resume could continue", "Run"});
  add_recipe_options(verb, *options);
  add_calibration_options(verb, *options);
  add_compute_options(verb, options->common);
  add_output_options(verb, options->common);
  on_run(program, verb, [options] { return run(*options); });
}

}  // namespace atom::app::quantize
