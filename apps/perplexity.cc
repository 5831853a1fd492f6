// atom eval ppl: perplexity of a model on a text.
#include "eval/perplexity.h"

#include "console.h"
#include "session.h"
#include "verbs.h"

namespace atom::app::perplexity {
namespace {

struct Options {
  CommonOptions common;
  std::string model;
  std::string text;
  std::string kv;
  std::optional<int> context;
  int windows = 0;
};

void report(const Options& options, int context, const eval::PerplexityResult& result,
            const FormatWords& words, const backend::Backend& backend) {
  const double rate = result.seconds > 0 ? static_cast<double>(result.tokens) / result.seconds : 0;
  if (options.common.json) {
    print_json({{"model", options.model},
                {"text", options.text},
                {"formats", formats_json(words, backend)},
                {"perplexity", result.perplexity},
                {"nll", result.nll},
                {"window_nll", result.window_nll},
                {"windows", result.window_nll.size()},
                {"context", context},
                {"tokens", result.tokens},
                {"seconds", result.seconds},
                {"tokens_per_second", rate},
                {"peak_rss", peak_rss()}});
    return;
  }
  print_heading(fmt::format("perplexity {:.4f}", result.perplexity));
  print_facts({{"model", options.model},
               {"text", options.text},
               {"NLL", fmt::format("{:.6f} nats per token", result.nll)},
               {"scored", fmt::format("{} tokens in {} windows of {}", result.tokens,
                                      result.window_nll.size(), context)},
               {"weights", words.weights},
               {"inputs", words.inputs},
               {"KV-cache", words.kv},
               {"backend", backend.description()},
               {"time", fmt::format("{}, {:.0f} tokens/s", human_seconds(result.seconds), rate)}});
}

int run(const Options& options) {
  start(options.common);
  catch_signals();
  const checkpoint::ModelFiles files = open_model(options.model);
  const model::ModelConfig config = load_config(files, options.context.value_or(0));
  const text::Tokenizer tokenizer = load_tokenizer(files, config);
  const TokenizedText text = tokenize_file(options.text, tokenizer);
  const int context = window_length("--context", options.context, config);
  require_window(text, context);

  Runtime runtime(options.common);
  std::optional<format::KvKind> kv;
  if (!options.kv.empty()) kv = format::parse_kv(options.kv);
  const std::unique_ptr<model::Model> model = load_weights(files, runtime, kv, context);
  const Stopwatch clock;
  const auto progress = [&](int done, int windows, double so_far) {
    check_interrupted();
    const double elapsed = clock.seconds();
    console().progress(
        fmt::format("evaluate  {} window {}/{}  perplexity {:.3f}  {} elapsed, {} left",
                    progress_bar(static_cast<double>(done) / windows), done, windows, so_far,
                    human_seconds(elapsed), human_seconds(elapsed / done * (windows - done))));
  };
  const eval::PerplexityResult result = eval::perplexity(
      *model, text.ids, {.context = context, .max_windows = options.windows, .progress = progress});
  console().end_progress();
  runtime.show_fallbacks();
  report(options, context, result, format_words(files, config, model->scheme), runtime.backend());
  return kSuccess;
}

}  // namespace

void add(Program& program, CLI::App& parent) {
  CLI::App& verb = add_verb(
      parent,
      {.name = "ppl",
       .text = "Perplexity of a model on a text",
       .footer =
           "The file is tokenized as one text (with BOS if the tokenizer adds one) and cut into\n"
           "windows of --context tokens, the last partial one dropped; each window stands alone.\n"
           "Perplexity is exp of the mean NLL of the context - 1 predicted tokens of all windows.\n"
           "\n"
           "JSON keys: model, text, formats {weights, inputs, kv, backend}, perplexity, nll,\n"
           "window_nll, windows, context, tokens (predicted), seconds, tokens_per_second, "
           "peak_rss"});
  const auto options = std::make_shared<Options>();
  argument(verb, "MODEL", options->model,
           "Model folder, plain or quantized, GGUF file, or org/name in\nthe Hugging Face cache");
  text_option(verb, "--text", options->text, {"FILE", "UTF-8 text to score", "Options", true});
  whole_option(verb, "--context", options->context, {.min = 2, .max = 1 << 20},
               {"N", "Tokens per window [2048, or what the model takes]"});
  whole_option(verb, "--windows", options->windows, {.min = 1, .max = 1'000'000'000},
               {"N", "Only the first N windows [all]"});
  choice_option(
      verb, "--kv", options->kv, {"f32", "f16", "int8", "int4", "k8v4"},
      {"FORMAT",
       "KV-cache in f32, f16, int8, int4 or k8v4 (K in int8,\nV in int4) [the checkpoint's]"});
  add_compute_options(verb, options->common);
  add_output_options(verb, options->common);
  on_run(program, verb, [options] { return run(*options); });
}

}  // namespace atom::app::perplexity
