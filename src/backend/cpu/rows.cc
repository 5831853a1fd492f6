// Operations on single rows, and what tests and reports read back.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "backend/cpu/activation.h"
#include "backend/cpu/cpu_backend.h"
#include "backend/embed_id.h"
#include "base/error.h"
#include "format/list.h"
#include "format/quantize.h"

namespace atom::backend::cpu {
namespace {

// The flags of the `count` largest logits of a row (ties: lower expert). A NaN is never larger.
void choose_experts(const float* logits, int experts, int count, char* chosen) {
  for (int j = 0; j < count; ++j) {
    int best = -1;
    for (int e = 0; e < experts; ++e)
      if (chosen[e] == 0 && (best < 0 || logits[e] > logits[best])) best = e;
    chosen[best] = 1;
  }
}

// Softmax weights of the chosen experts, ascending; NaN in a row with a NaN.
void weigh_experts(const RouteArgs& args, const float* logits, const char* chosen, float* weights) {
  double largest = double{logits[0]}, mass = 0, kept = 0;
  for (int e = 0; e < args.experts; ++e) largest = std::fmax(largest, double{logits[e]});
  const auto exp = [&](int e) { return std::exp(double{logits[e]} - largest); };
  for (int e = 0; e < args.experts; ++e) mass += exp(e);
  for (int e = 0; e < args.experts; ++e) kept += chosen[e] != 0 ? exp(e) / mass : 0;
  for (int e = 0; e < args.experts; ++e)
    if (chosen[e] != 0)
      *weights++ = static_cast<float>(exp(e) / mass / (args.renormalize != 0 ? kept : 1.0));
}

}  // namespace

void CpuBackend::embed(const EmbedArgs& args) {
  const Table& table = args.table;
  check(!format::is_integer(table.format), "a table holds floating-point rows");
  const int64_t row_bytes = format::row_bytes(table.format, table.width);
  for_rows(args.rows, table.width, 0, [&](int row, std::byte*) {
    const int32_t id = embed_id(args, row);
    float* y = args.y + int64_t{row} * table.width;
    if (id < 0)
      std::fill_n(y, table.width, std::numeric_limits<float>::quiet_NaN());
    else
      kernels_.widen_row(element_of(table.format),
                         static_cast<const char*>(table.rows) + id * row_bytes, table.width, y);
  });
}

void CpuBackend::norm(const NormArgs& args) {
  const Input y = input_of(args.y);
  const size_t own = static_cast<size_t>(y.k) * sizeof(float);
  const size_t quantizer = (kernels_.row_scratch(y) + kAlignment - 1) / kAlignment * kAlignment;
  for_rows(args.y.rows, 2 * y.k, quantizer + own, [&](int row, std::byte* scratch) {
    const int64_t at = int64_t{row} * y.k;
    float* plain =
        args.plain != nullptr ? args.plain + at : reinterpret_cast<float*>(scratch + quantizer);
    kernels_.norm_row(args.x + at, args.gain, args.epsilon, y.k, plain);
    kernels_.quantize_row(y, row, plain, scratch);
  });
}

// Plain code: a few thousand values a token, and double sums leave the compiler no order to choose.
void CpuBackend::norm_heads(const NormHeadsArgs& args) {
  check(args.qkv_f16 == nullptr, "cpu takes rows in f32");
  const int d = args.head_dim, normed = args.heads + args.kv_heads;
  for_rows(args.rows, int64_t{2} * normed * d, 0, [&](int row, std::byte*) {
    for (int head = 0; head < normed; ++head) {
      float* x = args.qkv + (int64_t{row} * (normed + args.kv_heads) + head) * d;
      const float* gain = head < args.heads ? args.q_gain : args.k_gain;
      double squares = 0;
      for (int i = 0; i < d; ++i) squares += double{x[i]} * double{x[i]};
      const float inv = static_cast<float>(1.0 / std::sqrt(squares / d + double{args.epsilon}));
      for (int i = 0; i < d; ++i) x[i] = (x[i] * inv) * gain[i];
    }
  });
}

void CpuBackend::quantize(const QuantizeArgs& args) {
  const Input y = input_of(args.y);
  for_rows(args.y.rows, y.k, kernels_.row_scratch(y), [&](int row, std::byte* scratch) {
    kernels_.quantize_row(y, row, args.x + int64_t{row} * y.k, scratch);
  });
}

void CpuBackend::gate(const GateArgs& args) {
  check(args.x_f16 == nullptr, "cpu takes rows in f32");
  const Input y = input_of(args.y);
  const size_t own = static_cast<size_t>(y.k) * sizeof(float);
  const size_t quantizer = (kernels_.row_scratch(y) + kAlignment - 1) / kAlignment * kAlignment;
  for_rows(args.y.rows, 4 * y.k, quantizer + own, [&](int row, std::byte* scratch) {
    float* plain = reinterpret_cast<float*>(scratch + quantizer);
    kernels_.gate_row(args.x + int64_t{row} * 2 * y.k, y.k, plain);
    kernels_.quantize_row(y, row, plain, scratch);
  });
}

void CpuBackend::route(const RouteArgs& args) {
  const int experts = args.experts, top_k = args.top_k;
  check(top_k >= 1 && top_k <= experts, "route: top_k is in [1, experts]");
  std::vector<char> chosen(static_cast<size_t>(args.rows) * static_cast<size_t>(experts));
  const auto flags = [&](int row) { return chosen.data() + int64_t{row} * experts; };
  for_rows(args.rows, int64_t{experts} * (top_k + 16), 0, [&](int row, std::byte*) {
    const float* logits = args.logits + int64_t{row} * experts;
    choose_experts(logits, experts, top_k, flags(row));
    weigh_experts(args, logits, flags(row), args.weights + int64_t{row} * top_k);
  });

  std::vector<int> used(static_cast<size_t>(args.rows));  // choices of the row placed so far
  int out = 0;
  for (int e = 0; e < experts; ++e) {
    for (int row = 0; row < args.rows; ++row) {
      if (flags(row)[e] == 0) continue;
      args.row_index[out] = row;
      args.slots[int64_t{row} * top_k + used[static_cast<size_t>(row)]++] = out++;
    }
    args.row_ends[e] = out;
  }
}

void CpuBackend::combine(const CombineArgs& args) {
  const size_t scratch_bytes = static_cast<size_t>(args.top_k) * sizeof(float*);
  for_rows(args.rows, int64_t{args.n} * args.top_k, scratch_bytes,
           [&](int row, std::byte* scratch) {
             auto* rows = reinterpret_cast<const float**>(scratch);
             const int64_t at = int64_t{row} * args.top_k;
             for (int j = 0; j < args.top_k; ++j)
               rows[j] = args.x + int64_t{args.slots[at + j]} * args.n;
             kernels_.combine_row(rows, args.weights + at, args.top_k, args.n,
                                  args.y + int64_t{row} * args.n);
           });
}

void CpuBackend::dequantize(const Activation& x, float* y) {
  const Input input = input_of(x);
  for (int row = 0; row < x.rows; ++row) {
    for (const InputSegment& s : input.at) {
      for (int i = 0; i < s.size; ++i)
        *y++ = s.groups == 0 ? s.values[row * s.stride + i]
                             : s.scales[int64_t{row} * s.groups + i / s.group] *
                                   static_cast<float>(s.codes[row * s.stride + i]);
    }
  }
}

void CpuBackend::export_codes(const Activation& x, int8_t* codes, float* scales) {
  const Input input = input_of(x);
  for (int row = 0; row < x.rows; ++row) {
    for (const InputSegment& s : input.at) {
      for (int i = 0; i < s.size; ++i)
        *codes++ = s.groups == 0 ? int8_t{0} : s.codes[row * s.stride + i];
      for (int g = 0; g < s.groups; ++g) *scales++ = s.scales[int64_t{row} * s.groups + g];
    }
  }
}

void CpuBackend::count_saturated(const Activation& x, uint64_t* count) {
  const Input input = input_of(x);
  std::atomic<int64_t> all = 0;
  for_rows(x.rows, input.k, 0, [&](int row, std::byte*) {
    int64_t own = 0;
    for (size_t i = 0; i < 2; ++i) {
      const InputSegment& s = input.at[i];
      if (s.groups == 0) continue;
      const std::span<const int8_t> codes(s.codes + row * s.stride, static_cast<size_t>(s.size));
      own += format::saturated_in_segment(codes, x.spec->segments.at[i].format);
    }
    all += own;
  });
  *count += static_cast<uint64_t>(all.load());
}

}  // namespace atom::backend::cpu
