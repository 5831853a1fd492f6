// Second moments of a layer's activations in floating point, from which transforms and orders are made.
#pragma once

#include <vector>

#include "model/config.h"
#include "quantizer/calibrate.h"

namespace atom::quantizer {

// Channels stand as in the checkpoint, norm gains folded: the inputs of qkv and ffn are x / rms(x).
class Moments {
 public:
  Moments(const model::ModelConfig& config, Executor& executor, Solver& solver);
  void add(const ObservedInput& input);
  // Once all rows are in. Error naming `layer`: energies that are not finite.
  void finish(int layer);

  const Gram& qkv() const { return qkv_; }
  // Sum of the inputs of qkv, [hidden]; over qkv().rows tokens.
  const std::vector<double>& qkv_sum() const { return qkv_sum_; }
  const Gram& ffn() const {
    return ffn_;
  }  // a token that is routed to several experts counts once for each
  // Of the input of o_proj, query head by query head: [heads][d, d].
  const std::vector<std::vector<float>>& heads() const { return heads_; }
  // Energies of the inputs of down_proj, per expert, and how many tokens they are the sum of.
  const std::vector<std::vector<double>>& down() const { return down_; }
  const std::vector<int64_t>& down_rows() const { return down_rows_; }

 private:
  int head_dim_;
  Executor& executor_;
  Solver& solver_;
  Gram qkv_, ffn_;
  std::vector<double> qkv_sum_;
  std::vector<std::vector<float>> heads_;
  std::vector<std::vector<double>> down_;
  std::vector<int64_t> down_rows_;
  std::vector<float> head_rows_;
};

}  // namespace atom::quantizer
