#include "bench_tune.h"

#include <algorithm>

#include "base/file.h"
#include "bench_run.h"
#include "bench_tuned.h"
#include "console.h"
#include "timing/layer_ops.h"
#include "timing/memory.h"
#include "timing/tuning.h"

namespace atom::app {
namespace {

constexpr const char* kHeadPreset = "fp";  // heads have 16 bits in every preset

class TuneVerb {
 public:
  explicit TuneVerb(const TuneOptions& options)
      : options_(options),
        run_(options.bench),
        tuner_(run_.backend().linear_tuner()),
        data_(run_.backend(), 1, run_.between()) {
    const auto or_default = [](const std::string& text, const char* otherwise) {
      return text.empty() ? otherwise : text;
    };
    if (tuner_ == nullptr)
      usage_fail("--tune: {} has nothing to tune", run_.backend().description());
    shapes_ = shape_list("--shapes", or_default(options.bench.shapes, "llama-7b,llama2-70b"));
    presets_ = choice_list("--presets", or_default(options.presets, "w4a8,w4a4"), bench_presets());
    rows_ = whole_list("--rows", or_default(options.rows, "8,16,32,64,128,256,1024,4096"),
                       {.min = 1, .max = 1 << 17});
  }

  void run() {
    AtomicFile file(options_.file);  // refused now rather than after the work
    run_.measure_ceilings();
    rotated_ = run_.rotated(options_.rotate);
    require_memory();
    total_ = shapes_.size() * rows_.size() * (presets_.size() * timing::kSites + 1);
    for (const NamedShape& shape : shapes_) tune(shape);
    run_.finish();
    if (table_.empty())
      usage_fail("--presets: linears of {} have one kernel each", fmt::join(presets_, ", "));
    write_plans(file, *tuner_);
    if (options_.bench.common.json)
      report_json();
    else
      report();
  }

 private:
  void require_memory() const {
    const int rows = *std::max_element(rows_.begin(), rows_.end());
    for (const NamedShape& shape : shapes_)
      for (const std::string& preset : presets_)
        run_.require_memory(
            timing::layer_ops_memory(shape.config, scheme_of(shape, preset), rows, rotated_),
            fmt::format("--shapes: {} in {} with {} rows", shape.name, preset, rows),
            "fewer --rows and --rotate, and fewer bits by --presets,");
  }
  model::Scheme scheme_of(const NamedShape& shape, const std::string& preset) const {
    return bench_scheme(preset, options_.bench.method, "", shape.config);
  }

  void tune(const NamedShape& shape) {
    for (const std::string& preset : presets_) {
      run_.show(fmt::format("make      {} {}", shape.name, preset));
      const timing::LayerLinears linears = timing::make_linears(
          run_.backend(), shape.config, scheme_of(shape, preset), data_, rotated_);
      for (size_t site = 0; site < linears.size(); ++site)
        tune(shape, preset, std::string(timing::kSiteNames[site]), *linears[site]);
    }
    run_.show(fmt::format("make      {} {}", shape.name, timing::kHeadName));
    const auto head = timing::make_head(run_.backend(), shape.config, data_, rotated_);
    tune(shape, kHeadPreset, timing::kHeadName, *head);
  }

  void tune(const NamedShape& shape, const std::string& preset, const std::string& name,
            timing::LinearOp& linear) {
    timing::LinearTuning tuning(run_.backend(), *tuner_, run_.round_options(0.02));
    for (const int rows : rows_) {
      const double done = static_cast<double>(done_++) / static_cast<double>(total_);
      const double left = done > 0 ? watch_.seconds() * (1 - done) / done : -1;
      run_.show(fmt::format("tune      {} {} {} {} {} rows, {} left", progress_bar(done),
                            shape.name, preset, name, rows, human_seconds(left)));
      if (auto tuned = tuning.tune(linear, rows)) {
        tuned->name = name;
        table_.push_back({shape.name, preset, std::move(*tuned)});
      }
    }
  }

  void report_json() const {
    print_json(run_.json(
        {{"rotated_bytes", rotated_}, {"file", options_.file}, {"linears", tuned_json(table_)}}));
  }

  void report() const {
    print_tuned(table_, run_.backend(),
                fmt::format("us, best of {} rounds, over {} of weights", options_.bench.rounds,
                            human_bytes(static_cast<int64_t>(rotated_))),
                options_.file);
  }

  const TuneOptions& options_;
  BenchRun run_;
  std::unique_ptr<backend::LinearTuner> tuner_;
  timing::RandomData data_;
  std::vector<NamedShape> shapes_;
  std::vector<std::string> presets_;
  std::vector<int> rows_;
  size_t rotated_ = 0, done_ = 0, total_ = 0;
  Stopwatch watch_;
  std::vector<TunedRow> table_;
};

}  // namespace

void tune_linears(const TuneOptions& options) { TuneVerb(options).run(); }

}  // namespace atom::app
