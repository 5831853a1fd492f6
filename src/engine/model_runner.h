// The device's side of a step: rows of many sequences go through the model, and their next ids are sampled. Steps of one row a
// sequence are recorded (Backend::record: CUDA graphs on a GPU), one for each number of sequences that comes again.
#pragma once

#include <list>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/saturation.h"
#include "engine/scheduler.h"
#include "kv/pool.h"
#include "model/forward.h"

namespace atom::engine {

struct NextId {
  int32_t id = -1;  // -1: the logits are not finite
  std::optional<Logprobs> logprobs;
};

class ModelRunner {
 public:
  struct Options {
    int max_sequences = 64, max_rows = 512, max_positions = 2048, pages = 1;
    int saturation_steps = 0;  // SaturationProbe's period
  };
  ModelRunner(const model::Model& model, const Options& options);
  ModelRunner(const ModelRunner&) = delete;
  ModelRunner& operator=(const ModelRunner&) = delete;

  // The id after each chunk that samples; draws one number of its sequence, and adds the logprobs of prompts to theirs.
  std::vector<NextId> run(std::span<const Chunk> chunks);
  int64_t cache_bytes() const { return pool_.bytes(); }
  std::shared_ptr<const Saturation> saturation() const { return saturation_.totals(); }

 private:
  struct Placed {
    std::vector<int32_t> ids;
    std::vector<backend::SequenceStep> steps;
  };
  static Placed place(std::span<const Chunk> chunks);
  std::vector<NextId> run(std::span<const Chunk> chunks, const Placed& placed);
  // The rows of h_, of steps as they come.
  void forward(const Placed& placed);
  // Logits of steps of one row each, in their order.
  void decode(const Placed& placed);
  backend::Recording& recording(size_t sequences);
  void enqueue_decode(std::span<const backend::SequenceStep> steps);
  void enqueue_layers(std::span<const backend::SequenceStep> steps, int rows);
  void score_prompt(Sequence& sequence, const backend::SequenceStep& step);
  std::vector<NextId> sample(std::span<Sequence* const> sequences);
  const float* row(int index) const;  // of h_
  std::vector<float> download_logits(int index) const;

  const model::Model& model_;
  Options options_;
  model::Forward forward_;
  SaturationProbe saturation_;
  kv::Pool pool_;
  backend::Buffer h_;       // f32 [max_rows, hidden]
  backend::Buffer logits_;  // f32 [max_sequences, vocabulary]
  struct RecordedStep {
    size_t sequences = 0;
    std::unique_ptr<backend::Recording> recording;
  };
  std::list<RecordedStep> recorded_;  // the one that was used last in front
};

}  // namespace atom::engine
