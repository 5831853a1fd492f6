// atom generate: text that continues a prompt.
#include "engine/generate.h"

#include <algorithm>

#include "base/file.h"
#include "console.h"
#include "model/generation_config.h"
#include "session.h"
#include "text/stream_decoder.h"
#include "text/unicode.h"
#include "verbs.h"

namespace atom::app::generate {
namespace {

constexpr int kMaxTokens = 128;

struct Options {
  CommonOptions common;
  std::string model;
  std::string prompt;
  std::string prompt_file;
  std::string kv;
  std::optional<int> max_tokens;
  std::optional<double> temperature;
  std::optional<double> top_p;
  std::optional<int> top_k;
  uint64_t seed = 0;
  bool ignore_eos = false;
};

std::string read_prompt(const Options& options) {
  if (options.prompt_file.empty()) {
    if (options.prompt.empty()) usage_fail("--prompt: the prompt is empty");
    if (!text::is_valid_utf8(options.prompt)) usage_fail("--prompt: the prompt is not UTF-8");
    return options.prompt;
  }
  constexpr uint64_t kMostPromptBytes = 64 << 20;  // the longest context takes a tenth
  std::string prompt = read_file(options.prompt_file, kMostPromptBytes);
  if (!text::is_valid_utf8(prompt)) fail("{}: the prompt is not UTF-8", options.prompt_file);
  if (prompt.empty()) fail("{}: the prompt is empty", options.prompt_file);
  return prompt;
}

// Sampling of generation_config.json, then of the command line. Like other servers, the file's
// temperature, top_k, top_p and min_p are defaults; do_sample is not looked at.
engine::GenerateOptions sampling(const Options& options, const checkpoint::ModelFiles& files,
                                 int vocabulary) {
  engine::GenerateOptions result;
  result.seed = options.seed;
  result.ignore_eos = options.ignore_eos;
  if (files.generation_config()) {
    const model::GenerationConfig config =
        model::parse_generation_config(*files.generation_config(), vocabulary,
                                       (files.folder() / "generation_config.json").string());
    result.temperature = config.temperature.value_or(result.temperature);
    result.top_p = config.top_p.value_or(result.top_p);
    result.top_k = config.top_k.value_or(result.top_k);
    result.min_p = config.min_p.value_or(result.min_p);
    result.eos_ids = config.eos_ids;
  }
  if (options.temperature) result.temperature = static_cast<float>(*options.temperature);
  if (options.top_p) result.top_p = static_cast<float>(*options.top_p);
  if (options.top_k) result.top_k = *options.top_k;
  return result;
}

// Text of new tokens as it grows, spaced as it continues the prompt.
class Continuation {
 public:
  Continuation(const text::Tokenizer& tokenizer, std::span<const int32_t> prompt)
      : stream_(tokenizer) {
    size_t shown = 0;
    for (const int32_t id : prompt) shown += stream_.push(id).size();
    const size_t whole = tokenizer.decode(prompt).size();
    held_ = whole > shown ? whole - shown : 0;
  }
  std::string push(int32_t id) { return without_prompt(stream_.push(id)); }
  std::string flush() { return without_prompt(stream_.flush()); }

 private:
  std::string without_prompt(std::string piece) {
    const size_t cut = std::min(held_, piece.size());
    held_ -= cut;
    return piece.substr(cut);
  }

