// atom bench step: decoding steps of models with random weights.
#include <algorithm>

#include "bench_run.h"
#include "bench_tuned.h"
#include "bench_words.h"
#include "console.h"
#include "model/random_model.h"
#include "timing/memory.h"
#include "timing/step.h"
#include "verbs.h"

namespace atom::app::bench_step {
namespace {

struct Options {
  BenchOptions bench;
  std::string preset = "w4a8";
  std::string kv;
  std::string batch = "1,4,16,64";
  std::string context = "1024";
  std::string tune;  // the file
  std::optional<int> layers;
};

struct Row {
  std::string shape, kv;
  int layers = 0;
  int64_t weight_bytes = 0, cache_bytes = 0;
  timing::StepShape step;
  timing::StepTimes times;
  timing::StepFloors floors;

  double over_floors() const { return floors.sum() > 0 ? times.step.best / floors.sum() : 0; }
};

int64_t weight_bytes(const model::WeightBytes& bytes, const model::ModelConfig& config) {
  return config.layers * (bytes.attention + bytes.router + config.experts * bytes.expert) +
         bytes.head;
}

double kind_ms(const timing::StepTimes& times, timing::Kind kind) {
  return 1e3 * times.kinds[static_cast<size_t>(kind)];
}

Json row_json(const Row& row) {
  using timing::Kind;
  const timing::StepTimes& t = row.times;
  return {{"shape", row.shape},
          {"kv", row.kv},
          {"layers", row.layers},
          {"batch", row.step.batch},
          {"context", row.step.context},
          {"weight_bytes", row.weight_bytes},
          {"cache_bytes", row.cache_bytes},
          {"ms", 1e3 * t.step.best},
          {"median_ms", 1e3 * t.step.median},
          {"spread", t.step.spread},
          {"tokens_per_second", row.step.batch / t.step.best},
          {"floor_ms",
           {{"linears", 1e3 * row.floors.linears},
            {"attention", 1e3 * row.floors.attention},
            {"head", 1e3 * row.floors.head},
            {"sum", 1e3 * row.floors.sum()}}},
          {"time_over_floors", row.over_floors() > 0 ? Json(row.over_floors()) : Json(nullptr)},
          {"breakdown_ms",
           {{"linears", kind_ms(t, Kind::kLinears)},
            {"attention", kind_ms(t, Kind::kAttention)},
            {"producers", kind_ms(t, Kind::kProducers)},
            {"routing", kind_ms(t, Kind::kRouting)},
            {"head", kind_ms(t, Kind::kHead)},
            {"sample", 1e3 * t.sample},
            {"gap", 1e3 * t.gap()},
            {"idle", 1e3 * t.idle()}}}};
}

std::vector<std::string> row_cells(const Row& row) {
  using timing::Kind;
  const timing::StepTimes& t = row.times;
  const bool has_floors = row.floors.sum() > 0;
  const auto ms = [](double value) { return fmt::format("{:.3f}", value); };
  return {row.shape,
          std::to_string(row.step.batch),
          std::to_string(row.step.context),
          ms(1e3 * t.step.best),
          fmt::format("{:.1f}%", 100 * t.step.spread),
          fmt::format("{:.0f}", row.step.batch / t.step.best),
          has_floors ? ms(1e3 * row.floors.sum()) : "-",
          has_floors ? fmt::format("{:.2f}", row.over_floors()) : "-",
          ms(kind_ms(t, Kind::kLinears)),
          ms(kind_ms(t, Kind::kAttention)),
          ms(kind_ms(t, Kind::kProducers)),
          ms(kind_ms(t, Kind::kRouting)),
          ms(kind_ms(t, Kind::kHead)),
          ms(1e3 * t.sample),
          ms(1e3 * t.gap()),
          ms(1e3 * t.idle())};
}

class StepVerb {
 public:
  explicit StepVerb(const Options& options)
      : options_(options),
        shapes_(shape_list("--shapes",
                           options.bench.shapes.empty() ? "llama-7b" : options.bench.shapes)),
        batches_(whole_list("--batch", options.batch, {.min = 1, .max = 4096})),
        contexts_(whole_list("--context", options.context, {.min = 1, .max = 1 << 20})),
        run_(options.bench),
        tuner_(options.tune.empty() ? nullptr : run_.backend().linear_tuner()) {
    // Its steps take plans that do not depend on measurements, so all would seem alike.
    if (!options.tune.empty() && options.bench.common.batch_invariant)
      usage_fail("--tune: steps have no choice of plans with --batch-invariant");
    if (!options.tune.empty() && tuner_ == nullptr)
      usage_fail("--tune: {} has nothing to tune", run_.backend().description());
    if (tuner_ != nullptr && contexts_.size() > 1)
      usage_fail("--context: with --tune must be one number, but is \"{}\"", options.context);
  }

