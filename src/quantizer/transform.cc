#include "quantizer/transform.h"

#include <cblas.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "format/hadamard.h"
#include "quantizer/linear_algebra.h"

namespace atom::quantizer {
namespace {

using model::LinearTensors;
using Matrix = std::vector<double>;

size_t flat_index(int64_t row, int64_t column, int64_t width) {
  return static_cast<size_t>(row * width + column);
}

// A linear as f32 values that may be changed; written back at the end of its life.
class Values {
 public:
  explicit Values(LinearTensors& linear)
      : linear_(linear), k_(linear.k()), values_(model::to_f32(linear)) {}
  ~Values() {
    LinearTensors changed =
        model::from_f32(linear_.name, linear_.n, k_, format::kF32, values_.data());
    linear_.segments = changed.segments;
    linear_.part[0] = std::move(changed.part[0]);
  }
  Values(const Values&) = delete;
  Values& operator=(const Values&) = delete;

  float* row(int r) { return values_.data() + int64_t{r} * k_; }
  float* data() { return values_.data(); }
  std::vector<float>& all() { return values_; }
  int n() const { return linear_.n; }
  int k() const { return k_; }
  std::vector<float>& bias() { return linear_.bias; }

  void scale_row(int r, double factor) {
    for (int j = 0; j < k_; ++j) row(r)[j] = static_cast<float>(row(r)[j] * factor);
    if (!bias().empty())
      bias()[static_cast<size_t>(r)] = static_cast<float>(bias()[static_cast<size_t>(r)] * factor);
  }

 private:
  LinearTensors& linear_;
  int k_;
  std::vector<float> values_;
};

void scale_columns(LinearTensors& linear, std::span<const float> factors) {
  if (linear.n == 0) return;
  Values values(linear);
  for (int r = 0; r < values.n(); ++r)
    for (int j = 0; j < values.k(); ++j) values.row(r)[j] *= factors[static_cast<size_t>(j)];
}

void rotate_columns(LinearTensors& linear, std::span<const float> basis, Solver& solver) {
  if (linear.n == 0) return;
  Values values(linear);
  values.all() = solver.product(values.data(), values.n(), values.k(), basis.data(), values.k());
}

void rotate_rows(LinearTensors& linear, std::span<const float> transposed, Solver& solver) {
  Values values(linear);
  values.all() =
      solver.product(transposed.data(), values.n(), values.n(), values.data(), values.k());
  if (!values.bias().empty())
    values.bias() =
        solver.product(transposed.data(), values.n(), values.n(), values.bias().data(), 1);
}

}  // namespace

void fold_gains(model::LayerTensors& layer) {
  for (LinearTensors* linear : {&layer.q, &layer.k, &layer.v})
    scale_columns(*linear, layer.attention_norm);
  scale_columns(layer.router, layer.ffn_norm);
  for (model::ExpertTensors& expert : layer.experts)
    for (LinearTensors* linear : {&expert.gate, &expert.up}) scale_columns(*linear, layer.ffn_norm);
  std::fill(layer.attention_norm.begin(), layer.attention_norm.end(), 1.0f);
  std::fill(layer.ffn_norm.begin(), layer.ffn_norm.end(), 1.0f);
}

LayerTransform without_heads(LayerTransform transform, int head_dim) {
  if (!transform.heads) return transform;
  const auto turn = [&](float* values, int64_t step) {
    std::vector<float> line(static_cast<size_t>(head_dim));
    for (int64_t i = 0; i < head_dim; ++i) line[static_cast<size_t>(i)] = values[i * step];
    format::block_hadamard(line, Transforms::kBlock);  // its own inverse
    for (int64_t i = 0; i < head_dim; ++i) values[i * step] = line[static_cast<size_t>(i)];
  };
  for (size_t h = 0; h < transform.value.size(); ++h)
    for (int64_t i = 0; i < head_dim; ++i) {
      turn(transform.value[h].data() + i, head_dim);
      turn(transform.value_inverse[h].data() + i * head_dim, 1);
    }
  transform.heads = false;
  return transform;
}

void apply_transform(const LayerTransform& transform, const model::ModelConfig& config,
                     model::LayerTensors& layer) {
  const int d = config.head_dim, half = d / 2, sharing = config.heads / config.kv_heads;
  if (!transform.value.empty()) {
    Values v(layer.v), o(layer.out);
    std::vector<float> block(static_cast<size_t>(d) * static_cast<size_t>(std::max(v.k(), o.n())));
    for (int h = 0; h < config.kv_heads; ++h) {
      const std::vector<float>& a = transform.value[static_cast<size_t>(h)];
      const std::vector<float>& b = transform.value_inverse[static_cast<size_t>(h)];
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, d, v.k(), d, 1.0f, a.data(), d,
                  v.row(h * d), v.k(), 0.0f, block.data(), v.k());
      std::copy_n(block.begin(), static_cast<size_t>(d) * static_cast<size_t>(v.k()), v.row(h * d));
      if (!v.bias().empty()) {
        float* bias = v.bias().data() + int64_t{h} * d;
        cblas_sgemv(CblasRowMajor, CblasNoTrans, d, d, 1.0f, a.data(), d, bias, 1, 0.0f,
                    block.data(), 1);
        std::copy_n(block.begin(), d, bias);
      }
      for (int q = h * sharing; q < (h + 1) * sharing; ++q) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, o.n(), d, d, 1.0f,
                    o.data() + int64_t{q} * d, o.k(), b.data(), d, 0.0f, block.data(), d);
        for (int r = 0; r < o.n(); ++r)
          std::copy_n(block.begin() + int64_t{r} * d, d, o.row(r) + int64_t{q} * d);
      }
    }
  }
  if (!transform.key.empty()) {
    Values q(layer.q), k(layer.k);
    for (int h = 0; h < config.kv_heads; ++h)
      for (int i = 0; i < d; ++i) {
        const double factor = transform.key[flat_index(h, i % half, half)];
        k.scale_row(h * d + i, factor);
        for (int s = h * sharing; s < (h + 1) * sharing; ++s) q.scale_row(s * d + i, 1 / factor);
      }
  }
  for (size_t e = 0; e < transform.up.size(); ++e) {
    const std::vector<double>& factors = transform.up[e];
    Values up(layer.experts[e].up);
    std::vector<float> inverse;
    for (int j = 0; j < up.n(); ++j) up.scale_row(j, factors[static_cast<size_t>(j)]);
    for (const double f : factors) inverse.push_back(static_cast<float>(1 / f));
    scale_columns(layer.experts[e].down, inverse);
  }
}

