// The device's side of a step: rows of many sequences go through the model, and their next ids are sampled.
#pragma once

#include <optional>
#include <span>
#include <vector>

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
  };
  ModelRunner(const model::Model& model, const Options& options);

  // The id after each chunk that samples; draws one number of its sequence, and adds the logprobs of prompts to theirs.
  std::vector<NextId> run(std::span<const Chunk> chunks);
  int64_t cache_bytes() const { return pool_.bytes(); }

 private:
  std::vector<backend::SequenceStep> forward(std::span<const Chunk> chunks);
  void score_prompt(Sequence& sequence, const backend::SequenceStep& step);
  std::vector<NextId> sample(std::span<Sequence* const> sequences);
  const float* row(int index) const;  // of h_
  std::vector<float> download_logits(int index) const;

  const model::Model& model_;
  Options options_;
  model::Forward forward_;
  kv::Pool pool_;
  backend::Buffer h_;       // f32 [max_rows, hidden]
  backend::Buffer logits_;  // f32 [max_sequences, vocabulary]
};

}  // namespace atom::engine
