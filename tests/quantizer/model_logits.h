// Logits of a checkpoint, for tests that compare quantized models with their source.
//
//   const double error = squared_distance(logits(folder / "out", ids), logits(folder / "in", ids));
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "backend/open.h"
#include "kv/pool.h"
#include "model/forward.h"
#include "model/weights.h"

namespace atom::testing {

// Logits of one sequence, in one step.
inline std::vector<float> logits(const checkpoint::ModelFiles& files,
                                 const std::vector<int32_t>& ids, const char* name = "cpu") {
  Executor executor({.threads = 2});
  const auto backend = backend::open_backend(name, {.executor = &executor});
  const auto model = model::load_model(files, *backend, {.kv = format::KvKind::kF32});
  const model::ModelConfig& config = model->config;
  const int rows = static_cast<int>(ids.size());
  model::Forward forward(config, *backend, {.max_rows = rows, .max_positions = rows});
  const format::KvLayout layout{
      .kind = format::KvKind::kF32, .kv_heads = config.kv_heads, .head_dim = config.head_dim};
  const int pages = kv::pages_for(rows, layout);
  kv::Pool pool(*backend, std::vector(static_cast<size_t>(config.layers), layout), pages);
  const std::vector<int32_t> table = model::consecutive_pages(0, pages);
  const backend::Buffer h = backend->allocate(sizeof(float) * rows * config.hidden);
  const backend::Buffer y = backend->allocate(sizeof(float) * rows * config.vocabulary);
  const backend::SequenceStep step{.row_end = rows, .position = 0, .page_table = table.data()};
  forward.embed(*model->ends, ids, h.as<float>());
  for (int i = 0; i < config.layers; ++i)
    forward.layer(*model->layers[i], pool, i, {&step, 1}, rows, h.as<float>());
  forward.head(*model->ends, h.as<float>(), rows, y.as<float>());
  std::vector<float> out(static_cast<size_t>(rows) * config.vocabulary);
  backend->download(out.data(), y.data(), out.size() * sizeof(float));
  return out;
}
inline std::vector<float> logits(const std::filesystem::path& folder,
                                 const std::vector<int32_t>& ids, const char* name = "cpu") {
  return logits(checkpoint::ModelFiles::open(folder), ids, name);
}

inline double squared_distance(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
  return sum;
}

}  // namespace atom::testing
