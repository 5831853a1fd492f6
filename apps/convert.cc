// atom convert: a model folder to a GGUF file, and back.
#include <algorithm>
#include <cstdlib>

#include "checkpoint/hub_cache.h"
#include "console.h"
#include "convert/to_folder.h"
#include "convert/to_gguf.h"
#include "model/open_files.h"
#include "session.h"
#include "verbs.h"

namespace atom::app::convert {
namespace {

struct Options {
  CommonOptions common;
  std::string model;
  std::string output;
  std::string type;
};

void show(const atom::convert::ConvertProgress& state) {
  check_interrupted();
  const double done =
      state.total > 0 ? static_cast<double>(state.done) / static_cast<double>(state.total) : 1;
  console().progress(fmt::format("convert   {} {} of {}  {}", progress_bar(done),
                                 human_bytes(static_cast<int64_t>(state.done)),
                                 human_bytes(static_cast<int64_t>(state.total)), state.tensor));
}

std::string upper(std::string word) {
  std::transform(word.begin(), word.end(), word.begin(),
                 [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; });
  return word;
}

atom::convert::ConvertReport write_gguf(const Options& options,
                                        const std::filesystem::path& folder) {
  if (!options.output.ends_with(".gguf"))
    usage_fail("OUTPUT: {} must end in .gguf, because the model is a folder", options.output);
  const checkpoint::ModelFiles files = model::open_files(folder);
  const std::optional<text::Tokenizer> tokenizer =
      find_tokenizer(files) ? std::optional(load_tokenizer(files, load_config(files)))
                            : std::nullopt;
  if (!tokenizer) console().notice("the folder has no tokenizer, and neither has the file");
  return atom::convert::to_gguf({.folder = folder,
                                 .output = options.output,
                                 .type = options.type.empty() ? "F16" : upper(options.type),
                                 .tokenizer = tokenizer ? &*tokenizer : nullptr,
                                 .progress = show});
}

int run(const Options& options) {
  start(options.common);
  catch_signals();
  const Stopwatch watch;
  const std::filesystem::path model =
      checkpoint::find_model(options.model, checkpoint::hub_cache_folder(std::getenv));
  const bool from_file = model.extension() == ".gguf" && !std::filesystem::is_directory(model);
  if (from_file && options.type == "q8_0")
    usage_fail("--type: q8_0 is a type of GGUF files, but the output is a folder");
  const atom::convert::ConvertReport report =
      from_file ? atom::convert::to_folder({.file = model,
                                            .output = options.output,
                                            .type = upper(options.type),
                                            .progress = show})
                : write_gguf(options, model);
  console().end_progress();
  if (!report.as_f16.empty())
    console().notice(fmt::format("{} tensors are F16, because their rows are no blocks of 32: {}{}",
                                 report.as_f16.size(), report.as_f16.front(),
                                 report.as_f16.size() > 1 ? ", ..." : ""));
  if (options.common.json) {
    print_json({{"model", options.model},
                {"output", options.output},
                {"tensors", report.tensors},
                {"output_bytes", report.bytes},
                {"as_f16", report.as_f16},
                {"seconds", watch.seconds()},
                {"peak_rss", peak_rss()}});
    return kSuccess;
  }
  print_heading(fmt::format("{} -> {}", options.model, options.output));
  print_facts({{"tensors", fmt::format("{} of {}", report.tensors,
                                       human_bytes(static_cast<int64_t>(report.bytes)))},
               {"time", human_seconds(watch.seconds())},
               {"peak memory", human_bytes(peak_rss())}});
  return kSuccess;
}

}  // namespace

void add(Program& program) {
  CLI::App& verb = add_verb(
      program.app(),
      {.name = "convert",
       .text = "Convert a model folder to a GGUF file, or back",
       .footer =
           "OUTPUT appears complete or not at all; MODEL is only read, a tensor at a time.\n"
           "\n"
           "A folder becomes one GGUF file with its tokenizer and chat template; norms, biases "
           "and\n"
           "routers are F32. Quantized folders are refused. A GGUF file (F32, F16, BF16, Q8_0,\n"
           "Q4_0) becomes a folder of safetensors with config.json and tokenizer.\n"
           "\n"
           "JSON keys: model, output, tensors, output_bytes, as_f16 (tensors whose rows are no\n"
           "blocks of Q8_0), seconds, peak_rss"});
  const auto options = std::make_shared<Options>();
  argument(verb, "MODEL", options->model,
           "Model folder, GGUF file, or org/name in\nthe Hugging Face cache");
  argument(
      verb, "OUTPUT", options->output,
      "File to make, whose name ends in .gguf, or, from a GGUF\nfile, folder to make; must not "
      "exist");
  choice_option(verb, "--type", options->type, {"f16", "bf16", "f32", "q8_0"},
                {"TYPE",
                 "Type of the matrices: f16, bf16, f32, q8_0 (GGUF only)\n[f16; from a GGUF file "
                 "its own, f16 where that is\nquantized]"});
  add_output_options(verb, options->common);
  on_run(program, verb, [options] { return run(*options); });
}

}  // namespace atom::app::convert
