// Operations on single rows: embedding, norm, quantization, gate, and a mixture's routing and sum.
#include <cmath>
#include <limits>
#include <vector>

#include "backend/embed_id.h"
#include "backend/reference/activation.h"
#include "backend/reference/reference_backend.h"
#include "base/error.h"
#include "format/list.h"

namespace atom::backend {
namespace {

std::span<const float> row_at(const float* x, int row, int width) {
  return {x + static_cast<size_t>(row) * static_cast<size_t>(width), static_cast<size_t>(width)};
}

std::vector<double> softmax(std::span<const float> logits) {
  double largest = double{logits[0]};
  for (const float x : logits) largest = std::fmax(largest, double{x});
  std::vector<double> p;
  double mass = 0;
  for (const float x : logits) {
    p.push_back(std::exp(double{x} - largest));
    mass += p.back();
  }
  for (double& x : p) x /= mass;
  return p;
}

// The `count` experts of the largest logits (softmax keeps their order), as flags. A NaN is never
// larger.
std::vector<char> choose_experts(std::span<const float> logits, int count) {
  std::vector<char> chosen(logits.size(), 0);
  for (int j = 0; j < count; ++j) {
    int best = -1;
    for (int e = 0; e < static_cast<int>(logits.size()); ++e)
      if (!chosen[e] && (best < 0 || logits[e] > logits[best])) best = e;
    chosen[best] = 1;
  }
  return chosen;
}

}  // namespace

void ReferenceBackend::embed(const EmbedArgs& args) {
  const Table& table = args.table;
  format::visit(table.format, [&](auto f) {
    using F = decltype(f);
    if constexpr (!F::kInteger) {
      const auto* rows = static_cast<const typename F::Storage*>(table.rows);
      for (int row = 0; row < args.rows; ++row) {
        const int32_t id = embed_id(args, row);
        for (size_t i = 0, width = static_cast<size_t>(table.width); i < width; ++i)
          args.y[row * width + i] = id < 0 ? std::numeric_limits<float>::quiet_NaN()
                                           : F::widen(rows[static_cast<size_t>(id) * width + i]);
      }
    } else {
      check(false, "a table holds floating-point rows");
    }
  });
}

void ReferenceBackend::norm(const NormArgs& args) {
  const int k = args.y.spec->k();
  std::vector<float> y(static_cast<size_t>(k));
  for (int row = 0; row < args.y.rows; ++row) {
    const std::span<const float> x = row_at(args.x, row, k);
    double squares = 0;
    for (const float v : x) squares += double{v} * double{v};
    const float inv = static_cast<float>(1.0 / std::sqrt(squares / k + double{args.epsilon}));
    for (int i = 0; i < k; ++i) y[i] = (x[i] * inv) * args.gain[i];
    quantize_row(y, args.y, row);
    if (args.plain != nullptr)
      std::copy(y.begin(), y.end(), args.plain + static_cast<size_t>(row) * y.size());
  }
}

void ReferenceBackend::norm_heads(const NormHeadsArgs& args) {
  check(args.qkv_f16 == nullptr, "reference takes rows in f32");
  const int d = args.head_dim, normed = args.heads + args.kv_heads;
  for (int row = 0; row < args.rows; ++row)
    for (int head = 0; head < normed; ++head) {
      float* x = args.qkv + (int64_t{row} * (normed + args.kv_heads) + head) * d;
      const float* gain = head < args.heads ? args.q_gain : args.k_gain;
      double squares = 0;
      for (int i = 0; i < d; ++i) squares += double{x[i]} * double{x[i]};
      const float inv = static_cast<float>(1.0 / std::sqrt(squares / d + double{args.epsilon}));
      for (int i = 0; i < d; ++i) x[i] = (x[i] * inv) * gain[i];
    }
}

void ReferenceBackend::quantize(const QuantizeArgs& args) {
  for (int row = 0; row < args.y.rows; ++row)
    quantize_row(row_at(args.x, row, args.y.spec->k()), args.y, row);
}

void ReferenceBackend::gate(const GateArgs& args) {
  check(args.x_f16 == nullptr, "reference takes rows in f32");
  const int k = args.y.spec->k();
  std::vector<float> y(static_cast<size_t>(k));
  for (int row = 0; row < args.y.rows; ++row) {
    const std::span<const float> x = row_at(args.x, row, 2 * k);
    for (int i = 0; i < k; ++i) {
      const double g = double{x[i]};
      y[i] = static_cast<float>(g / (1.0 + std::exp(-g))) * x[k + i];
    }
    quantize_row(y, args.y, row);
  }
}

void ReferenceBackend::route(const RouteArgs& args) {
  const int experts = args.experts, top_k = args.top_k;
  check(top_k >= 1 && top_k <= experts, "route: top_k is in [1, experts]");
  std::vector<std::vector<char>> chosen;  // [rows][experts]
  for (int row = 0; row < args.rows; ++row) {
    const std::span<const float> logits = row_at(args.logits, row, experts);
    chosen.push_back(choose_experts(logits, top_k));
    const std::vector<double> p = softmax(logits);
    double mass = 0;
    for (int e = 0; e < experts; ++e) mass += chosen[row][e] ? p[e] : 0;
    float* weights = args.weights + row * top_k;
    for (int e = 0; e < experts; ++e)
      if (chosen[row][e]) *weights++ = static_cast<float>(args.renormalize ? p[e] / mass : p[e]);
  }

  std::vector<int> used(static_cast<size_t>(args.rows), 0);  // choices of the token placed so far
  int out = 0;
  for (int e = 0; e < experts; ++e) {
    for (int row = 0; row < args.rows; ++row) {
      if (!chosen[row][e]) continue;
      args.row_index[out] = row;
      args.slots[row * top_k + used[row]++] = out++;
    }
    args.row_ends[e] = out;
  }
}

void ReferenceBackend::combine(const CombineArgs& args) {
  const size_t n = static_cast<size_t>(args.n);
  for (int row = 0; row < args.rows; ++row) {
    const int32_t* slots = args.slots + row * args.top_k;
    const float* weights = args.weights + row * args.top_k;
    for (size_t i = 0; i < n; ++i) {
      double sum = 0;
      for (int j = 0; j < args.top_k; ++j)
        sum += double{weights[j]} * double{args.x[static_cast<size_t>(slots[j]) * n + i]};
      args.y[row * n + i] += static_cast<float>(sum);
    }
  }
}

}  // namespace atom::backend
