#include "quantizer/transform.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "backend/open.h"
#include "quantizer/equalize.h"
#include "quantizer/linear_algebra.h"
#include "quantizer/model_transform.h"
#include "quantizer/random_checkpoint.h"
#include "testing/temp_folder.h"

namespace atom::quantizer {
namespace {

using atom::testing::random_ids;
using atom::testing::RandomModel;
using atom::testing::TempFolder;
using atom::testing::write_random_checkpoint;
using model::LayerTensors;
using model::LinearTensors;

constexpr Transforms kAll{
    .equalize = true, .heads = true, .residual = true, .down = true, .center = true};

// A random model in floating point, its windows, and what measuring needs.
struct Fixture {
  explicit Fixture(const RandomModel& shape)
      : executor({.threads = 2}),
        backend(backend::make_cpu_backend({.executor = &executor, .isa = ""})),
        observing(*backend),
        solver(make_cpu_solver(executor)) {
    write_random_checkpoint(folder / "in", shape);
    files.emplace(checkpoint::ModelFiles::open(folder / "in"));
    config = model::parse_config(files->config(), "config.json");
    plain.kv.assign(static_cast<size_t>(config.layers), format::KvKind::kF32);
    ids = random_ids(400, config.vocabulary);
  }
  LayerTensors read(int layer) const { return model::read_layer(*files, config, plain, layer); }
  Windows windows() {
    return Windows(config, observing, {.ids = ids, .samples = 8, .sequence = 30});
  }
  void run(const LayerTensors& tensors, Windows& windows, const ObservingBackend::Sink& sink) {
    const auto layer = model::bind_layer(observing, tensors);
    if (sink) observing.observe(*layer, sink);
    windows.run(*layer, format::KvKind::kF32, Windows::After::kAdvance);
    observing.stop();
  }
  Moments moments(const LayerTensors& tensors) {
    Moments out(config, executor, *solver);
    Windows w = windows();
    w.embed(*files);
    run(tensors, w, [&](const ObservedInput& input) { out.add(input); });
    out.finish(0);
    return out;
  }

