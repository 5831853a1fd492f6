// The tiny checkpoint of every model family (tools/make_model_fixtures.py), quantized: the transforms change nothing but
// rounding, and the backends agree on the result, in one step and token by token.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "backend/open.h"
#include "base/file.h"
#include "base/json.h"
#include "model/forward.h"
#include "model/open_files.h"
#include "model/weights.h"
#include "quantizer/quantize.h"
#include "quantizer/random_checkpoint.h"
#include "testing/sanitized.h"
#include "testing/seeded_checkpoint.h"
#include "testing/temp_folder.h"

namespace atom::quantizer {
namespace {

namespace fs = std::filesystem;

std::vector<int32_t> family_ids() { return atom::testing::random_ids(300, 97); }

QuantizeReport quantize_family(const fs::path& in, const fs::path& out, const Recipe& recipe) {
  const auto files = model::open_files(in);
  Executor executor({.threads = 2});
  const auto backend = backend::make_cpu_backend({.executor = &executor});
  const std::vector<int32_t> ids = family_ids();
  return quantize({.input = &files,
                   .output = out,
                   .recipe = recipe,
                   .calibration = ids,
                   .calibration_name = "ids.txt",
                   .calibration_sha256 = std::string(64, 'a'),
                   .samples = 6,
                   .sequence = 24,
                   .seed = 1},
                  *backend, executor);
}

// [count, vocabulary] with the checkpoint's own KV-cache: `first` rows in one step, then token by token.
std::vector<float> family_logits(const fs::path& folder, const char* backend_name, int count,
                                 int first) {
  Executor executor({.threads = 2});
  const auto backend = backend::open_backend(backend_name, {.executor = &executor});
  const auto model = model::load_model(model::open_files(folder), *backend, {});
  const model::ModelConfig& config = model->config;
  model::Forward forward(config, *backend, {.max_rows = first, .max_positions = count});
  kv::Pool pool = model::make_pool(*model, count);
  const std::vector<int32_t> pages = model::consecutive_pages(0, pool.pages());
  const backend::Buffer h =
      backend->allocate(sizeof(float) * static_cast<size_t>(first * config.hidden));
  const backend::Buffer y =
      backend->allocate(sizeof(float) * static_cast<size_t>(first * config.vocabulary));
  const std::vector<int32_t> ids = family_ids();
  std::vector<float> out(static_cast<size_t>(count * config.vocabulary));
  for (int begin = 0, rows = first; begin < count; begin += rows, rows = 1) {
    const backend::SequenceStep step{
        .row_end = rows, .position = begin, .page_table = pages.data()};
    forward.embed(*model->ends,
                  std::span(ids).subspan(static_cast<size_t>(begin), static_cast<size_t>(rows)),
                  h.as<float>());
    for (int i = 0; i < config.layers; ++i)
      forward.layer(*model->layers[static_cast<size_t>(i)], pool, i, {&step, 1}, rows,
                    h.as<float>());
    forward.head(*model->ends, h.as<float>(), rows, y.as<float>());
    backend->download(out.data() + int64_t{begin} * config.vocabulary, y.data(),
                      sizeof(float) * static_cast<size_t>(rows * config.vocabulary));
  }
  return out;
}

// |a - b|^2 / |a|^2
double relative_error(const std::vector<float>& a, const std::vector<float>& b) {
  double error = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    error += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    size += double{a[i]} * a[i];
  }
  return error / size;
}

class Families : public ::testing::TestWithParam<const char*> {
 protected:
  Families() {
    const std::string name = GetParam();
    for (const char* one : {"llama3-rope", "llama-yarn", "mistral-window", "mistral-pages"})
      if (name == one) ids_ = 150;
    source_ = atom::testing::fixture_checkpoint(fs::path(ATOM_TEST_DATA) / "model" / name,
                                                folder_ / "source");
  }
  double error_of(const std::vector<float>& exact, const Recipe& recipe, const char* name) {
    quantize_family(source_, folder_ / name, recipe);
    return relative_error(exact, family_logits(folder_ / name, "cpu", ids_, ids_));
  }

