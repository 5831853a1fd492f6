// Whole quantizations with transforms.
#include <gtest/gtest.h>

#include <algorithm>

#include "backend/open.h"
#include "kv/pool.h"
#include "model/forward.h"
#include "model/weights.h"
#include "quantizer/quantize_job.h"
#include "quantizer/random_checkpoint.h"
#include "testing/temp_folder.h"

namespace atom::quantizer {
namespace {

namespace fs = std::filesystem;
using atom::testing::contents;
using atom::testing::Job;
using atom::testing::TempFolder;
using atom::testing::write_random_checkpoint;

// [40, vocabulary], of the first 40 ids.
std::vector<float> first_logits(const checkpoint::ModelFiles& files, std::span<const int32_t> ids) {
  Executor executor({.threads = 1});
  const auto backend = backend::make_cpu_backend({.executor = &executor, .isa = ""});
  const auto model = model::load_model(files, *backend, {.kv = {}, .progress = {}});
  constexpr int kRows = 40;
  model::Forward forward(model->config, *backend, {.max_rows = kRows, .max_positions = kRows});
  std::vector<format::KvLayout> layouts;
  for (const format::KvKind kind : model->scheme.kv)
    layouts.push_back(
        {.kind = kind, .kv_heads = model->config.kv_heads, .head_dim = model->config.head_dim});
  kv::Pool pool(*backend, layouts, kv::pages_for(kRows, layouts[0]));
  const std::vector<int32_t> pages = model::consecutive_pages(0, pool.pages());
  const backend::SequenceStep step{
      .row_begin = 0, .row_end = kRows, .position = 0, .page_table = pages.data()};
  const size_t width = static_cast<size_t>(model->config.vocabulary);
  const backend::Buffer h =
      backend->allocate(sizeof(float) * kRows * static_cast<size_t>(model->config.hidden));
  const backend::Buffer y = backend->allocate(sizeof(float) * kRows * width);
  forward.embed(*model->ends, ids.first(kRows), h.as<float>());
  for (int i = 0; i < model->config.layers; ++i)
    forward.layer(*model->layers[static_cast<size_t>(i)], pool, i, {&step, 1}, kRows,
                  h.as<float>());
  forward.head(*model->ends, h.as<float>(), kRows, y.as<float>());
  std::vector<float> out(kRows * width);
  backend->download(out.data(), y.data(), out.size() * sizeof(float));
  return out;
}

Job transformed_job() {
  Job job;
  job.recipe.transform = {
      .equalize = true, .heads = true, .residual = true, .down = true, .center = true};
  job.recipe.clip_weights = job.recipe.clip_activations = 0;
  return job;
}

TEST(TransformedModel, TransformedModelsHaveTheSameBytesForAnyThreadCount) {
  for (const int experts : {1, 4}) {
    const TempFolder folder;
    write_random_checkpoint(folder / "in", {.experts = experts});
    std::map<std::string, std::string> first;
    for (const int threads : {1, 3}) {
      Job job = transformed_job();
      job.threads = threads;
      const fs::path out = folder / ("out" + std::to_string(threads));
      job.run(folder / "in", out);
      if (first.empty()) first = contents(out);
      EXPECT_EQ(contents(out), first) << experts << " experts";
    }
  }
}

// |a - b|^2 / |a|^2 of the logits of a quantized model, b, and its source, a.
double logits_error(const fs::path& source, const fs::path& quantized, const Job& job) {
  const std::vector<float> a = first_logits(checkpoint::ModelFiles::open(source), job.ids);
  const std::vector<float> b = first_logits(checkpoint::ModelFiles::open(quantized), job.ids);
  double error = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    error += (a[i] - b[i]) * (a[i] - b[i]);
    size += a[i] * a[i];
  }
  return error / size;
}

// A tied pair stays as it is and the stream is turned at run time; other ends take the new basis, and the head the
// gains of the final norm.
void expect_ends(const checkpoint::ModelFiles& in, const checkpoint::ModelFiles& out, bool tied) {
  EXPECT_EQ(out.config().at("tie_word_embeddings"), tied);
  EXPECT_EQ(out.has("lm_head.weight"), !tied);
  EXPECT_EQ(out.has("model.stream_basis.weight"), tied);
  EXPECT_EQ(out.config().at("quantization_config").contains("stream_basis"), tied);
  for (const std::string name : {"model.embed_tokens.weight", "model.norm.weight"})
    EXPECT_EQ(std::ranges::equal(in.tensor(name).bytes, out.tensor(name).bytes), tied) << name;
  if (tied) return;
  const std::vector<float> norm = tensor::widen(out.tensor("model.norm.weight"));
  EXPECT_TRUE(std::all_of(norm.begin(), norm.end(), [](float v) { return v == 1; }));
}

TEST(TransformedModel, WithoutARotatedStreamTheEndsStay) {
  const TempFolder folder;
  write_random_checkpoint(folder / "in", {.layers = 2});
  Job job;
  job.recipe = preset("w8a8");
  job.recipe.transform = {.equalize = true, .heads = true, .down = true};
  job.run(folder / "in", folder / "out");
  const auto in = checkpoint::ModelFiles::open(folder / "in"),
             out = checkpoint::ModelFiles::open(folder / "out");
  EXPECT_FALSE(out.has("lm_head.weight"));
  EXPECT_FALSE(out.has("model.stream_basis.weight"));
  for (const std::string name : {"model.embed_tokens.weight", "model.norm.weight"})
    EXPECT_TRUE(std::ranges::equal(in.tensor(name).bytes, out.tensor(name).bytes)) << name;
}

// A quantized head is a tensor of its own anyway, and a checkpoint that other programs can read has no product that
// they do not know.
TEST(TransformedModel, TheStreamIsFoldedWhereATiedHeadCannotStay) {
  const TempFolder folder;
  write_random_checkpoint(folder / "in", {.layers = 2});
  Job job;
  job.recipe = preset("w8a8");
  job.recipe.transform = {.residual = true};
  job.recipe.head = format::kInt8;
  job.run(folder / "in", folder / "head");
  EXPECT_FALSE(checkpoint::ModelFiles::open(folder / "head").has("model.stream_basis.weight"));
  job.recipe = preset("w4a16");
  job.recipe.transform = {.residual = true};
  const QuantizeReport report = job.run(folder / "in", folder / "common");
  const auto common = checkpoint::ModelFiles::open(folder / "common");
  EXPECT_EQ(common.config().at("quantization_config").at("quant_method"), "compressed-tensors");
  EXPECT_FALSE(common.has("model.stream_basis.weight"));
  ASSERT_EQ(report.notices.size(), 1u);
  EXPECT_NE(report.notices[0].find("no longer tied"), std::string::npos) << report.notices[0];
}

// Rounded to int8, a transformed model is no further from the source than the source rounded as it is; a transform
// that does not fit gives an error of the order of 1.
TEST(TransformedModel, RoundsNoWorseThanTheSourceDoes) {
  for (const bool tied : {true, false}) {
    const TempFolder folder;
    write_random_checkpoint(folder / "in", {.layers = 2, .tied = tied, .bias = true});
    Job job;
    job.recipe = preset("w8a8");
    job.recipe.kv = {format::KvKind::kInt8};
    job.run(folder / "in", folder / "plain");
    job.recipe.transform = transformed_job().recipe.transform;
    job.run(folder / "in", folder / "out");
    expect_ends(checkpoint::ModelFiles::open(folder / "in"),
                checkpoint::ModelFiles::open(folder / "out"), tied);
    const double plain = logits_error(folder / "in", folder / "plain", job);
    EXPECT_GT(plain, 0);
    EXPECT_LT(logits_error(folder / "in", folder / "out", job), plain) << "tied " << tied;
  }
}

TEST(TransformedModel, HeadsOfA16BitModelAreTurnedForTheCache) {
  const TempFolder folder;
  write_random_checkpoint(folder / "in", {.layers = 2});
  Job job;
  job.recipe = preset("w16a16");
  job.recipe.kv = {format::KvKind::kInt8};
  job.recipe.transform = {.equalize = true, .heads = true, .center = true};
  job.run(folder / "in", folder / "out");
  const auto in = checkpoint::ModelFiles::open(folder / "in");
  const auto out = checkpoint::ModelFiles::open(folder / "out");
  const std::string v = "model.layers.1.self_attn.v_proj.weight",
                    up = "model.layers.1.mlp.up_proj.weight";
  EXPECT_EQ(out.tensor(v).dtype, tensor::DType::F16);
  EXPECT_TRUE(out.config().at("quantization_config").at("key_offset").get<bool>());
  EXPECT_EQ(out.tensor("model.layers.1.self_attn.key_offset").dtype, tensor::DType::F32);
  EXPECT_FALSE(std::ranges::equal(in.tensor(v).bytes, out.tensor(v).bytes));
  EXPECT_TRUE(std::ranges::equal(in.tensor(up).bytes, out.tensor(up).bytes));
  const std::vector<float> a = first_logits(in, job.ids), b = first_logits(out, job.ids);
  double error = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    error += (a[i] - b[i]) * (a[i] - b[i]);
    size += a[i] * a[i];
  }
  EXPECT_LT(error / size, 1e-3);  // f16 weights and an int8 cache
}

// The cache of a checkpoint as it is quantized and loaded again: 8 bits for K are better than 4, and 8 for both best.
TEST(TransformedModel, TheSidesOfTheCacheMayDiffer) {
  const TempFolder folder;
  write_random_checkpoint(folder / "in", {.layers = 2});
  Job job;
  job.recipe = preset("w16a16");
  std::vector<double> errors;
  for (const format::KvKind kind :
       {format::KvKind::kInt8, format::KvKind::kInt8Int4, format::KvKind::kInt4}) {
    job.recipe.kv = {kind};
    const fs::path out = folder / std::string(format::name(kind));
    job.run(folder / "in", out);
    errors.push_back(logits_error(folder / "in", out, job));
  }
  EXPECT_GT(errors[0], 0);
  EXPECT_LT(2 * errors[0], errors[1]);
  EXPECT_LT(errors[1], errors[2]);
}

}  // namespace
}  // namespace atom::quantizer
