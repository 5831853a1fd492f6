// atom eval ablation: what each step of the methods buys, as one table.
#include <stdlib.h>

#include <cmath>

#include "ablation_steps.h"
#include "console.h"
#include "eval/divergence.h"
#include "eval/perplexity.h"
#include "quantize_run.h"
#include "session.h"
#include "verbs.h"

namespace atom::app::ablation {
namespace {

struct Options {
  CommonOptions common;
  std::string model;
  std::vector<std::string> texts;
  std::string calibration;
  std::string steps = "all";
  bool kld = false;
  int windows = 0;
  int samples = 128;
  int kept = 128;
  std::optional<int> context;
  std::optional<int> sequence;
  uint64_t seed = 0;
};

// A folder for the quantized models, removed at the end.
class WorkFolder {
 public:
  WorkFolder() {
    // mkdtemp replaces its last six letters.
    const std::string pattern(6, 'X');
    std::string name =
        (std::filesystem::temp_directory_path() / ("atom-ablation-" + pattern)).string();
    if (::mkdtemp(name.data()) == nullptr) fail("{}: cannot make a temporary folder", name);
    path_ = name;
  }
  ~WorkFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  WorkFolder(const WorkFolder&) = delete;
  WorkFolder& operator=(const WorkFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

struct Row {
  std::string name;
  std::vector<double> perplexity;  // per text
  std::vector<double> kld;         // from the source, per text; empty: not asked for
  double bits_per_weight = 16;
  double seconds = 0;  // quantization
};

std::string perplexity_text(double value) {
  return value < 1e5 ? fmt::format("{:.4f}", value) : fmt::format("{:.3e}", value);
}

// The models of the steps, one after the other, scored on all texts.
class Ablation {
 public:
  explicit Ablation(const Options& options)
      : options_(options),
        files_(open_model(options.model, model::Weights::kFloats)),
        config_(load_config(files_)),
        steps_(ablation_steps(options.steps)),
        context_(window_length("--context", options.context, config_)),
        sequence_(window_length("--sequence", options.sequence, config_)) {
    require_memory(options.samples, sequence_, config_);
    const text::Tokenizer tokenizer = load_tokenizer(files_, config_);
    for (const std::string& path : options.texts) {
      texts_.push_back(tokenize_file(path, tokenizer));
      require_window(texts_.back(), context_);
    }
    calibration_ = calibration_text(options.calibration, tokenizer);
  }

  std::vector<Row> run(Runtime& runtime) {
    std::vector<Row> rows;
    rows.push_back(source_row(runtime));
    quantizer::Recipe recipe;
    for (size_t i = 0; i < steps_.size(); ++i) {
      steps_[i].change(recipe, options_.kept);
      rows.push_back(step_row(runtime, recipe, i));
    }
    return rows;
  }

  int context() const { return context_; }
  int sequence() const { return sequence_; }
  const TokenizedText& calibration() const { return calibration_; }

 private:
  Row source_row(Runtime& runtime) {
    Row row = {.name = "source checkpoint"};
    source_ = load_weights(files_, runtime, std::nullopt);
    score(*source_, runtime, "source", row);
    if (options_.kld)
      row.kld.assign(texts_.size(), 0.0);
    else
      source_.reset();
    return row;
  }

  Row step_row(Runtime& runtime, const quantizer::Recipe& recipe, size_t index) {
    Row row = {.name = steps_[index].name};
    const std::string label = fmt::format("step {}/{}", index + 1, steps_.size());
    const std::filesystem::path folder = work_.path() / fmt::format("step-{}", index + 1);
    const quantizer::QuantizeReport report = run_quantize({.input = &files_,
                                                           .output = folder,
                                                           .recipe = recipe,
                                                           .calibration = &calibration_,
                                                           .samples = options_.samples,
                                                           .sequence = sequence_,
                                                           .seed = options_.seed,
                                                           .orders = orders_,
                                                           .label = label},
                                                          runtime);
    if (!report.orders.empty() && !recipe.transform.any())
      orders_ = report.orders;  // the same for every step that has any
    row.bits_per_weight = report.bits_per_weight;
    row.seconds = report.seconds;
    {
      const checkpoint::ModelFiles quantized = open_model(folder);
      score(*load_weights(quantized, runtime, std::nullopt), runtime, label, row);
    }
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
    return row;
  }

  void score(const model::Model& model, Runtime& runtime, const std::string& label, Row& row) {
    for (const TokenizedText& text : texts_) {
      const auto progress = [&](std::string_view figure) {
        return [&, figure](int done, int windows, double so_far) {
          check_interrupted();
          console().progress(fmt::format("{:<9} {} window {}/{}  {} {:.3f}  {}  {} elapsed", label,
                                         progress_bar(static_cast<double>(done) / windows), done,
                                         windows, figure, so_far, printable(text.name),
                                         human_seconds(clock_.seconds())));
        };
      };
      if (source_ != nullptr && &model != source_.get()) {
        const eval::DivergenceResult result = eval::divergence(*source_, model, text.ids,
                                                               {.executor = &runtime.executor(),
                                                                .context = context_,
                                                                .max_windows = options_.windows,
                                                                .progress = progress("KLD")});
        row.perplexity.push_back(result.perplexity_b);
        row.kld.push_back(result.kld.value);
        continue;
      }
      row.perplexity.push_back(eval::perplexity(model, text.ids,
                                                {.context = context_,
                                                 .max_windows = options_.windows,
                                                 .progress = progress("perplexity")})
                                   .perplexity);
    }
    console().end_progress();
    std::string line =
        fmt::format("{}: perplexity", row.name);  // long work: each row as soon as it is known
    for (const double value : row.perplexity) line += " " + perplexity_text(value);
    if (!row.kld.empty()) line += ", KLD";
    for (const double value : row.kld) line += fmt::format(" {:.4f}", value);
    console().notice(line);
  }

  const Options& options_;
  checkpoint::ModelFiles files_;
  model::ModelConfig config_;
  std::vector<AblationStep> steps_;
  int context_;
  int sequence_;
  std::unique_ptr<model::Model> source_;  // while divergences are measured
  std::vector<TokenizedText> texts_;
  TokenizedText calibration_;
  std::vector<quantizer::LayerOrders> orders_;
  WorkFolder work_;
  Stopwatch clock_;
};

void print_rows(const Options& options, const std::vector<Row>& rows) {
  Table table = {.header = {"step"}};
  for (const std::string& path : options.texts)
    table.header.push_back(printable(std::filesystem::path(path).filename().string()));
  if (options.kld)
    for (size_t i = 0; i < options.texts.size(); ++i) table.header.push_back("mean KLD");
  table.header.insert(table.header.end(), {"bits/weight", "quantized in"});
  for (const Row& row : rows) {
    std::vector<std::string> cells = {row.name};
    for (const double value : row.perplexity) cells.push_back(perplexity_text(value));
    for (const double value : row.kld) cells.push_back(fmt::format("{:.4f}", value));
    cells.push_back(fmt::format("{:.3f}", row.bits_per_weight));
    cells.push_back(row.seconds > 0 ? human_seconds(row.seconds) : "");
    table.rows.push_back(std::move(cells));
  }
  print_table(table);
}

Json rows_json(const Options& options, const Ablation& ablation, const std::vector<Row>& rows,
               const backend::Backend& backend) {
  Json list = Json::array();
  for (const Row& row : rows) {
    Json entry = {{"step", row.name},
                  {"perplexity", row.perplexity},
                  {"bits_per_weight", row.bits_per_weight},
                  {"quantize_seconds", row.seconds}};
    if (options.kld) entry["mean_kld"] = row.kld;
    list.push_back(std::move(entry));
  }
  return {{"model", options.model},
          {"texts", options.texts},
          {"context", ablation.context()},
          {"windows", options.windows},
          {"calibration", ablation.calibration().name},
          {"samples", options.samples},
          {"sequence", ablation.sequence()},
          {"seed", options.seed},
          {"backend", backend.description()},
          {"rows", std::move(list)}};
}

int run(const Options& options) {
  start(options.common);
  catch_signals();
  Runtime runtime(options.common);
  Ablation ablation(options);  // its models live on the runtime's backend
  const Stopwatch clock;
  const std::vector<Row> rows = ablation.run(runtime);
  if (options.common.json) {
    print_json(rows_json(options, ablation, rows, runtime.backend()));
    return kSuccess;
  }
  print_heading(fmt::format("perplexity of {}, windows of {}", options.model, ablation.context()));
  print_rows(options, rows);
  fmt::print("  {} windows of {} tokens of {} for calibration; {} in all, peak memory {}\n",
             options.samples, ablation.sequence(), printable(ablation.calibration().name),
             human_seconds(clock.seconds()), human_bytes(peak_rss()));
  return kSuccess;
}

}  // namespace

void add(Program& program, CLI::App& parent) {
  CLI::App& verb = add_verb(
      parent,
      {.name = "ablation",
       .text = "What each step of the methods buys",
       .footer =
           "Quantizes MODEL to W4A4 once for every step, adding one step each time, in a "
           "temporary\n"
           "folder (TMPDIR) that is removed, and scores every model on every text. First the "
           "steps\n"
           "of the published method, then those that method best adds to it.\n"
           "\n"
           "JSON keys: model, texts, context, windows (0: all), calibration, samples, sequence, "
           "seed,\n"
           "backend, rows [{step, perplexity (one per text), mean_kld (the same, with --kld),\n"
           "bits_per_weight, quantize_seconds}]"});
  const auto options = std::make_shared<Options>();
  argument(verb, "MODEL", options->model,
           "Model folder, or org/name in the Hugging Face cache; not quantized");
  texts_option(verb, "--text", options->texts,
               {"FILE", "UTF-8 text to score; may be repeated", "Options", true});
  whole_option(verb, "--context", options->context, {.min = 2, .max = 1 << 20},
               {"N", "Tokens per window [2048, or what the model takes]"});
  whole_option(verb, "--windows", options->windows, {.min = 1, .max = 1'000'000'000},
               {"N", "Only the first N windows of each text [all]"});
  whole_option(verb, "--kept", options->kept, {.min = 0, .max = 1'000'000, .multiple = 16},
               {"N", "Channels kept by the second step on [128]"});
  choice_option(verb, "--steps", options->steps, {"published", "best", "all"},
                {"NAME",
                 "published: from plain rounding to the published method; best:\nfrom there to "
                 "method best; all [all]"});
  flag_option(verb, "--kld", options->kld,
              {"", "Measure the mean KL divergence from MODEL too; takes about\ntwice as long"});
  constexpr const char* kGroup = "Calibration";
  text_option(verb, "--calibration", options->calibration,
              {"FILE", "UTF-8 text [embedded: a text inside the program]", kGroup});
  whole_option(verb, "--samples", options->samples, {.min = 1, .max = 100'000},
               {"N", "Random windows of the text [128]", kGroup});
  whole_option(verb, "--sequence", options->sequence, {.min = 2, .max = 1 << 20},
               {"N", "Tokens per window [2048, or what the model takes]", kGroup});
  seed_option(verb, options->seed, {"N", "Seed of the windows [0]", kGroup});
  add_compute_options(verb, options->common);
  add_output_options(verb, options->common);
  on_run(program, verb, [options] { return run(*options); });
}

}  // namespace atom::app::ablation