  void run() {
    if (tuner_ != nullptr) {
      tune();
    } else {
      time();
    }
  }

 private:
  void time() {
    require_memory();
    run_.measure_ceilings();
    for (const NamedShape& shape : shapes_) {
      const model::RandomModel random = make(shape);
      for (const int context : contexts_)
        for (const int batch : batches_) {
          const std::string line =
              fmt::format("time      {} batch {} context {}", shape.name, batch, context);
          rows_.push_back(time_step(random, {batch, context}, line));
          rows_.back().shape = shape.name;
          rows_.back().kv = kv_word(scheme_of(config_of(shape)));
        }
    }
    run_.finish();
    if (options_.bench.common.json)
      report_json();
    else
      report();
  }

  model::ModelConfig config_of(const NamedShape& shape) const {
    model::ModelConfig config = shape.config;
    config.layers = options_.layers.value_or(config.layers);
    return config;
  }
  model::Scheme scheme_of(const model::ModelConfig& config) const {
    return bench_scheme(options_.preset, options_.bench.method, options_.kv, config);
  }

  void require_memory() const {
    const timing::StepShape most = {*std::max_element(batches_.begin(), batches_.end()),
                                    *std::max_element(contexts_.begin(), contexts_.end())};
    for (const NamedShape& shape : shapes_) {
      const model::ModelConfig config = config_of(shape);
      run_.require_memory(timing::step_memory(config, scheme_of(config), most),
                          fmt::format("--shapes: {} with {} layers, batch {} and context {}",
                                      shape.name, config.layers, most.batch, most.context),
                          "fewer --layers, --batch and --context, and fewer bits by --preset and "
                          "--kv,");
    }
  }

  model::RandomModel make(const NamedShape& shape) {
    const model::ModelConfig config = config_of(shape);
    const auto progress = [&](int done, int layers) {
      run_.show(fmt::format("make      {} {} layer {}/{}",
                            progress_bar(static_cast<double>(done) / layers), shape.name, done,
                            layers));
    };
    return model::make_random_model(
        run_.backend(), {.config = config, .scheme = scheme_of(config), .progress = progress});
  }

  Row time_step(const model::RandomModel& random, const timing::StepShape& shape,
                const std::string& line) {
    run_.show(line);
    timing::StepBench bench(*random.model, shape, run_.between());
    Row row;
    row.layers = random.model->config.layers;
    row.step = shape;
    row.times = bench.measure(run_.round_options(0.1));
    row.floors = timing::step_floors(*random.model, random.bytes, shape, run_.ceilings());
    row.weight_bytes = weight_bytes(random.bytes, random.model->config);
    row.cache_bytes = bench.cache_bytes();
    return row;
  }

  void tune() {
    AtomicFile file(options_.tune);  // refused now rather than after the work
    require_memory();
    run_.measure_ceilings();
    std::vector<TunedRow> rows;
    for (const NamedShape& shape : shapes_) {
      const model::RandomModel random = make(shape);
      for (const int batch : batches_) {
        const auto announce = [&](const std::string& linear) {
          run_.show(fmt::format("tune      {} batch {} {}", shape.name, batch, linear));
        };
        timing::StepTuning tuning(*random.model, *tuner_, run_.round_options(0.05), announce);
        for (timing::TunedLinear& tuned : tuning.tune({batch, contexts_.front()}))
          rows.push_back({shape.name, options_.preset, std::move(tuned)});
      }
    }
    run_.finish();
    if (rows.empty()) usage_fail("--preset: linears of {} have one kernel each", options_.preset);
    write_plans(file, *tuner_);
    if (options_.bench.common.json)
      print_json(run_.json(
          {{"preset", options_.preset}, {"file", options_.tune}, {"linears", tuned_json(rows)}}));
    else
      print_tuned(rows, run_.backend(),
                  fmt::format("us a step, best of {} rounds", options_.bench.rounds),
                  options_.tune);
  }

