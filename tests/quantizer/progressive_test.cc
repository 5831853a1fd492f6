// Progressive int4: its rounding, and a whole quantization with the preset w4a8.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "format/quantize.h"
#include "model/weights.h"
#include "quantizer/model_logits.h"
#include "quantizer/quantize_job.h"
#include "quantizer/solver.h"
#include "testing/temp_folder.h"

namespace atom::quantizer {
namespace {

using atom::testing::Job;
using atom::testing::logits;
using atom::testing::random_ids;
using atom::testing::squared_distance;
using atom::testing::TempFolder;
using atom::testing::write_random_checkpoint;
using format::int4_progressive;

RoundingProblem problem_of(const std::vector<float>& w, int n, int k, int normal) {
  return {.name = "w",
          .weight = w.data(),
          .n = n,
          .k = k,
          .normal = {int4_progressive(32), normal},
          .clip = 1.0f,
          .factor = nullptr,
          .dead = {}};
}

TEST(Progressive, MultipliersAreTheGroupsShareOfTheLargest) {
  // Groups of 32, 32 and 16, then two columns that are left alone.
  std::vector<float> w(82, 0.0f);
  w[0] = 120.0f;   // wanted 15 with a clip of 7 / 8: row scale 1
  w[1] = 22.5f;    // 1.5 steps of 15: a tie
  w[32] = -20.0f;  // wanted 2.5: a tie, so that the multiplier is 2 and 10 steps are clamped
  w[33] = 3.0f;    // 1.5 steps of 2
  w[64] = 1.6f;    // wanted 0.2, but a multiplier is at least 1
  w[80] = 3.0f;
  w[81] = -4.0f;
  RoundingProblem problem = problem_of(w, 1, 82, 80);
  problem.clip = 0.875f;
  const Rounded r = round_nearest(problem);
  EXPECT_TRUE(r.scales.empty());
  EXPECT_EQ(r.row_scales, std::vector<float>{1.0f});
  EXPECT_EQ(r.multipliers, (std::vector<int8_t>{15, 2, 1}));
  EXPECT_EQ(r.codes[0], 7);
  EXPECT_EQ(r.codes[1], 2);
  EXPECT_EQ(r.codes[32], -8);
  EXPECT_EQ(r.codes[33], 2);
  EXPECT_EQ(r.codes[64], 2);
  EXPECT_EQ(r.rest, (std::vector<float>{3.0f, -4.0f}));
}

TEST(Progressive, RowsOfZerosAndTinyRowsHaveUsableScales) {
  std::vector<float> w(3 * 64, 0.0f);
  w[64 + 40] = 1e-42f;  // group 1 of row 1; group 0 is all zeros
  w[128 + 3] = 1e30f;   // far beyond an f16 scale
  const Rounded r = round_nearest(problem_of(w, 3, 64, 64));
  EXPECT_EQ(r.row_scales[0], 1.0f);
  EXPECT_EQ(r.row_scales[1], 0x1p-126f);
  EXPECT_EQ(r.row_scales[2], 1e30f * (1.0f / 7.0f) / 15.0f);
  EXPECT_EQ(r.multipliers, (std::vector<int8_t>{1, 1, 1, 1, 15, 1}));
  EXPECT_EQ(std::count(r.codes.begin(), r.codes.end(), 0), 3 * 64 - 1);
  EXPECT_EQ(r.codes[128 + 3], 7);
}

// A channel that no token uses does not decide the scales of the others.
TEST(Progressive, DeadColumnsLeaveTheScalesAlone) {
  Random random(3);
  const int n = 8, k = 64;
  std::vector<float> w(n * k), identity(k * k, 0.0f);
  for (float& v : w) v = static_cast<float>(random.normal());
  for (int i = 0; i < k; ++i) identity[i * k + i] = 1;
  std::vector<uint8_t> dead(k, 0);
  dead[5] = dead[40] = 1;
  for (int r = 0; r < n; ++r) w[r * k + 5] = w[r * k + 40] = 100.0f;
  RoundingProblem problem = problem_of(w, n, k, 64);
  problem.factor = identity.data();
  problem.dead = dead;
  Executor executor({.threads = 1});
  const Rounded got = make_cpu_solver(executor)->gptq(problem);
  // Independent channels: nothing is compensated, so rounding to nearest without them is the same.
  std::vector<float> without = w;
  for (int r = 0; r < n; ++r) without[r * k + 5] = without[r * k + 40] = 0.0f;
  const Rounded want = round_nearest(problem_of(without, n, k, 64));
  EXPECT_EQ(got.row_scales, want.row_scales);
  EXPECT_EQ(got.multipliers, want.multipliers);
  EXPECT_EQ(got.codes, want.codes);
}

Job w4a8_job() {
  Job job;
  job.recipe = preset("w4a8");
  job.recipe.kept = 16;
  job.recipe.group = 32;
  return job;
}

TEST(Progressive, AQuantizedModelLoadsBackWithEveryBit) {
  const TempFolder folder;
  write_random_checkpoint(folder / "in", {});
  const QuantizeReport report = w4a8_job().run(folder / "in", folder / "out");
  const auto out = checkpoint::ModelFiles::open(folder / "out");
  const std::string q = "model.layers.1.self_attn.q_proj";
  const tensor::TensorView packed = out.tensor(q + ".weight_packed");
  const tensor::TensorView multipliers = out.tensor(q + ".weight_multiplier");
  const tensor::TensorView row_scales = out.tensor(q + ".weight_row_scale");
  EXPECT_EQ(packed.dtype, tensor::DType::I32);
  EXPECT_EQ(packed.shape, (tensor::Shape{64, 6}));
  EXPECT_EQ(multipliers.dtype, tensor::DType::I8);
  EXPECT_EQ(multipliers.shape, (tensor::Shape{64, 2}));
  EXPECT_EQ(row_scales.dtype, tensor::DType::F32);
  EXPECT_EQ(row_scales.shape, (tensor::Shape{64}));
  EXPECT_FALSE(out.has(q + ".weight_scale"));

  const model::ModelConfig config = model::parse_config(out.config(), "config.json");
  const model::Scheme scheme =
      model::parse_scheme(out.config(), config, format::KvKind::kF16, "config.json");
  const model::LinearTensors linear = model::read_layer(out, config, scheme, 1).q;
  EXPECT_EQ(linear.segments.at[0].format, int4_progressive(32));
  const auto same = [](const auto& a, std::span<const std::byte> b) {
    const auto bytes = std::as_bytes(std::span(a));
    return std::equal(bytes.begin(), bytes.end(), b.begin(), b.end());
  };
  EXPECT_TRUE(same(linear.part[0].codes, packed.bytes));
  EXPECT_TRUE(same(linear.part[0].multipliers, multipliers.bytes));
  EXPECT_TRUE(same(linear.part[0].scales, row_scales.bytes));
  EXPECT_EQ(*std::max_element(linear.part[0].multipliers.begin(), linear.part[0].multipliers.end()),
            15);

  // Of a 64 x 64 linear: 48 values of 4 bits with a byte per group of 32 and an f32, 16 of 8 bits
  // with an f32. The others are like it, or wider.
  EXPECT_GT(report.bits_per_weight, 4.5);
  EXPECT_LT(report.bits_per_weight, (48 * 4 + 2 * 8 + 32 + 16 * 8 + 32) / 64.0 + 0.01);
}

TEST(Progressive, SameBytesForAnyThreadCount) {
  const TempFolder folder;
  write_random_checkpoint(folder / "in", {.experts = 4});
  Job job = w4a8_job();
  job.threads = 1;
  job.run(folder / "in", folder / "one");
  job.threads = 3;
  job.run(folder / "in", folder / "three");
  EXPECT_EQ(atom::testing::contents(folder / "one"), atom::testing::contents(folder / "three"));
}

TEST(Progressive, W4A8IsNearerToTheSourceThanW4A4) {
  for (const int experts : {1, 4}) {
    const TempFolder folder;
    write_random_checkpoint(folder / "in", {.experts = experts});
    for (const Rounding rounding : {Rounding::kNearest, Rounding::kGptq}) {
      Job w4a8 = w4a8_job(), w4a4;
      w4a8.recipe.rounding = w4a4.recipe.rounding = rounding;
      const std::string name = rounding == Rounding::kGptq ? "gptq" : "rtn";
      w4a8.run(folder / "in", folder / (name + ".w4a8"));
      w4a4.run(folder / "in", folder / (name + ".w4a4"));
      const std::vector<int32_t> ids = random_ids(80, 61, 9);
      const std::vector<float> want = logits(folder / "in", ids);
      const double error = squared_distance(logits(folder / (name + ".w4a8"), ids), want);
      EXPECT_GT(error, 0.0);
      EXPECT_LT(error, squared_distance(logits(folder / (name + ".w4a4"), ids), want))
          << experts << " experts, " << name;
    }
  }
}

}  // namespace
}  // namespace atom::quantizer
