// atom bench ops: operations of the device interface at the shapes of models, against a library.
#include <algorithm>

#include "base/file.h"
#include "base/random.h"
#include "bench_rows.h"
#include "bench_run.h"
#include "bench_tune.h"
#include "bench_words.h"
#include "console.h"
#include "timing/attention_ops.h"
#include "timing/baseline_file.h"
#include "timing/layer_ops.h"
#include "timing/memory.h"
#include "verbs.h"

namespace atom::app::bench_ops {
namespace {

const std::vector<std::string> kOps = {"linear", "chain",    "chain+producers", "norm",
                                       "gate",   "quantize", "attention",       "prefill"};
const std::vector<std::string> kCaches = {"f32",  "f16",       "int8",     "int4",
                                          "k8v4", "int4.open", "k8v4.open"};

// Lists; "" becomes a default that suits the device.
struct Options {
  BenchOptions bench;
  std::string ops, presets, rows, batch, context, prompt, kv;
  std::string baseline, tune;
  std::optional<int> rotate;  // MiB
  bool ragged = false;
};

constexpr struct {
  backend::LibraryFormat format;
  const char* name;
} kLibraryFormats[] = {{backend::LibraryFormat::kF32, "f32"},
                       {backend::LibraryFormat::kF16, "f16"},
                       {backend::LibraryFormat::kInt8, "int8"},
                       {backend::LibraryFormat::kFp8, "fp8"}};

class OpsVerb {
 public:
  explicit OpsVerb(const Options& options)
      : options_(options), run_(options.bench), data_(run_.backend(), 1, run_.between()) {
    const auto or_default = [&](const std::string& text, const char* on_gpu,
                                const char* elsewhere) {
      return run_.or_default(text, on_gpu, elsewhere);
    };
    shapes_ =
        shape_list("--shapes", or_default(options.bench.shapes, "llama-7b,llama2-70b", "llama-7b"));
    ops_ = choice_list(
        "--ops",
        or_default(options.ops, "linear,chain,chain+producers,norm,gate,quantize,attention,prefill",
                   "linear,attention"),
        kOps);
    presets_ = choice_list("--presets", or_default(options.presets, "w4a8,w4a4", "w4a8,w4a4"),
                           bench_presets());
    rows_ = whole_list("--rows", or_default(options.rows, "1,8,16,32,64,128,256,1024,4096", "1,16"),
                       {.min = 1, .max = 1 << 17});
    batches_ = whole_list("--batch", or_default(options.batch, "1,8,16,64,128", "1,4"),
                          {.min = 1, .max = 4096});
    contexts_ = whole_list("--context", or_default(options.context, "1024,4096", "1024"),
                           {.min = 1, .max = 1 << 20});
    prompts_ = whole_list("--prompt", or_default(options.prompt, "1024,4096,16384,32768", "256"),
                          {.min = 2, .max = 1 << 17});
    caches_ =
        choice_list("--kv", or_default(options.kv, "int4,int4.open,int8,f16", "int4,f16"), kCaches);
    if (!options.baseline.empty())
      baselines_ = timing::parse_baselines(read_file(options.baseline, 1 << 24), options.baseline);
  }

  void run() {
    run_.measure_ceilings();
    rotated_ = run_.rotated(options_.rotate);
    for (const NamedShape& shape : shapes_) require_memory(shape);
    for (const NamedShape& shape : shapes_) {
      time_layers(shape);
      time_attention(shape);
    }
    run_.finish();
    if (options_.bench.common.json)
      report_json();
    else
      report();
  }

 private:
  bool wants(const std::string& op) const {
    return std::find(ops_.begin(), ops_.end(), op) != ops_.end();
  }
  bool wants_layers() const {
    return std::any_of(kOps.begin(), kOps.end() - 2, [&](const auto& op) { return wants(op); });
  }
  timing::RoundOptions round_options() { return run_.round_options(0.02); }

