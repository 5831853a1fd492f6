// atom bench throughput: what formats serve within a budget of memory.
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "bench_run.h"
#include "bench_throughput_rows.h"
#include "bench_words.h"
#include "console.h"
#include "model/random_model.h"
#include "timing/memory.h"
#include "timing/step.h"
#include "timing/throughput.h"
#include "verbs.h"

namespace atom::app::bench_throughput {
namespace {

struct Options {
  BenchOptions bench;
  std::string model, shape;
  std::string memory = "24GiB";
  std::string formats;
  std::string batch = "published,unrestricted";
  std::string trace = "published";
  std::optional<int> requests;
  std::optional<int> layers;
  std::optional<double> seconds, temperature;
};

// The formats that are compared: a preset of quantize, and the cache that goes with it.
struct ServedFormat {
  const char *name, *preset, *kv;
};
constexpr std::array kFormats = {
    ServedFormat{"f16", "fp", "f16"}, ServedFormat{"w8a8", "w8a8", "int8"},
    ServedFormat{"w4a16", "w4a16", "f16"}, ServedFormat{"w4a4", "w4a4", "int4"},
    ServedFormat{"w4a8", "w4a8", "int4"}};

int64_t parse_bytes(const std::string& option, const std::string& word) {
  constexpr std::array<std::pair<std::string_view, double>, 6> kUnits = {
      {{"GiB", 0x1p30}, {"MiB", 0x1p20}, {"KiB", 0x1p10}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}}};
  double value = 0;
  const auto [end, problem] = std::from_chars(word.data(), word.data() + word.size(), value);
  for (const auto& [name, bytes] : kUnits)
    if (problem == std::errc() && name == std::string_view(end) && value > 0 &&
        value * bytes < 1e15)
      return static_cast<int64_t>(value * bytes);
  usage_fail("{}: '{}' is not a size such as 24GiB, 512MiB or 80GB", option, word);
}

timing::Trace parse_trace(const std::string& option, const std::string& word, int most_positions) {
  if (word == "published") return timing::Trace::published(most_positions);
  const size_t colon = word.find(':');
  if (colon == std::string::npos)
    usage_fail("{}: '{}' is neither published nor IN:OUT, as 1024:512", option, word);
  const WholeRange range = {.min = 1, .max = 1 << 19};
  const timing::Lengths lengths = {
      static_cast<int>(parse_whole(option, word.substr(0, colon), range)),
      static_cast<int>(parse_whole(option, word.substr(colon + 1), range))};
  if (lengths.prompt + lengths.generated > most_positions)
    usage_fail("{}: {} are more than the model's {} positions", option, word, most_positions);
  return timing::Trace::fixed(lengths);
}

class ThroughputVerb {
 public:
  explicit ThroughputVerb(const Options& options)
      : options_(options),
        budget_(parse_bytes("--memory", options.memory)),
        rules_(choice_list("--batch", options.batch, {"published", "unrestricted"})),
        run_(options.bench) {
    std::vector<std::string> names(kFormats.size());
    std::transform(kFormats.begin(), kFormats.end(), names.begin(), [](auto& f) { return f.name; });
    if (!options.model.empty() && !options.formats.empty())
      usage_fail("--formats: a model has its own; it goes with --random-weights");
    if (!options.model.empty() && options.layers)
      usage_fail("--layers: a model has its own; it goes with --random-weights");
    formats_ = options.formats.empty() ? names : choice_list("--formats", options.formats, names);
    if (options.model.empty()) {
      std::vector<NamedShape> shapes = shape_list("--random-weights", options.shape);
      if (shapes.size() != 1) usage_fail("--random-weights: '{}' is not one shape", options.shape);
      shape_ = std::move(shapes.front());
      shape_.config.layers = options.layers.value_or(shape_.config.layers);
      trace_ = parse_trace("--trace", options.trace, shape_.config.max_positions);
    }
  }

  void run() {
    try {
      serve_all();
    } catch (...) {
      report_what_ended();
      throw;
    }
    run_.finish();
    if (options_.bench.common.json)
      report_json();
    else
      report();
    for (const ThroughputRow& row : rows_)
      if (row.is_void()) console().notice(why_void(row));
    if (std::none_of(rows_.begin(), rows_.end(), [](const ThroughputRow& r) { return r.ran(); }))
      fail("--memory {}: not one sequence of any format fits beside the weights", options_.memory);
  }

 private:
  static std::string why_void(const ThroughputRow& row) {
    if (row.over_floor() == 0)
      return fmt::format("{}, {}: no step without a prompt, or no ceiling: ratios to it are void",
                         row.format, row.rule);
    return fmt::format(
        "{}, {}: a step takes {:.2f} times its floor, more than {}: ratios to it are void",
        row.format, row.rule, row.over_floor(), kMostOverFloor);
  }
  std::function<void(int, int)> progress(const std::string& what) {
    return [this, what](int done, int layers) {
      run_.show(fmt::format("{} layer {}/{}", what, done, layers));
    };
  }