  TempFolder folder;
  std::optional<checkpoint::ModelFiles> files;
  model::ModelConfig config;
  model::Scheme plain;
  Executor executor;
  std::unique_ptr<backend::Backend> backend;
  ObservingBackend observing;
  std::unique_ptr<Solver> solver;
  std::vector<int32_t> ids;
};

// Everything in f32, cut into segments and transformed at run time as a w4a4 model is.
model::Scheme float_scheme(const Fixture& f, const Transforms& which) {
  Recipe recipe = preset("w4a4");
  recipe.kept = 16;
  recipe.transform = which;
  std::vector<std::string> notices;
  model::Scheme scheme = to_scheme(recipe, f.config, notices);
  for (auto& [name, linear] : scheme.linears) {
    linear.input = linear.weight = format::kF32;
    linear.kept_input = linear.kept_weight = format::kF32;
  }
  return scheme;
}

// Hidden states after all layers, transformed, against those of the source in the new basis.
void expect_same_function(const RandomModel& shape, const Transforms& which) {
  Fixture f(shape);
  ModelTransform transform({.which = which,
                            .stream = true,
                            .seed = 3,
                            .positions = 30,
                            .qk_hadamard = which.heads ? 16 : 0},
                           f.config, f.executor, *f.solver);
  Windows source = f.windows(), changed = f.windows();
  source.embed(*f.files);
  changed.embed(*f.files);
  std::vector<LayerOrders> orders;
  for (int i = 0; i < f.config.layers; ++i) {
    LayerTensors tensors = f.read(i);
    transform.fold(tensors);
    transform.begin();
    f.run(tensors, source, [&](const ObservedInput& input) { transform.add(input); });
    orders.push_back(transform.end(i, tensors));
  }
  transform.finish({16});
  const model::Scheme scheme = float_scheme(f, which);
  if (which.residual) changed.rotate(transform.basis(), *f.solver);
  for (int i = 0; i < f.config.layers; ++i) {
    LayerTensors tensors = f.read(i);
    transform.apply(i, tensors);
    apply_orders(orders[static_cast<size_t>(i)], tensors);
    apply_input_formats(scheme, tensors);
    tensors.qk_hadamard = scheme.qk_hadamard;
    EXPECT_EQ(tensors.qk_hadamard, which.heads ? 16 : 0);
    EXPECT_EQ(tensors.key_offset.empty(), !which.center);
    EXPECT_EQ(tensors.down_input.hadamard, which.down ? 128 : 0);
    f.run(tensors, changed, {});
  }
  if (which.residual) source.rotate(transform.basis(), *f.solver);
  float largest = 0, difference = 0;
  for (size_t i = 0; i < source.hidden().size(); ++i) {
    largest = std::max(largest, std::abs(source.hidden()[i]));
    difference = std::max(difference, std::abs(source.hidden()[i] - changed.hidden()[i]));
  }
  EXPECT_GT(largest, 0.1f);
  EXPECT_LT(difference, 1e-4f * largest);
}

TEST(Transform, WithoutHeadsIsAsIfNeverTurned) {
  Fixture f({.bias = true});
  LayerTensors tensors = f.read(0);
  fold_gains(tensors);
  const Moments moments = f.moments(tensors);
  const auto transform = [&](bool heads) {
    return make_transform(tensors, f.config, moments, {.equalize = true, .heads = heads});
  };
  const LayerTransform turned = transform(true), straight = transform(false),
                       undone = without_heads(turned, f.config.head_dim);
  ASSERT_EQ(undone.value.size(), straight.value.size());
  for (size_t h = 0; h < straight.value.size(); ++h)
    for (size_t i = 0; i < straight.value[h].size(); ++i) {
      EXPECT_NEAR(undone.value[h][i], straight.value[h][i], 1e-5f);
      EXPECT_NEAR(undone.value_inverse[h][i], straight.value_inverse[h][i], 1e-5f);
    }
  EXPECT_NE(turned.value, undone.value);
  EXPECT_EQ(without_heads(straight, f.config.head_dim).value, straight.value);
}

TEST(Transform, KeepsTheFunction) {
  const RandomModel dense{.layers = 3, .bias = true};
  expect_same_function(dense, kAll);
  for (const auto member : {&Transforms::equalize, &Transforms::heads, &Transforms::residual,
                            &Transforms::down, &Transforms::center}) {
    Transforms one;
    one.*member = true;
    expect_same_function(dense, one);
  }
}

TEST(Transform, KeepsTheFunctionOfAMixture) {
  expect_same_function({.layers = 2, .experts = 4}, kAll);
}

std::vector<float> f32(const LinearTensors& linear) { return model::to_f32(linear); }

void set(LinearTensors& linear, const std::vector<float>& values) {
  LinearTensors changed =
      model::from_f32(linear.name, linear.n, linear.k(), format::kF32, values.data());
  changed.bias = linear.bias;
  linear = changed;
}

void scale_row(LinearTensors& linear, int row, float factor) {
  std::vector<float> w = f32(linear);
  for (int j = 0; j < linear.k(); ++j) w[static_cast<size_t>(row * linear.k() + j)] *= factor;
  set(linear, w);
}

void scale_column(LinearTensors& linear, int column, float factor) {
  std::vector<float> w = f32(linear);
  for (int r = 0; r < linear.n; ++r) w[static_cast<size_t>(r * linear.k() + column)] *= factor;
  set(linear, w);
}

// Second moments are sums in f32: relative errors of 1e-6, times the condition of 64^2 where values were mixed.
void expect_near(const LinearTensors& a, const LinearTensors& b, bool magnitudes) {
  const std::vector<float> x = f32(a), y = f32(b);
  float largest = 0;
  for (const float v : x) largest = std::max(largest, std::abs(v));
  for (size_t i = 0; i < x.size(); ++i)
    ASSERT_NEAR(magnitudes ? std::abs(x[i]) : x[i], magnitudes ? std::abs(y[i]) : y[i],
                (magnitudes ? 1e-2f : 1e-3f) * largest)
        << a.name << " " << i;
}

// Values of KV head 0 in a basis with condition 64: v' = M v, o' = o M^-1, M = R1 diag R2.
void mix_values(LayerTensors& layer, int d, int sharing) {
  const std::vector<double> left = random_rotation(d, 1), right = random_rotation(d, 2);
  std::vector<double> m(left.size()), inverse(left.size());
  for (int i = 0; i < d; ++i)
    for (int j = 0; j < d; ++j)
      for (int s = 0; s < d; ++s) {
        const double scale = std::pow(64.0, static_cast<double>(s) / (d - 1));
        m[static_cast<size_t>(i * d + j)] +=
            left[static_cast<size_t>(i * d + s)] * scale * right[static_cast<size_t>(s * d + j)];
        inverse[static_cast<size_t>(i * d + j)] +=
            right[static_cast<size_t>(s * d + i)] / scale * left[static_cast<size_t>(j * d + s)];
      }
  std::vector<float> v = f32(layer.v), o = f32(layer.out), mixed = v;
  const int k = layer.v.k(), width = layer.out.k();
  for (int i = 0; i < d; ++i)
    for (int j = 0; j < k; ++j) {
      double sum = 0;
      for (int s = 0; s < d; ++s)
        sum += m[static_cast<size_t>(i * d + s)] * v[static_cast<size_t>(s * k + j)];
      mixed[static_cast<size_t>(i * k + j)] = static_cast<float>(sum);
    }
  set(layer.v, mixed);
  mixed = o;
  for (int r = 0; r < layer.out.n; ++r)
    for (int q = 0; q < sharing; ++q)
      for (int j = 0; j < d; ++j) {
        double sum = 0;
        for (int s = 0; s < d; ++s)
          sum += o[static_cast<size_t>(r * width + q * d + s)] *
                 inverse[static_cast<size_t>(s * d + j)];
        mixed[static_cast<size_t>(r * width + q * d + j)] = static_cast<float>(sum);
      }
  set(layer.out, mixed);
}

TEST(Transform, EqualizationUndoesEveryScaleOfTheSource) {
  Fixture f({.layers = 1, .heads = 4, .kv_heads = 2});
  const int d = f.config.head_dim, half = d / 2, sharing = f.config.heads / f.config.kv_heads;
  LayerTensors plain = f.read(0);
  fold_gains(plain);
  LayerTensors scaled = plain;
  Random random(9);
  for (const int unit : {0, 7, 50}) {  // up and down
    const float factor = std::ldexp(1.0f, static_cast<int>(random.below(7)) - 3);
    scale_row(scaled.experts[0].up, unit, factor);
    scale_column(scaled.experts[0].down, unit, 1 / factor);
  }
  for (const int pair : {1, 5})  // RoPE pairs of KV head 1 and of the query heads that share it
    for (const int i : {pair, pair + half}) {
      scale_row(scaled.k, d + i, 16);
      for (int q = sharing; q < 2 * sharing; ++q) scale_row(scaled.q, q * d + i, 1.0f / 16);
    }
  mix_values(scaled, d, sharing);

  constexpr Transforms kEqualize{.equalize = true};
  LayerTensors a = plain, b = scaled;
  apply_transform(make_transform(a, f.config, f.moments(a), kEqualize), f.config, a);
  apply_transform(make_transform(b, f.config, f.moments(b), kEqualize), f.config, b);
  expect_near(a.q, b.q, false);
  expect_near(a.k, b.k, false);
  expect_near(a.experts[0].up, b.experts[0].up, false);
  expect_near(a.experts[0].down, b.experts[0].down, false);
  expect_near(a.v, b.v, true);  // a balanced basis has free signs
  expect_near(a.out, b.out, true);

  // Once more changes nothing.
  LayerTensors twice = a;
  apply_transform(make_transform(a, f.config, f.moments(a), kEqualize), f.config, twice);
  expect_near(a.q, twice.q, false);
  expect_near(a.experts[0].down, twice.experts[0].down, false);
  expect_near(a.v, twice.v, true);
}

// At position 0 nothing turns: the mean of K is k_proj's of the mean input. Over many positions a fast pair's goes to
// 0, as all angles come up alike.
TEST(Transform, MeanOfTheKeysIsThatOfTheMeanInput) {
  Fixture f({.layers = 1, .bias = true});
  LayerTensors layer = f.read(0);
  fold_gains(layer);
  const Moments moments = f.moments(layer);
  const std::vector<float> first = mean_keys(layer, f.config, moments, 1),
                           many = mean_keys(layer, f.config, moments, 2000);
  const std::vector<float> k = f32(layer.k);
  const int hidden = f.config.hidden, d = f.config.head_dim;
  for (int r = 0; r < layer.k.n; ++r) {
    double expected = layer.k.bias[static_cast<size_t>(r)];
    for (int j = 0; j < hidden; ++j)
      expected += double{k[static_cast<size_t>(r * hidden + j)]} *
                  moments.qkv_sum()[static_cast<size_t>(j)] /
                  static_cast<double>(moments.qkv().rows);
    EXPECT_NEAR(first[static_cast<size_t>(r)], expected, 1e-6 * (1 + std::abs(expected))) << r;
    // Pair 0 turns by one radian a position: a sum of at most 1 / sin(0.5) over 2000 positions.
    if (r % d == 0 || r % d == d / 2) {
      const size_t pair = static_cast<size_t>(r - r % d);
      const float size = std::hypot(first[pair], first[pair + static_cast<size_t>(d / 2)]);
      EXPECT_LT(std::abs(many[static_cast<size_t>(r)]), 2e-3f * size) << r;
    }
  }
}

TEST(Transform, ResidualBasisIsOrthogonalAndSortsTheLoudestLast) {
  constexpr int kHidden = 48, kKept = 16;
  const std::vector<double> turn = random_rotation(kHidden, 5);
  std::vector<double> moment(static_cast<size_t>(kHidden * kHidden));
  for (int s = 0; s < kHidden; ++s)  // energies 1.2^s in directions of `turn`
    for (int i = 0; i < kHidden; ++i)
      for (int j = 0; j < kHidden; ++j)
        moment[static_cast<size_t>(i * kHidden + j)] += std::pow(1.2, s) *
                                                        turn[static_cast<size_t>(s * kHidden + i)] *
                                                        turn[static_cast<size_t>(s * kHidden + j)];
  const std::vector<float> q = residual_basis(moment, kHidden, {kKept}, 1);
  double kept = 0, all = 0;
  for (int a = 0; a < kHidden; ++a)
    for (int b = 0; b < kHidden; ++b) {
      double dot = 0, energy = 0;
      for (int i = 0; i < kHidden; ++i) {
        dot += double{q[static_cast<size_t>(i * kHidden + a)]} *
               q[static_cast<size_t>(i * kHidden + b)];
        for (int j = 0; a == b && j < kHidden; ++j)
          energy += double{q[static_cast<size_t>(i * kHidden + a)]} *
                    moment[static_cast<size_t>(i * kHidden + j)] *
                    q[static_cast<size_t>(j * kHidden + a)];
      }
      EXPECT_NEAR(dot, a == b ? 1 : 0, 1e-5);
      all += energy;
      if (a >= kHidden - kKept) kept += energy;
    }
  double loudest = 0;
  for (int s = kHidden - kKept; s < kHidden; ++s) loudest += std::pow(1.2, s);
  EXPECT_NEAR(kept, loudest, 1e-4 * loudest);  // exactly the leading subspace
  EXPECT_GT(all, kept);
}

// Two readers that keep different counts both get a leading subspace.
TEST(Transform, ResidualBasisIsCutAtEveryCount) {
  constexpr int kHidden = 48;
  std::vector<double> moment(static_cast<size_t>(kHidden * kHidden));
  for (int s = 0; s < kHidden; ++s) moment[static_cast<size_t>(s * kHidden + s)] = std::pow(1.2, s);
  const std::vector<float> q = residual_basis(moment, kHidden, {32, 16, 32}, 1);
  const auto block = [](int i) { return i < 16 ? 0 : i < 32 ? 1 : 2; };
  for (int i = 0; i < kHidden; ++i) {
    double norm = 0;
    for (int a = 0; a < kHidden; ++a) {
      const float value = q[static_cast<size_t>(i * kHidden + a)];
      if (block(i) != block(a)) {
        EXPECT_NEAR(value, 0, 1e-6) << i << " " << a;
      }
      norm += double{value} * value;
    }
    EXPECT_NEAR(norm, 1, 1e-5);
  }
  EXPECT_EQ(residual_basis(moment, kHidden, {16, 16}, 1), residual_basis(moment, kHidden, {16}, 1));
}

TEST(LinearAlgebra, EigenvectorsAndPowers) {
  constexpr int kN = 17;
  const std::vector<double> turn = random_rotation(kN, 8);
  std::vector<double> a(static_cast<size_t>(kN * kN));
  for (int s = 0; s < kN; ++s)
    for (int i = 0; i < kN; ++i)
      for (int j = 0; j < kN; ++j)
        a[static_cast<size_t>(i * kN + j)] +=
            (s + 1) * turn[static_cast<size_t>(s * kN + i)] * turn[static_cast<size_t>(s * kN + j)];
  const Eigen eigen = symmetric_eigen(a, kN);
  for (int s = 0; s < kN; ++s) EXPECT_NEAR(eigen.values[static_cast<size_t>(s)], s + 1, 1e-10);
  const std::vector<double> root = symmetric_power(eigen, 0.5, 0);
  const std::vector<double> square = multiply(root, root, kN);
  for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(square[i], a[i], 1e-10);
  const std::vector<double> inverse = symmetric_power(eigen, -1, 0);
  const std::vector<double> unit = multiply(inverse, a, kN);
  for (int i = 0; i < kN * kN; ++i)
    EXPECT_NEAR(unit[static_cast<size_t>(i)], i % (kN + 1) == 0 ? 1 : 0, 1e-10);
}

}  // namespace
}  // namespace atom::quantizer