  void require_memory(const NamedShape& shape) const {
    const int rows = *std::max_element(rows_.begin(), rows_.end());
    for (const std::string& preset : presets_) {
      if (!wants_layers()) break;
      const model::Scheme scheme = bench_scheme(preset, options_.bench.method, "", shape.config);
      run_.require_memory(timing::layer_ops_memory(shape.config, scheme, rows, rotated_),
                          fmt::format("--shapes: {} in {} with {} rows", shape.name, preset, rows),
                          "fewer --rows and --rotate, and fewer bits by --presets,");
    }
    for (const std::string& cache : caches_) {
      if (wants("attention"))
        require_memory(shape, cache, *std::max_element(batches_.begin(), batches_.end()),
                       *std::max_element(contexts_.begin(), contexts_.end()), false);
      if (wants("prefill"))
        require_memory(shape, cache, 1, *std::max_element(prompts_.begin(), prompts_.end()), true);
    }
  }
  void require_memory(const NamedShape& shape, const std::string& cache, int batch, int context,
                      bool prompts) const {
    timing::AttentionShape attention = attention_shape(cache, prompts);
    attention.contexts.assign(static_cast<size_t>(batch), context);
    const double bytes = timing::attention_ops_memory(shape.config, attention, rotated_);
    run_.require_memory(options_.ragged && !prompts ? bytes / 2 : bytes,  // half of it, on average
                        fmt::format("--shapes: {} with {} times {} positions in {}", shape.name,
                                    batch, context, cache),
                        prompts ? "fewer tokens by --prompt"
                                : "fewer --batch, --context and --rotate, and fewer bits by --kv,");
  }

  void time_layers(const NamedShape& shape) {
    if (!wants_layers()) return;
    libraries_.clear();
    if (wants("linear") || wants("chain") || wants("chain+producers"))
      for (const auto& library : kLibraryFormats)
        libraries_.push_back(std::make_unique<timing::LibraryOps>(run_.backend(), shape.config,
                                                                  library.format, data_, rotated_));
    for (const std::string& preset : presets_) {
      run_.show(fmt::format("make      {} {}", shape.name, preset));
      const model::Scheme scheme = bench_scheme(preset, options_.bench.method, "", shape.config);
      timing::LayerOps layer(run_.backend(), shape.config, scheme, data_, rotated_);
      for (const int rows : rows_) {
        run_.show(fmt::format("time      {} {} {} rows", shape.name, preset, rows));
        layer.set_rows(rows);
        for (const auto& library : libraries_) library->set_rows(rows, round_options());
        time_linears(shape, preset, rows, layer);
        time_producers(shape, preset, rows, layer);
      }
    }
    libraries_.clear();
  }

  void time_linears(const NamedShape& shape, const std::string& preset, int rows,
                    const timing::LayerOps& layer) {
    for (int i = 0; i < timing::kSites && wants("linear"); ++i) {
      const auto site = static_cast<timing::Site>(i);
      std::vector<timing::Operation> operations = {layer.linear(site)};
      std::vector<std::string> names;
      for (size_t l = 0; l < libraries_.size(); ++l) {
        if (!libraries_[l]->works(site)) continue;
        operations.push_back(libraries_[l]->linear(site));
        names.emplace_back(kLibraryFormats[l].name);
      }
      OpRow row = timed(operations, names, run_.ceilings());
      row.operation = fmt::format("linear {}", timing::kSiteNames[static_cast<size_t>(i)]);
      add_file_linears(row, shape.config, {site}, rows);
      add(row, shape, preset, rows);
    }
    if (!wants("chain") && !wants("chain+producers")) return;
    std::vector<timing::Operation> operations;
    std::vector<std::string> names;
    if (wants("chain")) operations.push_back(layer.chain());
    if (wants("chain+producers")) operations.push_back(layer.chain_with_producers());
    const size_t ours = operations.size();
    for (size_t l = 0; l < libraries_.size(); ++l) {
      if (!libraries_[l]->works()) continue;
      operations.push_back(libraries_[l]->chain());
      names.emplace_back(kLibraryFormats[l].name);
    }
    const std::vector<timing::Timing> times =
        timing::time_operations(run_.backend(), operations, round_options());
    for (size_t o = 0; o < ours; ++o) {
      OpRow row = made(operations[o], times[o], run_.ceilings());
      row.operation = o + 1 == ours && wants("chain+producers") ? "chain+producers" : "chain";
      for (size_t l = 0; l < names.size(); ++l)
        row.baselines.push_back({names[l], 1e6 * times[ours + l].best});
      add_file_linears(
          row, shape.config,
          {timing::Site::kQkv, timing::Site::kOut, timing::Site::kGateUp, timing::Site::kDown},
          rows);
      add(row, shape, preset, rows);
    }
  }