  void serve_all() {
    if (!options_.model.empty()) return serve_model();
    run_.measure_ceilings();
    for (const std::string& format : formats_) serve_random(format);
  }

  // A run of minutes that is stopped, or whose next format fails, still shows the rows that it has.
  void report_what_ended() {
    std::erase_if(rows_, [](const ThroughputRow& r) { return r.ran() && r.run.steps == 0; });
    if (rows_.empty() || options_.bench.common.json) return;
    run_.finish();
    report();
  }

  void serve_random(const std::string& name) {
    const auto* format = std::find_if(kFormats.begin(), kFormats.end(),
                                      [&](const ServedFormat& f) { return f.name == name; });
    const model::ModelConfig& config = shape_.config;
    const model::Scheme scheme =
        bench_scheme(format->preset, options_.bench.method, format->kv, config);
    if (!add_rows(name, config, scheme)) return;
    timing::SampleClock clock(run_.backend());
    const model::RandomModel random = model::make_random_model(
        clock, {.config = config, .scheme = scheme, .progress = progress("make      " + name)});
    serve(*random.model, clock);
  }

  void serve_model() {
    const checkpoint::ModelFiles files = open_model(options_.model);
    const model::ModelConfig config = load_config(files);
    const model::Scheme scheme = load_scheme(files, config);
    shape_.name = options_.model;
    float_bytes_ = timing::float_bytes_of(files, config);
    trace_ = parse_trace("--trace", options_.trace, config.max_positions);
    run_.measure_ceilings();
    if (!add_rows(format_words(files, config, scheme).weights, config, scheme)) return;
    timing::SampleClock clock(run_.backend());
    const auto model =
        model::load_model(files, clock, {.kv = {}, .progress = progress("load     ")});
    serve(*model, clock);
  }

  // A row for each rule, with the batch that fits. False: none does.
  bool add_rows(const std::string& name, const model::ModelConfig& config,
                const model::Scheme& scheme) {
    const timing::MemoryUse use = timing::memory_use(config, scheme, float_bytes_);
    first_ = rows_.size();
    bool any = false;
    for (const std::string& rule : rules_) {
      ThroughputRow row = {
          .format = name, .kv = kv_word(scheme), .rule = rule, .use = use, .batch = {}, .run = {}};
      row.batch =
          rule == "published"
              ? timing::published_batch(use, budget_, std::max(kReserved, trace_.most_positions()))
              : timing::unrestricted_batch(use, budget_, trace_);
      if (row.ran())
        run_.require_memory(static_cast<double>(row.batch.bytes),
                            fmt::format("--memory: {} for {}", options_.memory, name),
                            "smaller --memory and fewer --layers");
      any = any || row.ran();
      rows_.push_back(std::move(row));
    }
    return any;
  }

  void serve(const model::Model& model, const timing::SampleClock& clock) {
    const model::WeightBytes bytes = timing::weight_bytes(model.config, model.scheme, float_bytes_);
    for (size_t i = first_; i < rows_.size(); ++i) {
      ThroughputRow& row = rows_[i];
      if (!row.ran()) continue;
      run_.show(fmt::format("serve     {} {} batch {}", row.format, row.rule, row.batch.sequences));
      row.run = timing::measure_throughput(
          model, clock,
          {.trace = trace_,
           .batch = row.batch,
           .requests = options_.requests.value_or(0),
           .seconds = options_.seconds.value_or(5),
           .temperature = static_cast<float>(options_.temperature.value_or(1)),
           .between = run_.between()});
      const timing::StepShape shape = {static_cast<int>(std::lround(row.run.decode_sequences)),
                                       static_cast<int>(std::lround(row.run.decode_positions))};
      if (shape.batch > 0)
        row.floor = timing::step_floors(model, bytes, shape, run_.ceilings()).sum();
    }
  }

  std::string how() const {
    return options_.requests
               ? fmt::format("{} requests from the first to the last", *options_.requests)
               : fmt::format(
                     "at work for {} s: begins with requests in progress, each that ends "
                     "is replaced",
                     options_.seconds.value_or(5));
  }

  void report_json() const {
    print_json({{"backend", run_.backend().description()},
                {"ceilings", ceilings_json(run_.ceilings())},
                {"model", shape_.name},
                {"method", options_.bench.method},
                {"memory_bytes", budget_},
                {"trace", trace_.name()},
                {"measured", how()},
                {"temperature", options_.temperature.value_or(1)},
                {"runs", throughput_json(rows_)},
                {"peak_rss", peak_rss()}});
  }

