#include "quantizer/kept_search.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "base/random.h"
#include "checkpoint/model_files.h"
#include "model/weights.h"
#include "quantizer/quantize_job.h"
#include "quantizer/random_checkpoint.h"
#include "testing/temp_folder.h"

namespace atom::quantizer {
namespace {

using atom::testing::contents;
using atom::testing::Job;
using atom::testing::TempFolder;
using atom::testing::write_random_checkpoint;

SiteKept site(int64_t rows, std::vector<double> error) {
  return {.rows = rows, .standard = 32, .counts = {0, 16, 32, 64, 128}, .error = std::move(error)};
}

const std::vector<double> kFlat = {1, 1, 1, 1, 1};

int64_t cost(const LayerKept& layer, const KeptCounts& counts) {
  return layer[0].rows * counts.qkv + layer[1].rows * counts.out + layer[2].rows * counts.ffn +
         layer[3].rows * counts.down;
}

TEST(KeptSearch, CandidatesFitTheSite) {
  EXPECT_EQ(kept_candidates(32, 384), (std::vector<int>{0, 16, 32, 48, 64, 96, 128}));
  EXPECT_EQ(kept_candidates(48, 100), (std::vector<int>{0, 16, 32, 48, 64, 96}));
  EXPECT_EQ(kept_candidates(16, 16), (std::vector<int>{0, 16}));
  EXPECT_EQ(kept_candidates(1 << 20, 64), (std::vector<int>{0, 48}));
}

TEST(KeptSearch, SpendsTheBudgetWhereItHelpsMost) {
  // down gains much and costs little, gate_up costs ten times as much and gains as much as o.
  const LayerKept layer = {site(300, {9, 8, 4, 3.9, 3.8}), site(100, {3, 2.9, 2.8, 2.7, 2.6}),
                           site(1000, {3, 2.9, 2.8, 2.7, 2.6}), site(100, {9, 8, 7, 4, 1})};
  const std::vector<KeptCounts> counts = choose_kept({&layer, 1}, true);
  ASSERT_EQ(counts.size(), 1u);
  EXPECT_EQ(counts[0].down, 128);
  EXPECT_GE(counts[0].qkv, 32);
  EXPECT_LT(counts[0].ffn, 32);
  EXPECT_LE(cost(layer, counts[0]), 32 * 1500);
  EXPECT_EQ(choose_kept({&layer, 1}, false), counts);
}

TEST(KeptSearch, NothingToGainCostsNothing) {
  const LayerKept layer = {site(300, kFlat), site(100, kFlat), site(1000, kFlat), site(100, kFlat)};
  EXPECT_EQ(choose_kept({&layer, 1}, false), std::vector<KeptCounts>{0});
}

TEST(KeptSearch, OneStreamHasOneCount) {
  const std::vector<double> loud = {99, 50, 20, 10, 5}, quiet = {1, 0.9, 0.8, 0.7, 0.6};
  const std::vector<LayerKept> layers = {
      {site(100, loud), site(100, kFlat), site(100, quiet), site(100, loud)},
      {site(100, quiet), site(100, kFlat), site(100, loud), site(100, quiet)}};
  const std::vector<KeptCounts> free = choose_kept(layers, false);
  EXPECT_GT(free[0].qkv, free[1].qkv);
  EXPECT_LT(free[0].ffn, free[1].ffn);
  const std::vector<KeptCounts> shared = choose_kept(layers, true);
  EXPECT_EQ(shared[0].qkv, shared[1].qkv);
  EXPECT_EQ(shared[0].ffn, shared[1].ffn);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_LE(cost(layers[i], free[i]), 32 * 400);
    EXPECT_LE(cost(layers[i], shared[i]), 32 * 400);
  }
}

bool has(const Json& list, const char* word) {
  return std::find(list.begin(), list.end(), Json(word)) != list.end();
}

void expect_search(Recipe recipe, const testing::RandomModel& shape) {
  const TempFolder folder;
  write_random_checkpoint(folder / "in", shape);
  Job job;
  job.recipe = std::move(recipe);
  job.recipe.search_kept = true;
  job.threads = 1;
  std::set<int> searched;
  job.progress = [&](const Progress& progress) {
    if (progress.phase != "search") return;
    searched.insert(progress.layer);
    EXPECT_EQ(progress.eta_seconds, -1);  // nothing has been measured of what is left
  };
  const QuantizeReport report = job.run(folder / "in", folder / "one");
  EXPECT_EQ(searched, (std::set<int>{0, 1}));
  job.progress = {};
  job.threads = 3;
  job.run(folder / "in", folder / "three");
  EXPECT_EQ(contents(folder / "one"), contents(folder / "three"));

  // The modules have the counts that the report tells, and all together cost no more than the one number.
  const Json& chosen = report.json["chosen"];
  ASSERT_EQ(chosen.size(), 2u);
  std::vector<int64_t> spent(2), budget(2);
  const auto files = checkpoint::ModelFiles::open(folder / "one");
  for (const Json& module : report.json["modules"]) {
    const std::string name = module["name"];
    const size_t layer = static_cast<size_t>(name.at(std::string("model.layers.").size()) - '0');
    const char* where = name.ends_with("o_proj")                              ? "o"
                        : name.find("self_attn") != std::string::npos         ? "qkv"
                        : name.ends_with("down_proj") || name.ends_with("w2") ? "down"
                                                                              : "gate_up";
    const Json& counts = chosen[layer]["kept"];
    const Json& told = counts.is_object() ? counts[where] : counts;
    EXPECT_EQ(module["kept"], told) << name;
    const std::string tensor = name + ".weight_packed";
    const int64_t rows = files.tensor(tensor).shape[0];
    spent[layer] += rows * module["kept"].get<int64_t>();
    budget[layer] += rows * job.recipe.kept.qkv;
  }
  for (size_t i = 0; i < 2; ++i) EXPECT_LE(spent[i], budget[i]) << i;

  Executor executor({.threads = 1});
  const auto backend = backend::make_cpu_backend({.executor = &executor, .isa = ""});
  const auto model = model::load_model(files, *backend, {});
  for (size_t i = 0; i < 2; ++i)
    EXPECT_EQ(model->layers[i]->down_input.spec.hadamard != 0, has(chosen[i]["transform"], "down"));
}

TEST(KeptSearch, ALayerMayGoWithoutATransform) {
  const TempFolder folder;
  write_random_checkpoint(folder / "in", {});
  const auto files = checkpoint::ModelFiles::open(folder / "in");
  const model::ModelConfig config = model::parse_config(files.config(), "config.json");
  Recipe recipe = Job::small_recipe();
  recipe.transform.down = recipe.transform.heads = true;
  const std::vector<LayerChoice> chosen = {{.kept = 16}, {.kept = {16, 32, 48, 32}, .down = false}};
  std::vector<std::string> notices;
  const model::Scheme scheme = to_scheme(recipe, config, notices, chosen);
  EXPECT_EQ(scheme.find("model.layers.0.mlp.down_proj")->hadamard, 128);
  EXPECT_EQ(scheme.find("model.layers.1.mlp.down_proj")->hadamard, 0);
  EXPECT_EQ(to_json(chosen[0], recipe),
            parse_json(R"({"kept": 16, "transform": ["heads", "down"], "by_error": []})"));
  EXPECT_EQ(to_json(chosen[1], recipe)["transform"], parse_json(R"(["heads"])"));
}

TEST(KeptSearch, WholeModel) { expect_search(Job::small_recipe(), {}); }

TEST(KeptSearch, WholeMixtureWithTransforms) {
  Recipe recipe = preset("w4a4", Method::kBest);
  recipe.kept = 16;
  recipe.group = 32;
  expect_search(recipe, {.experts = 4});
}

TEST(KeptSearch, WholeModelWithInt8Inputs) {
  Recipe recipe = preset("w4a8", Method::kBest);
  recipe.kept = 16;
  recipe.group = 32;
  expect_search(recipe, {});
}

}  // namespace
}  // namespace atom::quantizer