  void report_json() const {
    Json steps = Json::array();
    for (const Row& row : rows_) steps.push_back(row_json(row));
    print_json(run_.json({{"preset", options_.preset}, {"steps", steps}}));
  }

  void report() const {
    print_heading("decoding steps");
    print_facts({{"backend", run_.backend().description()},
                 {"ceilings", ceilings_words(run_.ceilings())},
                 {"formats", fmt::format("{} by method {}, KV-cache {}", options_.preset,
                                         options_.bench.method, rows_.front().kv)},
                 {"times", fmt::format("ms a step, best of {} rounds", options_.bench.rounds)}});
    Table table = {
        .header = {"shape", "batch", "context", "ms", "spread", "tokens/s", "floors", "time/floors",
                   "linears", "attention", "producers", "routing", "head", "sample", "gap", "idle"},
        .rows = {}};
    for (const Row& row : rows_) table.rows.push_back(row_cells(row));
    print_table(table);
  }

  const Options& options_;
  std::vector<NamedShape> shapes_;
  std::vector<int> batches_, contexts_;
  BenchRun run_;
  std::unique_ptr<backend::LinearTuner> tuner_;
  std::vector<Row> rows_;
};

int run(const Options& options) {
  start(options.bench.common);
  catch_signals();
  StepVerb(options).run();
  return kSuccess;
}

}  // namespace

void add(Program& program, CLI::App& parent) {
  CLI::App& verb = add_verb(
      parent,
      {.name = "step",
       .text = "Whole decoding steps of models with random weights",
       .footer =
           "A step embeds one token of each sequence of the batch, runs the layers and the head, "
           "and\n"
           "samples greedily; it is recorded once (a CUDA graph on a GPU) and replayed at "
           "positions\n"
           "from --context on, enqueued before the host has the ids of the step before. floors: "
           "what\n"
           "reading the weights, the cache and the head once would take at the ceiling, and the\n"
           "layers' products where these take longer; time/floors: how many times as long as they\n"
           "the step takes.\n"
           "linears ... head: steps of nothing but that kind of operation; gap: ms less all of "
           "these.\n"
           "idle: ms less sample and less the recorded step enqueued alone, without a wait.\n"
           "producers are norms, gates, quantization and the embedding.\n"
           "\n"
           "--tune times steps with every kernel plan of one linear after the other, and of the "
           "head, and\n"
           "writes the fastest to a file for --tuned. It begins with what --tuned gives it.\n"
           "\n"
           "JSON keys: backend, ceilings {read_bytes_per_second, copy_bytes_per_second,\n"
           "operations_per_second_16, operations_per_second_8, origin}, preset, method, rounds, "
           "sustained, steps [{shape, "
           "kv,\n"
           "layers, batch, context, weight_bytes, cache_bytes, ms, median_ms, spread,\n"
           "tokens_per_second, floor_ms {linears, attention, head, sum}, time_over_floors "
           "(null:\n"
           "no ceiling),\n"
           "breakdown_ms {linears, attention, producers, routing, head, sample, gap, idle}}],\n"
           "peak_rss. With --tune, instead of steps: file, linears [{shape, preset, linear, n, k, "
           "rows,\n"
           "choices, before, before_us, after, after_us}], us of a step"});
  const auto options = std::make_shared<Options>();
  add_bench_options(verb, options->bench);
  choice_option(verb, "--preset", options->preset, bench_presets(),
                {"NAME", "Formats as quantize has them; fp: 16 bits [w4a8]"});
  choice_option(verb, "--kv", options->kv, {"f16", "int8", "int4", "k8v4"},
                {"FORMAT", "KV-cache [the preset's]"});
  text_option(verb, "--batch", options->batch, {"LIST", "Sequences [1,4,16,64]"});
  text_option(verb, "--context", options->context,
              {"LIST", "Positions that each sequence has [1024]"});
  whole_option(verb, "--layers", options->layers, {.min = 1, .max = 1000},
               {"N", "Layers [the shape's]"});
  text_option(verb, "--tune", options->tune,
              {"FILE", "Measure plans of linears in steps of --batch, write the fastest"});
  add_compute_options(verb, options->bench.common);
  add_output_options(verb, options->bench.common);
  on_run(program, verb, [options] { return run(*options); });
}

}  // namespace atom::app::bench_step