  void report() const {
    print_heading("throughput");
    print_facts({{"backend", run_.backend().description()},
                 {"ceilings", ceilings_words(run_.ceilings())},
                 {"model", shape_.name},
                 {"memory", options_.memory + " for weights and pages"},
                 {"requests", fmt::format("{}, {}", trace_.name(), how())}});
    print_table(throughput_table(rows_));
  }

  static constexpr int kReserved = 2048;

  const Options& options_;
  int64_t budget_;
  std::vector<std::string> rules_, formats_;
  NamedShape shape_;
  timing::Trace trace_;
  BenchRun run_;
  std::vector<ThroughputRow> rows_;
  size_t first_ = 0;        // of the format at hand
  double float_bytes_ = 2;  // of a weight in floating point
};

int run(const Options& options) {
  start(options.bench.common);
  catch_signals();
  ThroughputVerb(options).run();
  return kSuccess;
}

constexpr const char* kFooter =
    "Each format serves the trace with the engine, its scheduler and its sampling. batch by "
    "published:\n"
    "the largest power of two of sequences that each reserve 2048 positions; by unrestricted: as "
    "many\n"
    "as the trace fills the pages with. Weights, pages and open pages count against --memory; "
    "rows\n"
    "of a step and scratch do not. Without --requests the engine is met at work: it begins with\n"
    "requests in progress, whose prompts are computed before the time begins.\n"
    "\n"
    "tokens/s: of prompts and texts. ms/token: from one id of a text to the next. step: the median "
    "of\n"
    "the steps without a prompt. step/floor: how many times as long as what reading the weights "
    "and\n"
    "the cache once would take (or the products); f16 and w8a8 above 1.15 are void as baselines, "
    "and\n"
    "ratios to them are in brackets.\n"
    "host: the share of the time that scheduling and sampling take.\n"
    "\n"
    "JSON keys: backend, ceilings {read_bytes_per_second, copy_bytes_per_second,\n"
    "operations_per_second_16, operations_per_second_8, origin}, model, method, memory_bytes, "
    "trace,\n"
    "measured, temperature, runs [{format, kv, batch_rule, batch (0: does not fit, nothing "
    "follows\n"
    "bytes), weight_bytes, pages, page_bytes, open_page_bytes, bytes, seconds, steps, "
    "prompt_tokens,\n"
    "generated_tokens, preemptions, running, tokens_per_second, generated_per_second, "
    "ms_per_token,\n"
    "decode_step_ms, decode_sequences, decode_positions, floor_ms, time_over_floor, "
    "scheduling_share,\n"
    "sampling_share, times_f16, times_f16_void (its baseline is void),\n"
    "times_w8a8, times_w8a8_void, void}], peak_rss";

}  // namespace

void add(Program& program, CLI::App& parent) {
  CLI::App& verb = add_verb(parent, {.name = "throughput",
                                     .text = "Tokens a second within a budget of memory, by format",
                                     .footer = kFooter});
  const auto options = std::make_shared<Options>();
  CLI::Option* model = optional_argument(verb, "MODEL", options->model, "Folder of a model");
  CLI::Option* shape = text_option(
      verb, "--random-weights", options->shape,
      {"SHAPE", "Random weights instead: " + fmt::format("{}", fmt::join(shape_names(), ", ")) +
                    ",\nor HIDDENxINTERMEDIATE"});
  require_one_of(verb, {model, &options->model}, {shape, &options->shape});
  text_option(verb, "--memory", options->memory, {"SIZE", "As 24GiB, 512MiB or 80GB [24GiB]"});
  text_option(verb, "--formats", options->formats,
              {"LIST", "Of f16, w8a8, w4a16, w4a4, w4a8 [all]"});
  text_option(verb, "--batch", options->batch, {"LIST", "Of published, unrestricted [both]"});
  text_option(verb, "--trace", options->trace,
              {"WORD", "published, or IN:OUT tokens of each request [published]"});
  whole_option(verb, "--requests", options->requests, {.min = 1, .max = 1 << 20},
               {"N", "So many requests, from the first to the last"});
  number_option(verb, "--seconds", options->seconds, {.min = 0, .max = 600},
                {"S", "At work for so long [5]"});
  number_option(verb, "--temperature", options->temperature, {.min = 0, .max = 100},
                {"T", "Of sampling; 0: greedy [1]"});
  whole_option(verb, "--layers", options->layers, {.min = 1, .max = 1000},
               {"N", "Layers [the shape's]"});
  choice_option(
      verb, "--method", options->bench.method, {"best", "published"},
      {"NAME", "best or published: transforms and open pages as\nquantize gives them [best]"});
  add_compute_options(verb, options->bench.common);
  add_output_options(verb, options->bench.common);
  on_run(program, verb, [options] { return run(*options); });
}

}  // namespace atom::app::bench_throughput