LayerOrders make_orders(const LayerTransform& transform, const model::ModelConfig& config,
                        const Moments& moments, bool sorted_residual) {
  const int d = config.head_dim, sharing = config.heads / config.kv_heads;
  const auto diagonal = [](const Gram& gram) {
    std::vector<double> out;
    for (int i = 0; i < gram.k; ++i)
      out.push_back(gram.values[static_cast<size_t>(i) * static_cast<size_t>(gram.k + 1)]);
    return energy_order(out);
  };
  LayerOrders orders;
  if (!sorted_residual) {
    orders.qkv = diagonal(moments.qkv());
    orders.ffn = diagonal(moments.ffn());
  }
  std::vector<double> out;
  for (int h = 0; h < config.heads; ++h) {
    const std::vector<float>& head = moments.heads()[static_cast<size_t>(h)];
    Matrix spread(head.begin(), head.end());
    if (!transform.value.empty()) {
      const std::vector<float>& value = transform.value[static_cast<size_t>(h / sharing)];
      const Matrix a(value.begin(), value.end());
      spread = multiply(multiply(a, spread, d), transpose(a, d), d);
    }
    for (int i = 0; i < d; ++i) out.push_back(spread[flat_index(i, i, d)]);
  }
  orders.out = energy_order(out);
  for (size_t e = 0; e < moments.down().size(); ++e) {
    std::vector<double> energies = moments.down()[e];
    if (!transform.up.empty())
      for (size_t j = 0; j < energies.size(); ++j)
        energies[j] *= transform.up[e][j] * transform.up[e][j];
    orders.down.push_back(energy_order(energies));
  }
  return orders;
}

void rotate_residual(std::span<const float> basis, model::LayerTensors& layer, Solver& solver) {
  const int hidden = layer.out.n;
  std::vector<float> transposed(basis.size());
  for (int64_t i = 0; i < hidden; ++i)
    for (int64_t j = 0; j < hidden; ++j)
      transposed[static_cast<size_t>(j * hidden + i)] = basis[static_cast<size_t>(i * hidden + j)];
  for (LinearTensors* linear : {&layer.q, &layer.k, &layer.v, &layer.router})
    rotate_columns(*linear, basis, solver);
  rotate_rows(layer.out, transposed, solver);
  for (model::ExpertTensors& expert : layer.experts) {
    rotate_columns(expert.gate, basis, solver);
    rotate_columns(expert.up, basis, solver);
    rotate_rows(expert.down, transposed, solver);
  }
}

}  // namespace atom::quantizer