  void time_producers(const NamedShape& shape, const std::string& preset, int rows,
                      const timing::LayerOps& layer) {
    using Make = timing::Operation (timing::LayerOps::*)(bool) const;
    const std::pair<const char*, Make> producers[] = {{"norm", &timing::LayerOps::norm},
                                                      {"gate", &timing::LayerOps::gate},
                                                      {"quantize", &timing::LayerOps::quantize}};
    backend::Ceilings copying = run_.ceilings();
    if (copying.copy_bytes > 0) copying.read_bytes = copying.copy_bytes;
    for (const auto& [name, make] : producers) {
      if (!wants(name)) continue;
      OpRow row = timed({(layer.*make)(false), (layer.*make)(true)}, {"to f32"}, copying);
      row.operation = name;
      add(row, shape, preset, rows);
    }
  }

  void time_attention(const NamedShape& shape) {
    for (const std::string& cache : caches_) {
      for (const int context : contexts_)
        for (const int batch : batches_)
          if (wants("attention")) attend(shape, cache, batch, context, false);
      for (const int tokens : prompts_)
        if (wants("prefill")) attend(shape, cache, 1, tokens, true);
    }
  }

  // Without contexts.
  static timing::AttentionShape attention_shape(const std::string& cache, bool prompts) {
    const size_t dot = cache.find('.');
    return {.cache = format::parse_kv(cache.substr(0, dot)),
            .open_page = dot != std::string::npos,
            .contexts = {},
            .prompts = prompts};
  }

  void attend(const NamedShape& shape, const std::string& cache, int batch, int context,
              bool prompts) {
    const bool ragged = options_.ragged && !prompts;
    run_.show(fmt::format("time      {} {} {} x {}", shape.name, cache, batch, context));
    timing::AttentionShape attention = attention_shape(cache, prompts);
    Random random(static_cast<uint64_t>(batch) * 7919 + static_cast<uint64_t>(context));
    for (int i = 0; i < batch; ++i)
      attention.contexts.push_back(
          ragged ? 1 + static_cast<int>(random.below(static_cast<uint64_t>(context))) : context);
    const timing::AttentionOps ops(run_.backend(), shape.config, attention, data_, rotated_);
    OpRow row = timed({ops.operation()}, {}, run_.ceilings());
    row.operation = prompts ? "prefill" : "attention";
    row.context = ragged ? fmt::format("U(1..{})", context) : std::to_string(context);
    const model::ModelConfig& c = shape.config;
    const auto file = prompts ? baselines_.least({c.heads, c.kv_heads, c.head_dim, batch, context})
                              : baselines_.least({c.heads, c.kv_heads, batch, context});
    if (file && !ragged) row.baselines.push_back({"file " + file->name, file->us});
    add(row, shape, cache, prompts ? batch * context : batch);
  }

  // The first is ours, the others have names.
  OpRow timed(const std::vector<timing::Operation>& operations,
              const std::vector<std::string>& names, const backend::Ceilings& ceilings) {
    const std::vector<timing::Timing> times =
        timing::time_operations(run_.backend(), operations, round_options());
    OpRow row = made(operations.front(), times.front(), ceilings);
    for (size_t i = 0; i < names.size(); ++i)
      row.baselines.push_back({names[i], 1e6 * times[i + 1].best});
    return row;
  }

  static OpRow made(const timing::Operation& operation, const timing::Timing& time,
                    const backend::Ceilings& ceilings) {
    OpRow row;
    row.time = time;
    row.bytes = operation.bytes;
    row.products = operation.products;
    row.roofline = timing::roofline_seconds(operation, ceilings) / time.best;
    return row;
  }

  // Times of the baseline file, "n,k,rows,format,us", added up over the sites.
  void add_file_linears(OpRow& row, const model::ModelConfig& config,
                        const std::vector<timing::Site>& sites, int rows) const {
    for (const auto& library : kLibraryFormats) {
      double sum = 0;
      bool all = true;
      for (const timing::Site site : sites) {
        const timing::SiteSize size = timing::site_size(config, site);
        const auto time = baselines_.least({size.n, size.k, rows}, library.name);
        all = all && time.has_value();
        sum += time ? time->us : 0;
      }
      if (all) row.baselines.push_back({std::string("file ") + library.name, sum});
    }
  }

  void add(OpRow row, const NamedShape& shape, const std::string& format, int rows) {
    row.shape = shape.name;
    row.format = format;
    row.rows = rows;
    table_.push_back(std::move(row));
  }

  void report_json() {
    print_json(run_.json({{"library", run_.backend().library()},
                          {"rotated_bytes", rotated_},
                          {"rows", rows_json(table_)}}));
  }

