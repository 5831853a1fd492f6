// Random models: formats as asked, values of the size that is promised, finite logits on every backend.
#include "model/random_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "backend/open.h"
#include "base/executor.h"
#include "model/forward.h"

namespace atom::model {
namespace {

ModelConfig small_config(int experts) {
  ModelConfig config;
  config.family = &find_family(experts > 1 ? "MixtralForCausalLM" : "LlamaForCausalLM", "test");
  config.vocabulary = 96;
  config.hidden = 256;
  config.intermediate = 384;
  config.layers = 2;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_dim = 64;
  config.max_positions = 256;
  config.norm_epsilon = 1e-5f;
  config.rope_theta = 10000;
  config.experts = experts;
  config.experts_per_token = experts > 1 ? 2 : 1;
  return config;
}

Scheme scheme_of(const ModelConfig& config, const LinearScheme& linear, format::KvKind kv) {
  Scheme scheme;
  scheme.quantized = true;
  scheme.kv.assign(static_cast<size_t>(config.layers), kv);
  for (const std::string& module : linear_modules(config)) scheme.linears.emplace(module, linear);
  return scheme;
}

struct FormatCase {
  format::Format weight, input;
  int kept;
};
const FormatCase kFormats[] = {
    {format::kF32, format::kF32, 0},           {format::kInt8, format::kInt8, 0},
    {format::int4(128), format::kF32, 0},      {format::int4(0), format::int4(0), 64},
    {format::int4(64), format::int4(64), 128}, {format::int4_progressive(128), format::kInt8, 128},
    {format::e2m1(32), format::e2m1(32), 128}, {format::kMxfp4, format::kMxfp4, 128},
    {format::kNvfp4, format::kNvfp4, 0}};

LinearScheme linear_scheme(const FormatCase& c) {
  LinearScheme scheme{.weight = c.weight, .input = c.input};
  scheme.kept = c.kept;
  if (c.kept > 0) scheme.kept_weight = scheme.kept_input = format::kInt8;
  return scheme;
}

TEST(RandomLinear, HasTheFormatsAndTheDeviation) {
  constexpr int kOutputs = 64, kInputs = 512;
  for (const FormatCase& c : kFormats) {
    SCOPED_TRACE(format::name(c.weight));
    Random random(3);
    const format::Segments segments = weight_segments(linear_scheme(c), kInputs);
    const LinearTensors w = random_linear("w", kOutputs, kInputs, segments, random);
    EXPECT_EQ(w.segments.at[0].format, c.weight == format::kF32 ? format::kF16 : c.weight);
    EXPECT_EQ(w.segments.at[0].size, kInputs - c.kept);
    EXPECT_EQ(w.segments.at[1].size, c.kept);
    double squares = 0;
    for (const float value : to_f32(w)) {
      ASSERT_TRUE(std::isfinite(value));
      squares += double{value} * value;
    }
    // Promised 1 / k. Scales that are powers of two, and multipliers of 1 to 15, move it by a factor below 2.
    EXPECT_GT(squares / kOutputs, 0.5);
    EXPECT_LT(squares / kOutputs, 2.0);
  }
}

TEST(RandomLinear, SeedsGiveTheBits) {
  const format::Segments segments = format::whole(format::int4(128), 256);
  Random a(1), b(1), c(2);
  const LinearTensors first = random_linear("w", 32, 256, segments, a);
  EXPECT_EQ(first.part[0].codes, random_linear("w", 32, 256, segments, b).part[0].codes);
  EXPECT_NE(first.part[0].codes, random_linear("w", 32, 256, segments, c).part[0].codes);
}

// Logits of two steps of two sequences.
std::vector<float> logits_of(const Model& model) {
  backend::Backend& backend = *model.backend;
  const ModelConfig& config = model.config;
  Forward forward(config, backend, {.max_rows = 2, .max_positions = 128});
  std::vector<format::KvLayout> layouts;
  for (const format::KvKind kind : model.scheme.kv)
    layouts.push_back({.kind = kind,
                       .kv_heads = config.kv_heads,
                       .head_dim = config.head_dim,
                       .open_page = model.scheme.open_page && format::has_int4_side(kind)});
  kv::Pool pool(backend, layouts, 4, 2);
  fill_random(pool, backend, 9);
  const int32_t pages[2][2] = {{2, 0}, {3, 1}};
  const backend::Buffer h = backend.allocate(sizeof(float) * 2 * config.hidden);
  const backend::Buffer logits = backend.allocate(sizeof(float) * 2 * config.vocabulary);
  for (const int position : {70, 71}) {
    const std::vector<int32_t> ids = {5, position};
    backend::SequenceStep steps[2];
    for (int i = 0; i < 2; ++i)
      steps[i] = {.row_begin = i,
                  .row_end = i + 1,
                  .position = position,
                  .page_table = pages[i],
                  .open_page = i};
    forward.embed(*model.ends, ids, h.as<float>());
    for (int i = 0; i < config.layers; ++i)
      forward.layer(*model.layers[i], pool, i, steps, 2, h.as<float>());
    forward.head(*model.ends, h.as<float>(), 2, logits.as<float>());
  }
  std::vector<float> out(2 * static_cast<size_t>(config.vocabulary));
  backend.download(out.data(), logits.data(), logits.bytes());
  return out;
}

double mean_square(const std::vector<float>& values) {
  double sum = 0;
  for (const float value : values) sum += double{value} * value;
  return sum / static_cast<double>(values.size());
}

TEST(RandomModel, LogitsAreFiniteAndTheSameOnBothBackends) {
  Executor executor({.threads = 2});
  const auto reference = backend::open_backend("reference", {});
  const auto cpu = backend::open_backend("cpu", {.executor = &executor});
  for (const int experts : {1, 4})
    for (const FormatCase& c : kFormats) {
      SCOPED_TRACE(format::name(c.weight) + " x " + std::to_string(experts));
      const ModelConfig config = small_config(experts);
      Scheme scheme = scheme_of(config, linear_scheme(c), format::KvKind::kInt4);
      scheme.open_page = scheme.key_offset = true;
      scheme.qk_hadamard = 64;
      const RandomModelOptions options = {.config = config, .scheme = scheme};
      const std::vector<float> expected = logits_of(*make_random_model(*reference, options).model);
      const std::vector<float> got = logits_of(*make_random_model(*cpu, options).model);
      // A final norm and a head of variance 1 / k: logits of variance about 1.
      EXPECT_GT(mean_square(expected), 0.3);
      EXPECT_LT(mean_square(expected), 3.0);
      std::vector<float> difference(got.size());
      for (size_t i = 0; i < got.size(); ++i) difference[i] = got[i] - expected[i];
      // Codes on a tie may round apart, and a router may choose apart; anything else is far smaller than this.
      EXPECT_LT(mean_square(difference), experts > 1 ? 0.5 : 0.02);
    }
}

TEST(RandomModel, EveryCacheFormatIsFilled) {
  const auto reference = backend::open_backend("reference", {});
  const ModelConfig config = small_config(1);
  for (const format::KvKind kv : {format::KvKind::kF32, format::KvKind::kF16, format::KvKind::kInt8,
                                  format::KvKind::kInt4, format::KvKind::kInt8Int4}) {
    SCOPED_TRACE(format::name(kv));
    Scheme scheme;
    scheme.kv.assign(2, kv);
    const RandomModel random = make_random_model(*reference, {.config = config, .scheme = scheme});
    const double square = mean_square(logits_of(*random.model));
    EXPECT_GT(square, 0.3);
    EXPECT_LT(square, 3.0);
    EXPECT_EQ(random.bytes.head, 2 * 96 * 256);
    EXPECT_EQ(random.bytes.expert, 2 * 3 * 384 * 256);
    EXPECT_EQ(random.bytes.attention, 2 * 256 * (2 * 256 + 2 * 128));
  }
}

}  // namespace
}  // namespace atom::model
