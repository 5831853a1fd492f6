// FP4: rounding of weights, and whole quantizations with the presets fp4, mxfp4 and nvfp4.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "format/quantize.h"
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
using format::Format;

RoundingProblem problem_of(const std::vector<float>& w, int n, format::Segment normal) {
  return {.name = "w",
          .weight = w.data(),
          .n = n,
          .k = static_cast<int>(w.size()) / n,
          .normal = normal,
          .clip = 1.0f,
          .factor = nullptr,
          .dead = {}};
}

TEST(Fp4Rounding, ScalesAreThoseOfTheFormat) {
  // Two groups of 32 and a short one, then a column that is left alone.
  std::vector<float> w(73, 0.0f);
  w[0] = 6.0f;
  w[1] = -2.5f;  // a tie: the even pattern is 2
  w[2] = 7.0f;   // saturates where the scale stays 1
  w[32] = 0.75f;
  w[33] = 0.3f;
  w[72] = 3.0f;
  const Rounded half = round_nearest(problem_of(w, 1, {format::e2m1(32), 72}));
  EXPECT_EQ(half.scales, (std::vector<uint16_t>{format::f32_to_f16(7.0f / 6.0f),
                                                format::f32_to_f16(0.125f), 0x3c00}));
  EXPECT_EQ(half.codes[2], 12);
  EXPECT_EQ(half.codes[33], 4);  // 2.4 of 2 and 3
  EXPECT_EQ(half.rest, std::vector<float>{3.0f});

  const Rounded powers = round_nearest(problem_of(w, 1, {format::kMxfp4, 72}));
  EXPECT_EQ(powers.scales, (std::vector<uint16_t>{127, 124, 127}));  // 1, 1 / 8; zeros: 1
  EXPECT_EQ(powers.codes[0], 12);
  EXPECT_EQ(powers.codes[1], -4);
  EXPECT_EQ(powers.codes[2], 12);

  const Rounded global = round_nearest(problem_of(w, 1, {format::kNvfp4, 72}));
  EXPECT_EQ(global.global_scale, std::vector<float>{2688.0f / 7.0f});
  ASSERT_EQ(global.scales.size(), 5u);
  EXPECT_EQ(global.scales[0], format::kE4M3Largest);
  EXPECT_EQ(global.scales[1], format::kE4M3One);
  EXPECT_EQ(global.scales[2], format::f32_to_e4m3(48.0f));
  EXPECT_EQ(global.codes[2], 12);
}

// The observed inputs' error, for every format.
TEST(Fp4Rounding, GptqBeatsRoundingToNearest) {
  Executor executor({.threads = 2});
  const auto solver = make_cpu_solver(executor);
  const int n = 64, k = 192, rows = 600;
  Random random(3);
  std::vector<float> w(n * k), x(rows * k);
  for (float& v : w) v = static_cast<float>(random.normal());
  for (float& v : x) v = static_cast<float>(random.normal());
  for (int r = 0; r < rows; ++r)
    for (int c = 1; c < k; ++c) x[r * k + c] += 0.8f * x[r * k + c - 1];
  Gram gram{.k = k, .rows = rows, .values = std::vector<float>(k * k)};
  solver->add_gram(x.data(), rows, k, gram.values.data());
  solver->finish_gram(k, gram.values.data());
  const Factor factor = damped_factor(*solver, gram, "w");
  for (const Format format : {format::e2m1(64), format::kMxfp4, format::kNvfp4}) {
    RoundingProblem problem = problem_of(w, n, {format, k});
    problem.factor = factor.u.data();
    problem.dead = factor.dead;
    const auto error = [&](const Rounded& r) {
      const int groups = format::groups(format, k);
      std::vector<float> d(w);
      for (int i = 0; i < n; ++i)
        for (int j = 0; j < k; ++j) {
          const uint16_t bits = r.scales[i * groups + j / format.group];
          const float step = format::visit(format, [&](auto f) {
            using F = decltype(f);
            if constexpr (F::kInteger)
              return F::step(static_cast<typename F::Scale>(bits)) / r.global();
            else
              return 0.0f;
          });
          d[i * k + j] -= step * static_cast<float>(r.codes[i * k + j]);
        }
      return solver->output_energy(d.data(), n, k, gram.values.data());
    };
    EXPECT_LT(error(solver->gptq(problem)), 0.8 * error(round_nearest(problem)))
        << format::name(format);
  }
}

Job job_of(const std::string& name, Method method = Method::kPublished) {
  Job job;
  job.recipe = preset(name, method);
  job.recipe.kept = 16;
  job.recipe.group = 32;
  return job;
}

