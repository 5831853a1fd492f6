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

// Of the largest eigenvalue: directions that the calibration text hardly uses.
constexpr double kFloor = 1e-7;

size_t index(int64_t row, int64_t column, int64_t width) {
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

// rows * second moment of the inputs, [n, k].
std::vector<float> times_gram(const std::vector<float>& rows, int n, const Gram& gram) {
  std::vector<float> out(rows.size());
  const float scale = gram.rows > 0 ? 1.0f / static_cast<float>(gram.rows) : 0.0f;
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, gram.k, gram.k, scale, rows.data(),
              gram.k, gram.values.data(), gram.k, 0.0f, out.data(), gram.k);
  return out;
}

double dot(const float* a, const float* b, int64_t n, int64_t step_a = 1, int64_t step_b = 1) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += double{a[i * step_a]} * double{b[i * step_b]};
  return sum;
}

// Mean energies of the outputs of a linear, [n].
std::vector<double> output_energies(const LinearTensors& linear, const Gram& gram) {
  const std::vector<float> w = model::to_f32(linear);
  const std::vector<float> t = times_gram(w, linear.n, gram);
  std::vector<double> out;
  for (int64_t r = 0; r < linear.n; ++r)
    out.push_back(dot(w.data() + r * gram.k, t.data() + r * gram.k, gram.k));
  return out;
}

// (a / b)^(1/4) where both say something: channels that are nearly silent get no huge factor.
struct Balance {
  double floor_a, floor_b;
  double operator()(double a, double b) const {
    return floor_a > 0 && floor_b > 0 ? std::pow(std::max(a, floor_a) / std::max(b, floor_b), 0.25)
                                      : 1.0;
  }
};

double floor_of(std::span<const double> energies) {
  return energies.empty() ? 0 : kFloor * *std::max_element(energies.begin(), energies.end());
}

// Both Gramians of a head's values: covariance of v, and o^T o summed over the query heads that share it.
struct HeadGramians {
  Matrix covariance, readers;
};

std::vector<HeadGramians> value_gramians(const model::LayerTensors& layer,
                                         const model::ModelConfig& config, const Gram& gram) {
  const int d = config.head_dim, hidden = config.hidden, width = config.attention_size();
  const size_t area = static_cast<size_t>(d) * static_cast<size_t>(d);
  const std::vector<float> v = model::to_f32(layer.v), o = model::to_f32(layer.out);
  const std::vector<float> t = times_gram(v, layer.v.n, gram);
  std::vector<HeadGramians> out(static_cast<size_t>(config.kv_heads), {Matrix(area), Matrix(area)});
  const int sharing = config.heads / config.kv_heads;
  std::vector<float> product(area);
  for (int h = 0; h < config.kv_heads; ++h) {
    HeadGramians& head = out[static_cast<size_t>(h)];
    const int64_t first = int64_t{h} * d * hidden;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, d, d, hidden, 1.0f, t.data() + first,
                hidden, v.data() + first, hidden, 0.0f, product.data(), d);
    std::copy(product.begin(), product.end(), head.covariance.begin());
    for (int q = h * sharing; q < (h + 1) * sharing; ++q) {
      const float* columns = o.data() + int64_t{q} * d;
      cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, d, d, hidden, 1.0f, columns, width,
                  columns, width, 0.0f, product.data(), d);
      for (size_t i = 0; i < area; ++i) head.readers[i] += product[i];
    }
  }
  return out;
}

// Balanced realization (Moore 1981): A C A^T = A^-T G A^-1 = diag(sigma), so that errors of v and errors of o cost
// the least together, whatever basis the source had (up to signs).
void balance_values(const HeadGramians& head, int d, Matrix& forward, Matrix& inverse) {
  const Eigen c = symmetric_eigen(head.covariance, d);
  const double floor = kFloor * c.values.back();
  if (!(c.values.back() > 0)) return;
  const Matrix root = symmetric_power(c, 0.5, floor),
               inverse_root = symmetric_power(c, -0.5, floor);
  const Eigen s = symmetric_eigen(multiply(multiply(root, head.readers, d), root, d), d);
  if (!(s.values.back() > 0)) return;
  forward = multiply(s.vectors, inverse_root, d);
  inverse = multiply(root, transpose(s.vectors, d), d);
  for (int i = 0; i < d; ++i) {
    const double sigma =
        std::sqrt(std::max(s.values[static_cast<size_t>(i)], kFloor * kFloor * s.values.back()));
    const double factor = std::sqrt(sigma);
    for (int j = 0; j < d; ++j) {
      forward[index(i, j, d)] *= factor;
      inverse[index(j, i, d)] /= factor;
    }
  }
}

Matrix identity(int n) {
  Matrix out(static_cast<size_t>(n) * static_cast<size_t>(n));
  for (int i = 0; i < n; ++i) out[static_cast<size_t>(i) * static_cast<size_t>(n + 1)] = 1;
  return out;
}

