// Observation of a model at work: a backend decorator that looks at the inputs of linears, the
// statistics made of them, and the calibration windows that are driven through the layers one layer
// at a time.
//
//   ObservingBackend observing(backend);
//   Windows windows(config, observing, {.ids = ids, .samples = 128, .sequence = 2048});
//   windows.embed(files);
//   observing.observe(*layer, [&](const ObservedInput& input) { energies.add(input); });
//   windows.run(*layer, format::KvKind::kF32, Windows::After::kAdvance);
//   observing.stop();
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "backend/forwarding.h"
#include "base/executor.h"
#include "checkpoint/model_files.h"
#include "format/format.h"
#include "kv/pool.h"
#include "model/forward.h"
#include "model/weights.h"
#include "quantizer/order.h"
#include "quantizer/solver.h"

namespace atom::quantizer {

enum class SiteKind { kQkv, kOut, kFfn, kDown };

// Tokens below which an input says too little: its weights are rounded to nearest and not equalized.
inline constexpr int kFewRows = 32;

// Rows that one linear is about to multiply, as it sees them: ordered, quantized, dequantized.
struct ObservedInput {
  SiteKind site = SiteKind::kQkv;
  int expert = 0;            // of ffn and down: only the rows routed to it
  const float* x = nullptr;  // [rows, k], host memory, valid during the call
  int rows = 0;
  int k = 0;
};

// sums[c] += sum over rows of x[.., c]^2; sums = [k].
void add_squares(Executor& executor, const ObservedInput& input, std::vector<double>& sums);

// Forwards everything to `inner`; shows the inputs of one layer's linears before they are
// multiplied.
class ObservingBackend final : public backend::ForwardingBackend {
 public:
  using Sink = std::function<void(const ObservedInput&)>;
  explicit ObservingBackend(backend::Backend& inner) : ForwardingBackend(inner) {}

  void observe(const model::Layer& layer, Sink sink);  // the layer must outlive the observation
  void stop();

  void linear(const backend::LinearArgs& args) override;
  // Called each time: a device that replays would pass linear() by.
  std::unique_ptr<backend::Recording> record(backend::StepFunction step) override {
    return Backend::record(std::move(step));
  }

 private:
  void show(const backend::LinearArgs& args, SiteKind site);
  void show_routed(const backend::LinearArgs& args, SiteKind site, int k);

  const model::Layer* layer_ = nullptr;  // none: nothing is observed
  Sink sink_;
  backend::Buffer device_rows_;
  std::vector<float> rows_, routed_rows_;
};

// Sum of x^2 per channel: of qkv, out and ffn over all rows (a token that is routed to several
// experts counts once for each), of down per expert.
class Energies {
 public:
  Energies(const model::ModelConfig& config, Executor& executor);
  void add(const ObservedInput& input);
  // Error naming `layer`: energies that are not finite.
  LayerOrders orders(int layer) const;

 private:
  std::vector<double>& of(const ObservedInput& input);

  Executor& executor_;
  std::vector<double> qkv_, out_, ffn_;
  std::vector<std::vector<double>> down_;
};

// Second moments of the inputs of one layer; gate_up and down per expert.
class Grams {
 public:
  Grams(const model::ModelConfig& config, Solver& solver);
  void clear();
  void add(const ObservedInput& input);
  void finish();  // once all rows are in
  const Gram& of(SiteKind site, int expert) const;

  // Bytes that the grams of one layer take.
  static int64_t bytes(const model::ModelConfig& config);

 private:
  size_t index(SiteKind site, int expert) const;

  Solver& solver_;
  int experts_ = 1;
  std::vector<Gram> grams_;  // qkv, out, ffn of each expert, down of each expert
};

// `samples` windows of `sequence` tokens and their hidden states, in host memory.
class Windows {
 public:
  struct Options {
    std::span<const int32_t> ids;  // of the calibration text, at least one window
    int samples = 128;
    int sequence = 2048;
    uint64_t seed = 0;  // of the windows' starts: the draws of the published code
    std::function<void(double done)>
        on_step;  // share of a run() that is done, in (0, 1]; may be empty
  };
  enum class After { kAdvance, kDiscard };  // hidden states: take the layer's output, or stay

  Windows(const model::ModelConfig& config, backend::Backend& backend, const Options& options);

  void embed(const checkpoint::ModelFiles& files);
  void run(const model::Layer& layer, format::KvKind kv, After after) {
    run(layer, kv, after, tokens());
  }
  // Runs only the first `rows` or a few more and discards the result, without a word to on_step.
  void sample(const model::Layer& layer, format::KvKind kv, int64_t rows);
  // Hidden states h -> h Q, Q = [hidden, hidden] row-major.
  void rotate(std::span<const float> basis, Solver& solver);
  // RMSNorm of the hidden states, step by step, as the head would see them.
  void final_norm(std::span<const float> gain,
                  const std::function<void(const float* x, int rows)>& sink);

  const std::vector<int32_t>& starts() const { return starts_; }
  std::span<const float> hidden() const { return hidden_; }  // [samples * sequence, hidden]
  void set_hidden(std::vector<float> hidden) { hidden_ = std::move(hidden); }
  int64_t tokens() const { return int64_t{samples_} * sequence_; }

 private:
  // Consecutive rows of hidden_ that go through a layer together.
  struct Step {
    int64_t first_row;
    int rows;
    std::vector<backend::SequenceStep> sequences;
  };
  std::vector<Step> steps() const;
  void run(const model::Layer& layer, format::KvKind kv, After after, int64_t rows_wanted);

  model::ModelConfig config_;
  backend::Backend& backend_;
  int samples_ = 0, sequence_ = 0, step_rows_ = 0;
  std::vector<int32_t> starts_;
  std::vector<int32_t> ids_;  // [samples * sequence]
  std::vector<int32_t> pages_;
  std::vector<float> hidden_;
  std::function<void(double)> on_step_;
  model::Forward forward_;
  backend::Buffer step_hidden_;
};

}  // namespace atom::quantizer
