// Arguments of the device operations: plain structs of pointers and sizes. All pointers are memory
// of the backend (Backend::allocate); sizes count elements; rows are tokens. m = rows, n = outputs,
// k = inputs.
#pragma once

#include <cstdint>
#include <span>

#include "format/format.h"
#include "format/kv_page.h"
#include "format/linear_format.h"

namespace atom::backend {

// How a linear wants its input: order, segments, clip. One per site (q/k/v share one, gate/up share
// one).
struct InputSpec {
  format::Segments
      segments;       // formats of the activation; floating-point segments are carried as f32
  float clip = 1.0f;  // of int4 and e2m1 segments: s = absmax * (clip / 7), absmax * (clip / 6)
  // Of int4 groups: s = extreme * (clip / -8), extreme the value of largest magnitude (format::signed_int4_scale).
  bool signed_scales = false;
  const int32_t* order =
      nullptr;  // [k] channel at position i of the linear's input; null: identity
  // After the order, the first segment goes through format::block_hadamard with blocks of this length, a power of
  // two up to 128; 0: it does not.
  int hadamard = 0;

  int k() const { return segments.k(); }
};

// A linear's input as its producer wrote it. `data` holds Backend::activation_bytes(*spec, rows)
// bytes in a layout private to the backend. `spec` outlives every use.
struct Activation {
  void* data = nullptr;
  const InputSpec* spec = nullptr;
  int rows = 0;
};

// A weight as the checkpoint stores it (host memory, canonical bits, docs/formats.md).
struct LinearWeight {
  int n = 0;
  format::Segments segments;
  struct Part {
    const void* codes = nullptr;  // [n, row_bytes(format, size)]
    const void* scales =
        nullptr;  // [n, weight_scales] of format::weight_scale_bytes; null for floating point
    const int8_t* multipliers = nullptr;  // [n, groups], 1..15 or -15..-1, progressive int4 only
    const float* global_scale = nullptr;  // [1], nvfp4 only: divides the scales
  };
  Part part[2];
  const float* bias = nullptr;  // [n], may be null
};

// A weight in the layout of this backend's kernels; made by Backend::pack.
class PackedLinear {
 public:
  virtual ~PackedLinear() = default;
  int n() const { return n_; }
  int k() const { return k_; }