struct Stored {
  const char* preset;
  Format format;
  tensor::DType scale;
  int groups;
  double bits;  // of a row of 48 normal values, scales counted
};
const Stored kStored[] = {{"fp4", format::e2m1(32), tensor::DType::F16, 2, 48 * 4 + 2 * 16},
                          {"mxfp4", format::kMxfp4, tensor::DType::U8, 2, 48 * 4 + 2 * 8},
                          {"nvfp4", format::kNvfp4, tensor::DType::F8_E4M3, 3, 48 * 4 + 3 * 8}};

TEST(Fp4, LoadsBackWithEveryBit) {
  for (const Stored& stored : kStored) {
    SCOPED_TRACE(stored.preset);
    const TempFolder folder;
    write_random_checkpoint(folder / "in", {});
    const QuantizeReport report = job_of(stored.preset).run(folder / "in", folder / "out");
    const auto in = checkpoint::ModelFiles::open(folder / "in");
    const auto out = checkpoint::ModelFiles::open(folder / "out");
    const std::string q = "model.layers.1.self_attn.q_proj";
    const tensor::TensorView packed = out.tensor(q + ".weight_packed");
    const tensor::TensorView scales = out.tensor(q + ".weight_scale");
    EXPECT_EQ(packed.dtype, tensor::DType::U8);
    EXPECT_EQ(packed.shape, (tensor::Shape{64, 24}));
    EXPECT_EQ(scales.dtype, stored.scale);
    EXPECT_EQ(scales.shape, (tensor::Shape{64, stored.groups}));
    EXPECT_EQ(out.has(q + ".weight_global_scale"), stored.format == format::kNvfp4);

    const model::ModelConfig config = model::parse_config(out.config(), "config.json");
    const model::Scheme scheme =
        model::parse_scheme(out.config(), config, format::KvKind::kF16, "config.json");
    EXPECT_EQ(scheme.kv, (std::vector{format::KvKind::kInt4, format::KvKind::kInt4}));
    const model::LayerTensors layer = model::read_layer(out, config, scheme, 1);
    EXPECT_EQ(layer.q.segments.at[0], (format::Segment{stored.format, 48}));
    EXPECT_EQ(layer.qkv_input.segments.at[0].format, stored.format);
    const auto same = [](const std::vector<std::byte>& a, std::span<const std::byte> b) {
      return std::equal(a.begin(), a.end(), b.begin(), b.end());
    };
    EXPECT_TRUE(same(layer.q.part[0].codes, packed.bytes));
    EXPECT_TRUE(same(layer.q.part[0].scales, scales.bytes));

    // Near the source, column by column in its order.
    const std::vector<float> source = tensor::widen(in.tensor(q + ".weight"));
    const std::vector<float> got = model::to_f32(layer.q);
    double error = 0, size = 0;
    for (int r = 0; r < 64; ++r)
      for (int i = 0; i < 64; ++i) {
        const double want = source[r * 64 + layer.qkv_input.order[static_cast<size_t>(i)]];
        error += (got[r * 64 + i] - want) * (got[r * 64 + i] - want);
        size += want * want;
      }
    EXPECT_LT(error / size, 0.1);
    EXPECT_LT(report.bits_per_weight, (stored.bits + 16 * 8 + 32 + 0.5) / 64.0 + 0.01);
  }
}

TEST(Fp4, SameBytesForAnyThreadCount) {
  for (const char* name : {"fp4", "nvfp4"}) {
    const TempFolder folder;
    write_random_checkpoint(folder / "in", {.experts = 4});
    Job job = job_of(name, Method::kBest);
    job.threads = 1;
    job.run(folder / "in", folder / "one");
    job.threads = 3;
    job.run(folder / "in", folder / "three");
    EXPECT_EQ(atom::testing::contents(folder / "one"), atom::testing::contents(folder / "three"));
  }
}

// With and without transforms and searched clips, alike on both backends.
TEST(Fp4, BothBackendsComputeTheSameModel) {
  for (const Stored& stored : kStored)
    for (const Method method : {Method::kPublished, Method::kBest}) {
      SCOPED_TRACE(stored.preset);
      const TempFolder folder;
      write_random_checkpoint(folder / "in", {});
      Job job = job_of(stored.preset, method);
      job.run(folder / "in", folder / "out");
      const std::vector<int32_t> ids = random_ids(40, 61, 9);
      const std::vector<float> want = logits(folder / "in", ids);
      const std::vector<float> cpu = logits(folder / "out", ids);
      const double error = squared_distance(cpu, want);
      EXPECT_GT(error, 0.0);
      // Four bits of a model with random weights; unrelated logits would err by twice their square.
      EXPECT_LT(error, 0.5 * squared_distance(want, std::vector<float>(want.size(), 0.0f)));
      // Codes that lie on a tie may differ; their sum is far below what FP4 itself costs.
      EXPECT_LT(squared_distance(cpu, logits(folder / "out", ids, "reference")), 0.05 * error);
    }
}

}  // namespace
}  // namespace atom::quantizer