// Rows of a matrix through the block Hadamard transform of their indices: H A.
void hadamard_rows(Matrix& a, int n, int block) {
  std::vector<float> unit(static_cast<size_t>(n));
  Matrix h(a.size());
  for (int j = 0; j < n; ++j) {
    std::fill(unit.begin(), unit.end(), 0.0f);
    unit[static_cast<size_t>(j)] = 1;
    format::block_hadamard(unit, block);
    for (int i = 0; i < n; ++i) h[index(i, j, n)] = unit[static_cast<size_t>(i)];
  }
  a = multiply(h, a, n);
}

void make_value_bases(const model::LayerTensors& layer, const model::ModelConfig& config,
                      const Moments& moments, const Transforms& which, LayerTransform& out) {
  const int d = config.head_dim;
  const std::vector<HeadGramians> gramians = value_gramians(layer, config, moments.qkv());
  std::vector<Matrix> forwards, inverses;
  double energy = 0;
  for (const HeadGramians& head : gramians) {
    Matrix forward = identity(d), inverse = identity(d);
    if (which.equalize) balance_values(head, d, forward, inverse);
    const Matrix spread = multiply(multiply(forward, head.covariance, d), transpose(forward, d), d);
    for (int i = 0; i < d; ++i)
      energy += spread[static_cast<size_t>(i) * static_cast<size_t>(d + 1)];
    if (which.heads) {
      hadamard_rows(forward, d, Transforms::kBlock);
      inverse = transpose(inverse, d);
      hadamard_rows(inverse, d, Transforms::kBlock);
      inverse = transpose(inverse, d);
    }
    forwards.push_back(std::move(forward));
    inverses.push_back(std::move(inverse));
  }
  // One factor for all heads changes nothing but the range: values of size 1 suit the f16 of the cache.
  const double factor = which.equalize && energy > 0
                            ? std::sqrt(static_cast<double>(config.kv_heads) * d / energy)
                            : 1.0;
  for (size_t h = 0; h < forwards.size(); ++h) {
    for (double& v : forwards[h]) v *= factor;
    for (double& v : inverses[h]) v /= factor;
    out.value.emplace_back(forwards[h].begin(), forwards[h].end());
    out.value_inverse.emplace_back(inverses[h].begin(), inverses[h].end());
  }
}

std::vector<double> balance_keys(const model::LayerTensors& layer, const model::ModelConfig& config,
                                 const Gram& gram) {
  const std::vector<double> q = output_energies(layer.q, gram), k = output_energies(layer.k, gram);
  const int d = config.head_dim, half = d / 2, sharing = config.heads / config.kv_heads;
  const Balance balance{floor_of(q), floor_of(k)};
  std::vector<double> out;
  double energy = 0;
  for (int h = 0; h < config.kv_heads; ++h)
    for (int i = 0; i < half; ++i) {
      const auto pair = [&](const std::vector<double>& e, int head) {
        return e[index(head, i, d)] + e[index(head, i + half, d)];
      };
      double queries = 0;
      for (int s = 0; s < sharing; ++s) queries += pair(q, h * sharing + s);
      out.push_back(balance(queries, pair(k, h)));
      energy += out.back() * out.back() * pair(k, h);
    }
  const double factor =
      energy > 0 ? std::sqrt(static_cast<double>(config.kv_heads) * d / energy) : 1.0;
  for (double& v : out) v *= factor;
  return out;
}

// Squared norms of the columns.
std::vector<double> column_energies(const LinearTensors& linear) {
  const std::vector<float> w = model::to_f32(linear);
  const int k = linear.k();
  std::vector<double> out(static_cast<size_t>(k));
  for (int64_t r = 0; r < linear.n; ++r)
    for (int j = 0; j < k; ++j)
      out[static_cast<size_t>(j)] +=
          double{w[static_cast<size_t>(r * k + j)]} * w[static_cast<size_t>(r * k + j)];
  return out;
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

LayerTransform make_transform(const model::LayerTensors& layer, const model::ModelConfig& config,
                              const Moments& moments, const Transforms& which) {
  LayerTransform out;
  if (which.equalize || which.heads) make_value_bases(layer, config, moments, which, out);
  if (!which.equalize) return out;
  out.key = balance_keys(layer, config, moments.qkv());
  for (size_t e = 0; e < layer.experts.size(); ++e) {
    const std::vector<double> columns = column_energies(layer.experts[e].down);
    const std::vector<double>& inputs = moments.down()[e];
    const int64_t rows = moments.down_rows()[e];
    const Balance balance{floor_of(columns) * static_cast<double>(rows), floor_of(inputs)};
    std::vector<double> up;
    for (size_t j = 0; j < columns.size(); ++j)
      up.push_back(rows < kFewRows ? 1.0
                                   : balance(columns[j] * static_cast<double>(rows), inputs[j]));
    out.up.push_back(std::move(up));
  }
  return out;
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
        const double factor = transform.key[index(h, i % half, half)];
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
    for (int i = 0; i < d; ++i) out.push_back(spread[index(i, i, d)]);
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
