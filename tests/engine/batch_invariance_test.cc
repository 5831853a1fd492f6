// With batch_invariant, a row's logits have the same bits whatever else is in its step: alone, in the middle of few or
// many rows of other sequences, beside their prompts. Backends that always hold this are held to it, too.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "backend/open.h"
#include "base/error.h"
#include "base/executor.h"
#include "model/forward.h"
#include "model/random_model.h"
#include "testing/sanitized.h"

namespace atom::engine {
namespace {

constexpr int kPagesEach = 4;  // of a sequence; a page has 64 positions
constexpr int kSequences =
    141;  // that the cache has room for; how it is filled depends on its size
constexpr uint64_t kSeed = 4;

struct Formats {
  const char* name;
  format::Format weight, input;
  int kept;
  format::KvKind kv;
};
const Formats kFormats[] = {
    {"w16a16", format::kF32, format::kF32, 0, format::KvKind::kF16},
    {"w4a16", format::int4(128), format::kF32, 0, format::KvKind::kF16},
    {"w8a8", format::kInt8, format::kInt8, 0, format::KvKind::kInt8},
    {"w4a8", format::int4_progressive(128), format::kInt8, 128, format::KvKind::kInt4},
    {"w4a4", format::int4(128), format::int4(128), 128, format::KvKind::kInt4}};

model::ModelConfig wide_config() {
  model::ModelConfig config;
  config.family = &model::find_family("LlamaForCausalLM", "test");
  config.vocabulary = 512;
  config.hidden = 1024;
  config.intermediate = 1408;
  config.layers = 2;
  config.heads = 8;
  config.kv_heads = 2;
  config.head_dim = 128;
  config.max_positions = 64 * kPagesEach;
  config.norm_epsilon = 1e-5f;
  config.rope_theta = 10000;
  config.experts = config.experts_per_token = 1;
  return config;
}

model::Scheme scheme_of_formats(const model::ModelConfig& config, const Formats& formats) {
  model::LinearScheme linear{.weight = formats.weight, .input = formats.input};
  linear.kept = formats.kept;
  if (formats.kept > 0) linear.kept_weight = linear.kept_input = format::kInt8;
  model::Scheme scheme;
  scheme.quantized = true;
  scheme.kv.assign(static_cast<size_t>(config.layers), formats.kv);
  scheme.open_page = format::has_int4_side(formats.kv);
  for (const std::string& module : model::linear_modules(config))
    scheme.linears.emplace(module, linear);
  return scheme;
}

// A sequence of a step: its first row's position, and how many rows it has.
struct Part {
  int position, rows;
};

// Logits of the last row of the part `which`, which owns the same pages and tokens wherever it stands. Others own others.
std::vector<float> logits_of(const model::Model& model, const std::vector<Part>& parts,
                             size_t which) {
  backend::Backend& backend = *model.backend;
  const model::ModelConfig& config = model.config;
  int rows = 0;
  for (const Part& part : parts) rows += part.rows;
  model::Forward forward(config, backend,
                         {.max_rows = rows, .max_positions = config.max_positions});
  std::vector<format::KvLayout> layouts;
  for (const format::KvKind kind : model.scheme.kv)
    layouts.push_back({.kind = kind,
                       .kv_heads = config.kv_heads,
                       .head_dim = config.head_dim,
                       .open_page = model.scheme.open_page});
  kv::Pool pool(backend, layouts, kSequences * kPagesEach, kSequences);
  model::fill_random(pool, backend, kSeed);
  std::vector<std::vector<int32_t>> pages;
  std::vector<backend::SequenceStep> steps;
  std::vector<int32_t> ids;
  size_t last = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const int owner = i == which ? 0 : static_cast<int>(i < which ? i + 1 : i);
    pages.push_back(model::consecutive_pages(owner * kPagesEach, kPagesEach));
    const int begin = static_cast<int>(ids.size());
    for (int row = 0; row < parts[i].rows; ++row)
      ids.push_back((owner * 37 + row * 11 + 5) % config.vocabulary);
    steps.push_back({.row_begin = begin,
                     .row_end = static_cast<int>(ids.size()),
                     .position = parts[i].position,
                     .open_page = owner});
    if (i == which) last = ids.size() - 1;
  }
  for (size_t i = 0; i < steps.size(); ++i) steps[i].page_table = pages[i].data();
  const auto hidden = static_cast<size_t>(config.hidden);
  const backend::Buffer h = backend.allocate(sizeof(float) * ids.size() * hidden);
  forward.embed(*model.ends, ids, h.as<float>());
  for (int i = 0; i < config.layers; ++i)
    forward.layer(*model.layers[static_cast<size_t>(i)], pool, i, steps, rows, h.as<float>());
  const auto vocabulary = static_cast<size_t>(config.vocabulary);
  const backend::Buffer logits = backend.allocate(sizeof(float) * ids.size() * vocabulary);
  forward.head(*model.ends, h.as<float>(), rows, logits.as<float>());
  std::vector<float> out(vocabulary);
  backend.download(out.data(), logits.as<float>() + last * vocabulary, vocabulary * sizeof(float));
  return out;
}

// `part` in the middle of `count` others of one row, at positions of all kinds.
std::vector<Part> among(const Part& part, int count) {
  std::vector<Part> parts;
  for (int i = 0; i < count; ++i) parts.push_back({i * 29 % (64 * kPagesEach - 1), 1});
  parts.insert(parts.begin() + (count + 1) / 2, part);
  return parts;
}

class BatchInvariance : public ::testing::TestWithParam<std::string> {
 protected:
  Executor executor_{{.threads = 2}};
};

TEST_P(BatchInvariance, LogitsDoNotDependOnTheOtherRows) {
  std::unique_ptr<backend::Backend> backend;
  try {
    const char* plugin = std::getenv("ATOM_CUDA_PLUGIN");
    backend = backend::open_backend(GetParam(), {.executor = &executor_,
                                                 .cuda_plugin = plugin == nullptr ? "" : plugin,
                                                 .batch_invariant = true});
  } catch (const Error& error) {
    GTEST_SKIP() << error.what();
  }
  for (const Formats& formats : kFormats) {
    SCOPED_TRACE(formats.name);
    const model::ModelConfig config = wide_config();
    const model::RandomModel random = model::make_random_model(
        *backend, {.config = config, .scheme = scheme_of_formats(config, formats)});
    const auto check = [&](const Part& part, const std::vector<std::vector<Part>>& batches) {
      const std::vector<float> alone = logits_of(*random.model, {part}, 0);
      ASSERT_TRUE(std::isfinite(alone[0]));
      for (const std::vector<Part>& batch : batches) {
        const size_t which = batch.size() / 2;
        const std::vector<float> got = logits_of(*random.model, batch, which);
        EXPECT_EQ(std::memcmp(got.data(), alone.data(), alone.size() * sizeof(float)), 0)
            << part.rows << " rows among " << batch.size() - 1 << " other sequences";
      }
    };
    const Part one{130, 1}, chunk{70, 37};
    check(one, {among(one, 1), among(one, 8), among(one, 17)});
    if (!testing::kSanitized) check(one, {among(one, 40), among(one, 140)});
    check(chunk, {among(chunk, 2), {{0, 90}, chunk}, {{10, 200}, chunk, {64, 64}}});
  }
}

INSTANTIATE_TEST_SUITE_P(All, BatchInvariance, ::testing::Values("cpu", "cuda"),
                         [](const auto& one) { return one.param; });

}  // namespace
}  // namespace atom::engine