 protected:
  int n_ = 0;
  int k_ = 0;
};

// A matrix of 16- or 32-bit rows to look up (embedding). Not owned.
struct Table {
  const void* rows = nullptr;  // [count, width]
  format::Format format;       // f32, f16 or bf16
  int count = 0;
  int width = 0;
};

// In EmbedArgs::ids: the id that was sampled last for row j (Backend::sample_ahead), which the host may not know yet.
constexpr int32_t sampled_row(int j) { return ~j; }

// y[i] = table[id]: id = ids[i] in [0, count), or sampled[j] where ids[i] is sampled_row(j). A sampled -1 gives a row of NaN.
struct EmbedArgs {
  const int32_t* ids = nullptr;      // [rows]
  const int32_t* sampled = nullptr;  // where sample_ahead left ids; null: no row takes one
  int rows = 0;
  Table table;
  float* y = nullptr;  // [rows, width]
};

// RMSNorm (Zhang, Sennrich 2019): x / sqrt(mean(x^2) + epsilon) * gain, quantized for the consumer.
struct NormArgs {
  const float* x = nullptr;     // [rows, k]
  const float* gain = nullptr;  // [k]
  float epsilon = 0;
  Activation y;  // y.rows rows
  float* plain =
      nullptr;  // [rows, k] the same without order and quantization; may be null (router input)
};

// Orders and quantizes rows that exist in f32.
struct QuantizeArgs {
  const float* x = nullptr;  // [rows, k]
  Activation y;
};

// SwiGLU (Shazeer 2020): silu(gate) * up. x = [rows, 2 k], gate first.
struct GateArgs {
  const float* x = nullptr;
  const uint16_t* x_f16 = nullptr;  // instead of x, where Backend::has_f16_rows()
  Activation y;                     // [rows, k]
};

enum class Then : uint8_t { kStore, kAdd };  // y = result, or y += result (residual)

// y[i, :] = x[row(i), :] * w^T + bias. Dense: one weight, rows = x.rows. By expert: weights[e]
// serves the output rows [row_ends[e - 1], row_ends[e]), and row(i) = row_index[i] (null: i).
struct LinearArgs {
  Activation x;
  std::span<const PackedLinear* const> weights;  // 1, or one per expert
  const int32_t* row_ends = nullptr;             // [experts]; null: dense
  const int32_t* row_index =
      nullptr;         // [row_ends[experts - 1]], at most x.rows * experts; null: identity
  float* y = nullptr;  // [rows, n]
  // Instead of y, where Backend::has_f16_rows(), and with kStore only: results rounded to f16; a finite one beyond its range
  // becomes the largest of its sign. A multiple of 16.
  uint16_t* y_f16 = nullptr;
  Then then = Then::kStore;
};

// One sequence's part of a step: rows [row_begin, row_end) of the batch are its positions
// position, position + 1, ...; page_table[p] is the page of positions [p * tokens, (p + 1) *
// tokens).
struct SequenceStep {
  int row_begin = 0;
  int row_end = 0;
  int position = 0;
  const int32_t* page_table = nullptr;  // memory of the backend or of the host
  int open_page = 0;                    // the sequence's, where the layout has open pages
};

// Turns Q and K (RoPE, Su et al. 2021; halves [0, d/2) and [d/2, d) form the pairs), stores K and
// V in the cache format, then attends causally to K and V as stored, the step's own tokens
// included. With an open page, a query reads the positions of its own page as rounded to int8 and those before as stored
// in the page; which rows a step holds makes no difference. GQA: query head h reads KV head h / (heads / kv_heads). Scores are scaled by 1 /
// sqrt(head_dim).
struct AttentionArgs {
  const float* qkv = nullptr;         // [rows, (heads + 2 kv_heads) * head_dim]
  const uint16_t* qkv_f16 = nullptr;  // instead of qkv, where Backend::has_f16_rows()
  int rows = 0;
  int heads = 0;
  format::KvLayout layout;          // kv_heads, head_dim, tokens per page
  void* pages = nullptr;            // of this layer: page p at p * layout.page_bytes()
  const float* rope_cos = nullptr;  // [positions, head_dim / 2]
  const float* rope_sin = nullptr;
  // After RoPE, each head of Q and K goes through format::block_hadamard with blocks of this length; 0: it does not.
  int hadamard = 0;
  // [kv_heads, head_dim] or null: subtracted from every K after that, before it is stored. Scores of a query all move
  // by the same amount, which softmax does not notice; what is stored becomes smaller.
  const float* key_offset = nullptr;
  float kv_clip = 1.0f;  // of int4 sides of the cache (format::kv_params)
  // A query at position p reads the positions p - window + 1 to p (sliding window: Beltagy et al. 2020); 0: all up to p.
  int window = 0;
  // Open page s at s * layout.of_open_page().page_bytes(); null without open pages. The step leaves there what the
  // next one needs: the positions of each sequence's last page.
  void* open_pages = nullptr;
  std::span<const SequenceStep> sequences;  // host memory; disjoint rows that cover [0, rows)
  Activation y;                             // [rows, heads * head_dim]
};

// RMSNorm of every head of Q and of K apart, in place, before attention turns them (Qwen3): x / sqrt(mean(x^2) + epsilon) *
// gain over head_dim values. V stays. Sums are f64 on every backend.
struct NormHeadsArgs {
  float* qkv = nullptr;  // [rows, (heads + 2 kv_heads) * head_dim], as AttentionArgs takes it
  uint16_t* qkv_f16 = nullptr;  // instead of qkv, where Backend::has_f16_rows()
  int rows = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  const float* q_gain = nullptr;  // [head_dim], of all heads of Q
  const float* k_gain = nullptr;  // [head_dim]
  float epsilon = 0;
};

// Mixture routing: softmax over experts in f32, the top_k largest (ties: lower expert), weights
// renormalized to sum 1 when asked. Output rows are grouped by expert, ascending token inside an
// expert.
struct RouteArgs {
  const float* logits = nullptr;  // [rows, experts]
  int rows = 0;
  int experts = 0;
  int top_k = 0;
  int renormalize = 1;
  int32_t* row_index = nullptr;  // [rows * top_k] token of the output row
  int32_t* row_ends = nullptr;   // [experts]
  int32_t* slots = nullptr;  // [rows, top_k] output row of the token's choices, ascending expert
  float* weights = nullptr;  // [rows, top_k] weight of slots[..]
};

// y[t, :] += sum over j of weights[t, j] * x[slots[t, j], :], j ascending.
struct CombineArgs {
  const float* x = nullptr;  // [rows * top_k, n]
  const int32_t* slots = nullptr;
  const float* weights = nullptr;
  int rows = 0;
  int top_k = 0;
  int n = 0;
  float* y = nullptr;  // [rows, n]
};

// One row's sampling rule. temperature 0: the most likely id (ties: lower id).
struct SampleRule {
  float temperature = 0;
  int32_t top_k = 0;  // 0: all
  // Ids at least so many times as likely as the likeliest; 0: all. Then top_k, then top_p, as in vLLM.
  float min_p = 0;
  float top_p = 1;     // smallest set of most likely ids whose share of what is left reaches top_p
  double uniform = 0;  // draw in [0, 1)
};

// A change of one logit before sampling: divided by `factor` if it is positive, multiplied by it if negative (Keskar et al. 2019),
// then `add` is added, which may be -infinity.
struct LogitEdit {
  int row = 0;
  int32_t id = 0;
  float factor = 1;
  float add = 0;
};

// Ids from logits, or log-probabilities of given ids. A row with a NaN logit gives id -1.
struct SampleArgs {
  const float* logits = nullptr;  // [rows, vocabulary]
  int rows = 0;
  int vocabulary = 0;
  const SampleRule* rules = nullptr;    // [rows] host; null: no sampling
  int32_t* ids = nullptr;               // [rows] host
  const int32_t* targets = nullptr;     // [rows] host; null: no scoring
  double* log_probabilities = nullptr;  // [rows] host: natural log of softmax at targets
};

}  // namespace atom::backend