  text::StreamDecoder stream_;
  size_t held_ = 0;  // bytes of the prompt that the stream has not given yet
};

struct Outcome {
  std::string text;
  engine::GenerateResult result;
};

Outcome stream_text(const Options& options, const model::Model& model,
                    const text::Tokenizer& tokenizer, std::span<const int32_t> prompt,
                    engine::GenerateOptions sampling) {
  Outcome outcome;
  Continuation continuation(tokenizer, prompt);
  const auto show = [&](const std::string& piece) {
    outcome.text += piece;
    if (options.common.json) return;
    fmt::print("{}", console().out_is_terminal() ? printable_lines(piece) : piece);
    if (std::fflush(stdout) != 0) fail("cannot write to the standard output");
  };
  sampling.on_prompt = [](int) { return !interrupted(); };
  sampling.on_token = [&](int32_t id) {
    show(continuation.push(id));
    return !interrupted();
  };
  outcome.result = engine::generate(model, prompt, sampling);
  show(continuation.flush());
  if (!options.common.json) fmt::print("\n");
  return outcome;
}

double rate(size_t tokens, double seconds) {
  return seconds > 0 ? static_cast<double>(tokens) / seconds : 0;
}

int run(const Options& options) {
  start(options.common);
  catch_signals();
  const std::string prompt = read_prompt(options);
  const checkpoint::ModelFiles files = open_model(options.model);
  model::ModelConfig config = load_config(files);
  const text::Tokenizer tokenizer = load_tokenizer(files, config);
  const std::vector<int32_t> ids = tokenizer.encode(prompt);
  engine::GenerateOptions settings = sampling(options, files, config.vocabulary);
  const auto length = static_cast<int64_t>(ids.size()) + options.max_tokens.value_or(1);
  extend_config(config, length);
  const int room = config.max_positions - static_cast<int>(std::min<size_t>(ids.size(), INT32_MAX));
  settings.max_tokens = options.max_tokens.value_or(std::clamp(room, 1, kMaxTokens));

  Runtime runtime(options.common);
  std::optional<format::KvKind> kv;
  if (!options.kv.empty()) kv = format::parse_kv(options.kv);
  const std::unique_ptr<model::Model> model = load_weights(files, runtime, kv, length);
  if (console().out_is_terminal() && !options.common.json)
    fmt::print("{}", console().paint_out(Style::kDim, printable_lines(prompt)));
  const Outcome outcome = stream_text(options, *model, tokenizer, ids, settings);
  const engine::GenerateResult& result = outcome.result;
  const double prefill = rate(ids.size(), result.prefill_seconds);
  const double decode = rate(result.ids.size(), result.decode_seconds);
  if (options.common.json)
    print_json(
        {{"model", options.model},
         {"formats", formats_json(format_words(files, config, model->scheme), runtime.backend())},
         {"prompt", prompt},
         {"text", outcome.text},
         {"ids", result.ids},
         {"finish_reason", result.finish_reason},
         {"prompt_tokens", ids.size()},
         {"tokens", result.ids.size()},
         {"temperature", settings.temperature},
         {"top_k", settings.top_k},
         {"top_p", settings.top_p},
         {"seed", settings.seed},
         {"prefill_seconds", result.prefill_seconds},
         {"decode_seconds", result.decode_seconds},
         {"prefill_tokens_per_second", prefill},
         {"decode_tokens_per_second", decode},
         {"peak_rss", peak_rss()}});
  runtime.show_fallbacks();
  console().notice(fmt::format("{} prompt tokens at {:.0f} tok/s, {} new at {:.1f} tok/s, {} ({})",
                               ids.size(), prefill, result.ids.size(), decode,
                               human_bytes(peak_rss()), result.finish_reason));
  check_interrupted();
  return kSuccess;
}

}  // namespace

void add(Program& program) {
  CLI::App& verb = add_verb(
      program.app(),
      {.name = "generate",
       .text = "Continue a prompt",
       .footer = "The text goes to stdout as it comes (on a terminal after the prompt), a line of "
                 "statistics\n"
                 "to stderr. Ctrl-C ends the text cleanly. Equal seeds give equal texts.\n"
                 "\n"
                 "JSON keys: model, formats, prompt, text, ids, finish_reason (stop, length, "
                 "cancelled),\n"
                 "prompt_tokens, tokens, temperature, top_k, top_p, seed, prefill_seconds, "
                 "decode_seconds,\n"
                 "prefill_tokens_per_second, decode_tokens_per_second, peak_rss"});
  const auto options = std::make_shared<Options>();
  argument(verb, "MODEL", options->model,
           "Model folder, plain or quantized, GGUF file, or org/name in\nthe Hugging Face cache");
  CLI::Option* prompt =
      text_option(verb, "-p,--prompt", options->prompt, {"TEXT", "Text to continue, UTF-8"});
  CLI::Option* file =
      text_option(verb, "--prompt-file", options->prompt_file, {"FILE", "The same from a file"});
  require_one_of(verb, {prompt, &options->prompt}, {file, &options->prompt_file});
  whole_option(verb, "-n,--max-tokens", options->max_tokens, {.min = 1, .max = 1 << 20},
               {"N", "New tokens at most [128]"});
  constexpr const char* kGroup = "Sampling (defaults: generation_config.json of the model)";
  number_option(verb, "--temperature", options->temperature, {.min = 0, .max = 100},
                {"T", "0 takes the most likely token [0.8]", kGroup});
  whole_option(verb, "--top-k", options->top_k, {.min = 0},
               {"K", "Only the K most likely tokens [0: all]", kGroup});
  number_option(verb, "--top-p", options->top_p, {.min = 0, .max = 1, .min_excluded = true},
                {"P", "Only the most likely tokens of mass P [1]", kGroup});
  seed_option(verb, options->seed, {"N", "Seed of the draws [0]", kGroup});
  flag_option(verb, "--ignore-eos", options->ignore_eos,
              {"", "Go on after an end-of-text token", kGroup});
  choice_option(
      verb, "--kv", options->kv, {"f32", "f16", "int8", "int4", "k8v4"},
      {"FORMAT",
       "KV-cache in f32, f16, int8, int4 or k8v4 (K in int8,\nV in int4) [the checkpoint's]"});
  add_compute_options(verb, options->common);
  add_output_options(verb, options->common);
  on_run(program, verb, [options] { return run(*options); });
}

}  // namespace atom::app::generate
