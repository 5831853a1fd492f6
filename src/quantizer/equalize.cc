#include "quantizer/equalize.h"

#include <cblas.h>

#include <algorithm>
#include <cmath>

#include "format/hadamard.h"
#include "model/rope.h"
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

// rows * mean second moment of the inputs, [n, k]. Few tokens say nothing of most directions: the moment of white
// inputs (the identity, since inputs have mean square 1) is mixed in, as much as (k / tokens)^2, which is invisible at
// the default size. It stands on the input side, so that a change of basis of the outputs changes nothing.
std::vector<float> times_gram(const std::vector<float>& rows, int n, const Gram& gram) {
  const double missing =
      gram.rows > 0 ? static_cast<double>(gram.k) / static_cast<double>(gram.rows) : 1;
  const float white = static_cast<float>(std::min(1.0, missing * missing));
  std::vector<float> out(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) out[i] = white * rows[i];
  const float scale = gram.rows > 0 ? (1.0f - white) / static_cast<float>(gram.rows) : 0.0f;
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, gram.k, gram.k, scale, rows.data(),
              gram.k, gram.values.data(), gram.k, 1.0f, out.data(), gram.k);
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

// Squared norms of the rows.
std::vector<double> row_energies(const LinearTensors& linear) {
  const std::vector<float> w = model::to_f32(linear);
  std::vector<double> out;
  for (int64_t r = 0; r < linear.n; ++r)
    out.push_back(dot(w.data() + r * linear.k(), w.data() + r * linear.k(), linear.k()));
  return out;
}

// Factors of the rows of up. `energies`: of down's inputs, summed over `rows` tokens.
std::vector<double> balance_up(const model::ExpertTensors& expert, std::vector<double> energies,
                               int64_t rows) {
  if (rows < kFewRows) return std::vector<double>(energies.size(), 1.0);
  std::vector<double> columns = column_energies(expert.down);
  for (double& energy : columns) energy *= static_cast<double>(rows);
  // A channel that fires rarely may not have fired here: kPrior tokens of what the norm of up's row lets expect, in
  // the mean ratio of both over all channels (which no scaling of up's rows changes).
  constexpr double kPrior = 16;
  const std::vector<double> norms = row_energies(expert.up);
  double ratio = 0;
  for (size_t j = 0; j < energies.size(); ++j)
    if (norms[j] > 0) ratio += energies[j] / norms[j];
  ratio *= kPrior / static_cast<double>(rows) / static_cast<double>(energies.size());
  for (size_t j = 0; j < energies.size(); ++j) energies[j] += ratio * norms[j];
  const Balance balance{floor_of(columns), floor_of(energies)};
  std::vector<double> out;
  for (size_t j = 0; j < columns.size(); ++j) out.push_back(balance(columns[j], energies[j]));
  return out;
}

}  // namespace

std::vector<float> mean_keys(const model::LayerTensors& layer, const model::ModelConfig& config,
                             const Moments& moments, int positions) {
  const int d = config.head_dim, half = d / 2, hidden = config.hidden;
  const model::RopeTables rope = model::make_rope_tables(config, positions);
  std::vector<double> cosine(static_cast<size_t>(half)), sine(cosine.size());
  for (int p = 0; p < positions; ++p)
    for (int i = 0; i < half; ++i) {
      cosine[static_cast<size_t>(i)] += double{rope.cos[index(p, i, half)]} / positions;
      sine[static_cast<size_t>(i)] += double{rope.sin[index(p, i, half)]} / positions;
    }
  const std::vector<float> k = model::to_f32(layer.k);
  const double tokens = static_cast<double>(std::max<int64_t>(moments.qkv().rows, 1));
  std::vector<double> mean;
  for (int r = 0; r < layer.k.n; ++r) {
    double sum = layer.k.bias.empty() ? 0 : double{layer.k.bias[static_cast<size_t>(r)]};
    for (int j = 0; j < hidden; ++j)
      sum += double{k[index(r, j, hidden)]} * moments.qkv_sum()[static_cast<size_t>(j)] / tokens;
    mean.push_back(sum);
  }
  std::vector<float> out(mean.size());
  for (int h = 0; h < config.kv_heads; ++h)
    for (int i = 0; i < half; ++i) {
      const double a = mean[index(h, i, d)], b = mean[index(h, i + half, d)];
      const double c = cosine[static_cast<size_t>(i)], s = sine[static_cast<size_t>(i)];
      out[index(h, i, d)] = static_cast<float>(a * c - b * s);
      out[index(h, i + half, d)] = static_cast<float>(b * c + a * s);
    }
  return out;
}

LayerTransform make_transform(const model::LayerTensors& layer, const model::ModelConfig& config,
                              const Moments& moments, const Transforms& which) {
  LayerTransform out{.heads = which.heads};
  if (which.equalize || which.heads) make_value_bases(layer, config, moments, which, out);
  if (!which.equalize) return out;
  // A factor of a row of k_proj would not pass k_norm.
  if (!config.family->qk_norm) out.key = balance_keys(layer, config, moments.qkv());
  for (size_t e = 0; e < layer.experts.size(); ++e)
    out.up.push_back(balance_up(layer.experts[e], moments.down()[e], moments.down_rows()[e]));
  return out;
}

}  // namespace atom::quantizer
