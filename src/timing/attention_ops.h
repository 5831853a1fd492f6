// Attention over random caches, to be timed: a decoding step of a batch, or whole prompts.
//
//   const AttentionOps decode(backend, config, {.cache = KvKind::kInt4, .contexts = std::vector<int>(64, 1024)}, data,
//                             rotated);
//   time_operations(backend, {decode.operation()}, options);
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "kv/pool.h"
#include "model/config.h"
#include "timing/operation.h"
#include "timing/random_data.h"

namespace atom::timing {

struct AttentionShape {
  format::KvKind cache = format::KvKind::kInt4;
  bool open_page = false;
  std::vector<int> contexts;  // positions of each sequence, those of the step included
  bool prompts = false;       // all positions are rows of the step, as opposed to the last one
};

// With RoPE and the appending of K and V, as the operation has them; the result in f32.
class AttentionOps {
 public:
  AttentionOps(backend::Backend& backend, const model::ModelConfig& config,
               const AttentionShape& shape, RandomData& data, size_t rotated);
  AttentionOps(const AttentionOps&) = delete;
  AttentionOps& operator=(const AttentionOps&) = delete;

  Operation operation() const;
  double cache_bytes() const { return cache_bytes_; }  // that the sequences' positions take

 private:
  void make_sequences(const AttentionShape& shape);

  backend::Backend& backend_;
  model::ModelConfig config_;
  format::KvLayout layout_;
  int rows_ = 0, page_count_ = 0;
  double cache_bytes_ = 0, products_ = 0;
  std::vector<std::vector<int32_t>> pages_;
  std::vector<backend::SequenceStep> sequences_;
  backend::InputSpec plain_;
  backend::Buffer qkv_, cos_, sin_, y_;  // qkv_: f16 where the backend has such rows
  std::vector<kv::Pool> pools_;
};

}  // namespace atom::timing