  void report() {
    print_heading("operations");
    print_facts({{"backend", run_.backend().description()},
                 {"ceilings", ceilings_words(run_.ceilings())},
                 {"library", run_.backend().library()},
                 {"times", fmt::format("us, best of {} rounds, over {} of weights or caches",
                                       options_.bench.rounds,
                                       human_bytes(static_cast<int64_t>(rotated_)))}});
    print_table(rows_table(table_));
  }

  const Options& options_;
  BenchRun run_;
  timing::RandomData data_;
  std::vector<NamedShape> shapes_;
  std::vector<std::string> ops_, presets_, caches_;
  std::vector<int> rows_, batches_, contexts_, prompts_;
  timing::Baselines baselines_;
  size_t rotated_ = 0;
  std::vector<std::unique_ptr<timing::LibraryOps>> libraries_;  // as kLibraryFormats
  std::vector<OpRow> table_;
};

constexpr const char* kFooter =
    R"(Each operation runs on random data, over as many distinct weights or caches as exceed the
device's caches; short ones are recorded (a CUDA graph on a GPU). Ours and the library's
take turns. chain: the four linears of a layer in sequence; chain+producers: with norms,
gate and the quantization of attention's output between them. attention: a decoding step,
with RoPE and the appending of K and V; prefill: a whole prompt. int4.open, k8v4.open: with
an open page in INT8. roofline: what the ceilings allow, over the time; of norm, gate and
quantize against copying. x baseline: how many times as fast as the fastest baseline in 16
bits (f32 on a CPU; of norm, gate and quantize the same without quantization).
Defaults are longer on a GPU.

--tune times every kernel plan of the linears of --shapes and --presets, and of a head in 16
bits, for --rows, and writes the fastest to a file for --tuned. It begins with what --tuned
has; a plan in use stays if no other is more than 1 % faster. Options of other operations
have no effect.

JSON keys: backend, ceilings {read_bytes_per_second, copy_bytes_per_second,
operations_per_second_16, operations_per_second_8, origin}, method, rounds, sustained,
library, rotated_bytes, rows [{operation, shape, format, rows, context (null: none), us,
median_us, spread, bytes, bytes_per_second, operations_per_second, roofline (null: no
ceiling), baselines_us {name: us}, times_baseline (null: no baseline)}], peak_rss.
With --tune, instead of library and rows: file, linears [{shape, preset, linear, n, k, rows,
choices, before, before_us, after, after_us}])";

int run(const Options& options) {
  start(options.bench.common);
  catch_signals();
  if (options.tune.empty())
    OpsVerb(options).run();
  else
    tune_linears({options.bench, options.tune, options.presets, options.rows, options.rotate});
  return kSuccess;
}

}  // namespace

void add(Program& program, CLI::App& parent) {
  CLI::App& verb =
      add_verb(parent, {.name = "ops",
                        .text = "Operations at the shapes of models, against a library",
                        .footer = kFooter});
  const auto options = std::make_shared<Options>();
  add_bench_options(verb, options->bench);
  text_option(
      verb, "--ops", options->ops,
      {"LIST", "Of linear, chain, chain+producers, norm, gate,\nquantize, attention, prefill"});
  text_option(verb, "--presets", options->presets,
              {"LIST", "Formats as quantize has them; fp: 16 bits [w4a8,w4a4]"});
  text_option(verb, "--rows", options->rows, {"LIST", "Rows (tokens) of linears and producers"});
  text_option(verb, "--batch", options->batch, {"LIST", "Sequences of attention"});
  text_option(verb, "--context", options->context, {"LIST", "Positions of each sequence"});
  flag_option(verb, "--ragged", options->ragged, {"", "Positions drawn from 1 to --context"});
  text_option(verb, "--prompt", options->prompt, {"LIST", "Tokens of prefill"});
  text_option(verb, "--kv", options->kv,
              {"LIST", "Of f32, f16, int8, int4, k8v4, int4.open, k8v4.open"});
  text_option(verb, "--baseline", options->baseline,
              {"FILE", "Times of others (bench/baselines/*.py)"});
  text_option(verb, "--tune", options->tune,
              {"FILE", "Measure plans of linears and write the fastest here"});
  whole_option(verb, "--rotate", options->rotate, {.min = 0, .max = 1 << 20},
               {"MIB", "Weights or caches to go through [4 caches, 256]"});
  add_compute_options(verb, options->bench.common);
  add_output_options(verb, options->bench.common);
  on_run(program, verb, [options] { return run(*options); });
}

}  // namespace atom::app::bench_ops