  const atom::testing::TempFolder folder_{atom::testing::TempFolder::memory()};
  fs::path source_;
  int ids_ =
      40;  // beyond the windows of 8; the longer ones beyond pages, windows and original lengths of 64 and 70
};

// Transforms keep the function, so with 8 bits everywhere they leave the error of rounding: they turn the weights, whose largest
// value is 2.4 times their deviation (sums of two uniform numbers), into about normal ones, where it is up to 3 times in a
// row of 64, so steps become 3 / 2.4 times and errors' energy 1.5 times as large. One that is not undone costs all of the
// energy, some hundred times as much.
TEST_P(Families, TransformsCostNoMoreThanRounding) {
  const std::vector<float> exact = family_logits(source_, "cpu", ids_, ids_);
  Recipe recipe = preset("w8a8");
  recipe.kv = {format::KvKind::kInt8};
  recipe.transform = {};
  const double rounding = error_of(exact, recipe, "plain");
  recipe.transform = {
      .equalize = true, .heads = true, .residual = true, .down = true, .center = true};
  const double error = error_of(exact, recipe, "out");
  EXPECT_LT(error, 2 * rounding);
  EXPECT_GT(error, 0);
  EXPECT_LT(rounding, 0.01);
}

TEST_P(Families, FourBitsAreTheSameOnEveryBackend) {
  Recipe recipe = preset("w4a4");
  recipe.kv = {format::KvKind::kInt4};
  recipe.kept = 16;
  recipe.group = 32;
  quantize_family(source_, folder_ / "out", recipe);
  const std::vector<float> whole = family_logits(folder_ / "out", "cpu", ids_, ids_);
  EXPECT_EQ(family_logits(folder_ / "out", "cpu", ids_, 20), whole);
  // Sums in another order may move a code here and there by one. Rounding moves each by up to a half, 1/12 in the mean square,
  // and all of them, 25,000 at least, cost 0.4 of the energy at most: one that moves costs 12 / 25,000 of that, 2e-4.
  EXPECT_LT(relative_error(family_logits(folder_ / "out", "reference", ids_, 20), whole), 1e-3);
  // 0 everywhere would be 1 away, other logits 2.
  EXPECT_LT(relative_error(whole, family_logits(source_, "cpu", ids_, ids_)), 0.5);
}

// Sanitizers run one of each trait.
std::vector<const char*> families() {
  if (atom::testing::kSanitized) return {"mistral-window", "qwen2-window", "qwen3-moe", "phi3"};
  return {"llama-mha",      "llama-gqa",     "llama-tied",   "llama-bias",
          "llama3-rope",    "llama-linear",  "llama-yarn",   "llama-wide-bias",
          "mistral-window", "mistral-pages", "mixtral-4of2", "mixtral-6of3",
          "mixtral-window", "qwen2",         "qwen2-window", "qwen3",
          "qwen3-moe",      "phi3",          "phi3-window",  "phi3-longrope"};
}

INSTANTIATE_TEST_SUITE_P(Fixtures, Families, ::testing::ValuesIn(families()), [](const auto& name) {
  std::string word = name.param;
  std::replace(word.begin(), word.end(), '-', '_');
  return word;
});

TEST(FamiliesNotices, SayWhatAFamilyLeavesOut) {
  const atom::testing::TempFolder folder(atom::testing::TempFolder::memory());
  const fs::path source = atom::testing::fixture_checkpoint(
      fs::path(ATOM_TEST_DATA) / "model" / "qwen3", folder / "source");
  Recipe recipe = preset("w4a4");
  recipe.kv = {format::KvKind::kInt4};
  recipe.transform = {.equalize = true, .heads = true, .center = true};
  recipe.kept = 16;
  recipe.group = 32;
  const QuantizeReport report = quantize_family(source, folder / "out", recipe);
  EXPECT_TRUE(std::any_of(report.notices.begin(), report.notices.end(), [](const std::string& n) {
    return n.find("k_norm") != std::string::npos;
  }));
  EXPECT_FALSE(
      checkpoint::ModelFiles::open(folder / "out").has("model.layers.0.self_attn.key_offset"));
}

// Linears that other programs could read, under a method that they do not know: the user hears of it.
TEST(FamiliesNotices, SayWhatKeepsOtherProgramsFromReading) {
  const model::ModelConfig config = model::parse_config(
      parse_json(read_file(fs::path(ATOM_TEST_DATA) / "model" / "llama-gqa" / "config.json")),
      "config.json");
  const auto notices_of = [&config](const Recipe& recipe) {
    std::vector<std::string> notices;
    to_scheme(recipe, config, notices);
    std::erase_if(notices, [](const std::string& n) { return n.find("transformers") == n.npos; });
    return notices;
  };
  EXPECT_TRUE(notices_of(preset("w8a8")).empty());
  EXPECT_TRUE(notices_of(preset("w4a16", Method::kBest)).empty());
  EXPECT_TRUE(notices_of(preset("w4a8", Method::kBest)).empty());  // nobody expects it
  const std::vector<std::string> of_best = notices_of(preset("w8a8", Method::kBest));
  ASSERT_EQ(of_best.size(), 1u);
  EXPECT_NE(of_best[0].find("vLLM can read"), std::string::npos) << of_best[0];
  EXPECT_NE(of_best[0].find("--own-format"), std::string::npos) << of_best[0];
  Recipe own = preset("w8a8", Method::kBest);
  make_own_format(own);
  const std::vector<std::string> of_own = notices_of(own);
  ASSERT_EQ(of_own.size(), 1u);
  EXPECT_NE(of_own[0].find("vLLM cannot read"), std::string::npos) << of_own[0];
  EXPECT_NE(of_own[0].find("down_proj"), std::string::npos) << of_own[0];
  Recipe cached = preset("w4a16");
  cached.kv = {format::KvKind::kInt8};
  const std::vector<std::string> of_cache = notices_of(cached);
  ASSERT_EQ(of_cache.size(), 1u);
  EXPECT_NE(of_cache[0].find("no words for the KV-cache;"), std::string::npos) << of_cache[0];
}

}  // namespace
}  // namespace atom::quantizer
