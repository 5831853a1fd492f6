// atom eval kld: divergence of one model from another on a text.
#include <algorithm>

#include "base/file.h"
#include "console.h"
#include "eval/divergence.h"
#include "session.h"
#include "verbs.h"

namespace atom::app::divergence {
namespace {

struct Options {
  CommonOptions common;
  std::string a;
  std::string b;
  std::string text;
  std::optional<int> context;
  int windows = 0;
};

// One of the two models.
struct Side {
  Side(const std::string& folder, int64_t positions)
      : files(open_model(folder)), config(load_config(files, positions)) {}
  std::string name() const { return files.folder().string(); }

  checkpoint::ModelFiles files;
  model::ModelConfig config;
};

void require_same_vocabulary(const Side& a, const Side& b) {
  if (a.config.vocabulary != b.config.vocabulary)
    fail("{}: the model's vocab_size is {}, but that of {} is {}", b.name(), b.config.vocabulary,
         a.name(), a.config.vocabulary);
}

int context_of(const Options& options, const Side& a, const Side& b) {
  for (const Side* side : {&a, &b})
    if (options.context && *options.context > side->config.max_positions)
      fail("--context: {} exceeds the max_position_embeddings of {}, {}", *options.context,
           side->name(), side->config.max_positions);
  return std::min(window_length("--context", options.context, a.config),
                  window_length("--context", options.context, b.config));
}

// The ids of A's tokenizer. Error: B's gives others.
TokenizedText tokenize(const Options& options, const Side& a, const Side& b) {
  const std::string bytes = read_file(options.text);
  TokenizedText text = tokenize_text(options.text, bytes, load_tokenizer(a.files, a.config));
  const std::vector<int32_t> other =
      tokenize_text(options.text, bytes, load_tokenizer(b.files, b.config)).ids;
  if (other == text.ids) return text;
  const auto [id_a, id_b] =
      std::mismatch(text.ids.begin(), text.ids.end(), other.begin(), other.end());
  const auto word = [](auto id, auto end) {
    return id == end ? "the end of the text" : fmt::format("id {}", *id);
  };
  fail("{}: the tokenizer differs from that of {}: token {} of {} is {} instead of {}", b.name(),
       a.name(), id_a - text.ids.begin(), options.text, word(id_b, other.end()),
       word(id_a, text.ids.end()));
}

Json or_null(const std::optional<double>& number) { return number ? Json(*number) : Json(nullptr); }

void report_json(const Options& options, int context, const eval::DivergenceResult& result,
                 const Json& formats_a, const Json& formats_b) {
  Json percentiles;
  for (size_t i = 0; i < eval::kKldPercents.size(); ++i)
    percentiles[fmt::format("{}", eval::kKldPercents[i])] = result.kld_percentiles[i];
  const double rate = result.seconds > 0 ? static_cast<double>(result.tokens) / result.seconds : 0;
  print_json({{"model_a", options.a},
              {"model_b", options.b},
              {"text", options.text},
              {"formats_a", formats_a},
              {"formats_b", formats_b},
              {"mean_kld", result.kld.value},
              {"mean_kld_error", or_null(result.kld.error)},
              {"percentiles", percentiles},
              {"max_kld", result.max_kld},
              {"min_kld", result.min_kld},
              {"same_top", result.same_top.value},
              {"same_top_error", or_null(result.same_top.error)},
              {"rms_dp", result.rms_dp.value},
              {"rms_dp_error", or_null(result.rms_dp.error)},
              {"mean_dp", result.mean_dp.value},
              {"mean_dp_error", or_null(result.mean_dp.error)},
              {"perplexity_a", result.perplexity_a},
              {"perplexity_b", result.perplexity_b},
              {"ln_ppl_ratio", result.ln_perplexity_ratio.value},
              {"ln_ppl_ratio_error", or_null(result.ln_perplexity_ratio.error)},
              {"window_kld", result.window_kld},
              {"windows", result.window_kld.size()},
              {"context", context},
              {"tokens", result.tokens},
              {"seconds", result.seconds},
              {"tokens_per_second", rate},
              {"peak_rss", peak_rss()}});
}

std::string words(const FormatWords& formats) {
  return fmt::format("weights {}, inputs {}, KV-cache {}", formats.weights, formats.inputs,
                     formats.kv);
}

std::vector<std::string> number_row(std::string name, const eval::Estimate& number) {
  return {std::move(name), fmt::format("{:.6f}", number.value),
          number.error ? fmt::format("{:.6f}", *number.error) : ""};
}

std::vector<std::string> percent_row(std::string name, const eval::Estimate& share) {
  return {std::move(name), fmt::format("{:.3f} %", 100 * share.value),
          share.error ? fmt::format("{:.3f} %", 100 * *share.error) : ""};
}

void print_figures(const eval::DivergenceResult& result) {
  Table table = {.header = {"figure", "value", "error"}};
  const auto plain = [&](std::string name, double value) {
    table.rows.push_back(number_row(std::move(name), {.value = value, .error = std::nullopt}));
  };
  table.rows.push_back(number_row("mean KLD", result.kld));
  for (size_t i = 0; i < eval::kKldPercents.size(); ++i) {
    const double percent = eval::kKldPercents[i];
    plain(percent == 50 ? "  median" : fmt::format("  {} %", percent), result.kld_percentiles[i]);
  }
  plain("  largest", result.max_kld);
  plain("  smallest", result.min_kld);
  table.rows.push_back(percent_row("same top token", result.same_top));
  table.rows.push_back(percent_row("RMS change of p", result.rms_dp));
  table.rows.push_back(percent_row("mean change of p", result.mean_dp));
  plain("perplexity of A", result.perplexity_a);
  plain("perplexity of B", result.perplexity_b);
  table.rows.push_back(number_row("ln(PPL B / PPL A)", result.ln_perplexity_ratio));
  print_table(table);
}

void report_text(const Options& options, int context, const eval::DivergenceResult& result,
                 const FormatWords& words_a, const FormatWords& words_b,
                 const backend::Backend& backend) {
  const double rate = result.seconds > 0 ? static_cast<double>(result.tokens) / result.seconds : 0;
  print_heading(fmt::format("mean KL divergence {:.6f} nats per token", result.kld.value));
  print_facts({{"A", options.a},
               {"", words(words_a)},
               {"B", options.b},
               {"", words(words_b)},
               {"text", options.text},
               {"compared", fmt::format("{} tokens in {} windows of {}", result.tokens,
                                        result.window_kld.size(), context)},
               {"backend", backend.description()},
               {"time", fmt::format("{}, {:.0f} tokens/s", human_seconds(result.seconds), rate)}});
  fmt::print("\n");
  print_figures(result);
}

eval::DivergenceResult compare(const model::Model& a, const model::Model& b,
                               std::span<const int32_t> ids, eval::DivergenceOptions options) {
  const Stopwatch clock;
  options.progress = [&](int done, int windows, double so_far) {
    check_interrupted();
    const double elapsed = clock.seconds();
    console().progress(
        fmt::format("compare   {} window {}/{}  mean KLD {:.5f}  {} elapsed, {} left",
                    progress_bar(static_cast<double>(done) / windows), done, windows, so_far,
                    human_seconds(elapsed), human_seconds(elapsed / done * (windows - done))));
  };
  eval::DivergenceResult result = eval::divergence(a, b, ids, options);
  console().end_progress();
  return result;
}

int run(const Options& options) {
  start(options.common);
  catch_signals();
  const int64_t positions = options.context.value_or(0);
  const Side a(options.a, positions), b(options.b, positions);
  require_same_vocabulary(a, b);
  const int context = context_of(options, a, b);
  const TokenizedText text = tokenize(options, a, b);
  require_window(text, context);

  Runtime runtime(options.common);
  const std::unique_ptr<model::Model> model_a =
      load_weights(a.files, runtime, std::nullopt, positions);
  const std::unique_ptr<model::Model> model_b =
      load_weights(b.files, runtime, std::nullopt, positions);
  const eval::DivergenceResult result = compare(
      *model_a, *model_b, text.ids,
      {.executor = &runtime.executor(), .context = context, .max_windows = options.windows});
  runtime.show_fallbacks();
  const FormatWords words_a = format_words(a.files, a.config, model_a->scheme);
  const FormatWords words_b = format_words(b.files, b.config, model_b->scheme);
  if (options.common.json)
    report_json(options, context, result, formats_json(words_a, runtime.backend()),
                formats_json(words_b, runtime.backend()));
  else
    report_text(options, context, result, words_a, words_b, runtime.backend());
  return kSuccess;
}

}  // namespace

void add(Program& program, CLI::App& parent) {
  CLI::App& verb = add_verb(
      parent,
      {.name = "kld",
       .text = "KL divergence of model B from model A on a text",
       .footer =
           "Both models run over the windows of `atom eval ppl`; per predicted token KL(A || B) "
           "is\n"
           "the divergence of B's distribution from A's in nats, and p the probability of the "
           "true\n"
           "token. Windows count as the sample: an error is the standard deviation of the "
           "windows'\n"
           "means over the root of their number, none with one window. docs/accuracy.md explains\n"
           "how to read the figures. Shares and probabilities are fractions of 1 in JSON.\n"
           "\n"
           "JSON keys: model_a, model_b, text, formats_a {weights, inputs, kv, backend}, "
           "formats_b\n"
           "{the same}, mean_kld, mean_kld_error (an error is null with one window), percentiles\n"
           "{50, 90, 95, 99, 99.9}, max_kld, min_kld, same_top, same_top_error, rms_dp,\n"
           "rms_dp_error, mean_dp (p of B less p of A), mean_dp_error, perplexity_a, "
           "perplexity_b,\n"
           "ln_ppl_ratio (B over A), ln_ppl_ratio_error (of paired differences), window_kld "
           "(means),\n"
           "windows, context, tokens (predicted), seconds, tokens_per_second, peak_rss"});
  const auto options = std::make_shared<Options>();
  argument(verb, "A", options->a, "Model folder to compare with, usually the 16-bit source");
  argument(verb, "B", options->b, "Model folder that is compared, usually quantized");
  text_option(verb, "--text", options->text, {"FILE", "UTF-8 text to run over", "Options", true});
  whole_option(verb, "--context", options->context, {.min = 2, .max = 1 << 20},
               {"N", "Tokens per window [2048, or what both models take]"});
  whole_option(verb, "--windows", options->windows, {.min = 1, .max = 1'000'000'000},
               {"N", "Only the first N windows [all]"});
  add_compute_options(verb, options->common);
  add_output_options(verb, options->common);
  on_run(program, verb, [options] { return run(*options); });
}

}  // namespace atom::app::divergence
