#include "quantizer/kept_search.h"

#include <gtest/gtest.h>

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

// Outliers in the last 16 of 64 channels: keeping them takes nearly all of the error away, more takes little.
TEST(KeptSearch, ErrorFallsWhereOutliersAreKept) {
  Executor executor({.threads = 1});
  const auto solver = make_cpu_solver(executor);
  Random random(3);
  constexpr int kRows = 64, kK = 64, kN = 24;
  std::vector<float> x, w;
  for (int i = 0; i < kRows * kK; ++i)
    x.push_back(static_cast<float>(random.normal() * (i % kK >= 48 ? 30 : 1)));
  for (int i = 0; i < kN * kK; ++i) w.push_back(static_cast<float>(random.normal()));
  const model::LinearTensors linear = model::from_f32("w", kN, kK, format::kF32, w.data());
  InputSample sample;
  sample.add({.site = SiteKind::kOut, .expert = 0, .x = x.data(), .rows = kRows, .k = kK});
  const std::vector<std::vector<const model::LinearTensors*>> readers(
      1, std::vector<const model::LinearTensors*>(1, &linear));
  const auto error = [&](int kept, int hadamard = 0) {
    return kept_error(sample, SiteKind::kOut, readers,
                      {.normal = {format::int4(32), kK - kept}, .hadamard = hadamard}, *solver);
  };
  // A channel beside outliers of 30 loses itself in a step of about 10: its own energy, and the outliers' step^2 / 12.
  EXPECT_GT(error(0).inputs, 30 * error(16).inputs);
  EXPECT_GT(error(0).weights, 30 * error(16).weights);
  EXPECT_GT(error(16).inputs, error(32).inputs);
  EXPECT_LT(error(16).inputs, 2 * error(32).inputs);
  EXPECT_EQ(error(kK).inputs, 0);
  EXPECT_EQ(error(kK).weights, 0);
  EXPECT_GT(error(16, 16).inputs, 0);
  EXPECT_EQ(
      kept_error(sample, SiteKind::kDown, readers, {.normal = {format::int4(32), kK}}, *solver)
          .inputs,
      0);
}

void expect_search(Recipe recipe, const testing::RandomModel& shape) {
  const TempFolder folder;
  write_random_checkpoint(folder / "in", shape);
  Job job;
  job.recipe = std::move(recipe);
  job.recipe.search_kept = true;
  job.threads = 1;
  const QuantizeReport report = job.run(folder / "in", folder / "one");
  job.threads = 3;
  job.run(folder / "in", folder / "three");
  EXPECT_EQ(contents(folder / "one"), contents(folder / "three"));

  // The modules have the counts that the report tells, and all together cost no more than the one number.
  const Json counts = report.json["kept"];
  ASSERT_EQ(counts.size(), 2u);
  std::vector<int64_t> spent(2), budget(2);
  const auto files = checkpoint::ModelFiles::open(folder / "one");
  for (const Json& module : report.json["modules"]) {
    const std::string name = module["name"];
    const size_t layer = static_cast<size_t>(name.at(std::string("model.layers.").size()) - '0');
    const char* where = name.ends_with("o_proj")                              ? "o"
                        : name.find("self_attn") != std::string::npos         ? "qkv"
                        : name.ends_with("down_proj") || name.ends_with("w2") ? "down"
                                                                              : "gate_up";
    const Json& told = counts[layer].is_object() ? counts[layer][where] : counts[layer];
    EXPECT_EQ(module["kept"], told) << name;
    const std::string tensor = name + ".weight_packed";
    const int64_t rows = files.tensor(tensor).shape[0];
    spent[layer] += rows * module["kept"].get<int64_t>();
    budget[layer] += rows * job.recipe.kept.qkv;
  }
  for (size_t i = 0; i < 2; ++i) EXPECT_LE(spent[i], budget[i]) << i;

  Executor executor({.threads = 1});
  EXPECT_NO_THROW(
      model::load_model(files, *backend::make_cpu_backend({.executor = &executor, .isa = ""}), {}));
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
