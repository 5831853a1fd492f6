// The kernels of one instruction set as a table of functions over plain structs. kernels.cc is
// compiled once per set; isa.cc picks a table at start. A kernel runs on one thread, on memory that
// the caller owns; scratch memory is the calling worker's and holds nothing between calls.
//
// Numerics of every kernel: an output element always goes through the same operations in the same
// order, whatever rows, chunks or threads surround it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace atom::backend::cpu {

// Elements of a stored value.
enum class Element : uint8_t { kF32, kF16, kBF16, kInt8, kInt4, kE2M1 };
// How an input's FP4 group is scaled: f32 from its magnitude, a power of two (mxfp4), or E4M3 over a scale of the
// whole segment (nvfp4).
enum class Fp4Scale : uint8_t { kF32, kE8M0, kE4M3 };

// One segment of an activation of `rows` rows. Floating-point: values. Integer: codes with scales,
// and sums of `sum_span` codes each (the zero point of unsigned weights costs offset * sum). Codes
// beyond `size` are 0.
struct InputSegment {
  Element element = Element::kF32;
  Fp4Scale fp4_scale = Fp4Scale::kF32;
  int size = 0;        // channels
  int group = 0;       // values per scale
  int groups = 0;      // scales of a row
  int sum_span = 0;    // codes per sum
  int sums = 0;        // sums of a row
  int64_t stride = 0;  // of rows: floats or bytes
  float* values = nullptr;
  int8_t* codes = nullptr;
  float* scales = nullptr;       // [rows, groups]
  int32_t* code_sums = nullptr;  // [rows, sums]
};

struct Input {
  InputSegment at[2];
  const int32_t* order = nullptr;
  float clip = 1;
  bool signed_scales = false;
  int k = 0;
  int hadamard = 0;  // block length of the transform of at[0]; 0: none
};

// One segment of a weight in panels of `panel_columns` outputs, one after the other.
//   floating point  [k][columns]
//   int8            [ceil(size / 8) * 2][columns][4 k], code + byte_offset
//   int4            [ceil(size / 8)][columns][4 bytes]: k .. k + 3 in the low nibbles, k + 4 .. k +
//   7 in the
//                   high ones, code + 8
//   E2M1            as int4, but patterns
// Scales: [groups][columns], f16 for int4 and f32 for int8 and E2M1 (of one code: half the scale). Progressive int4: f32 [columns] of the
// rows, then the multipliers, s8 [groups][columns].
struct WeightSegment {
  Element element = Element::kF32;
  bool progressive = false;
  int size = 0;
  int group = 0;
  int groups = 0;
  const uint8_t* panels = nullptr;
  const uint8_t* scales = nullptr;
  int64_t panel_bytes = 0;
  int64_t panel_scale_bytes = 0;
};

// y[row, :] (+)= x[source(row), :] * w^T + bias for rows [row_begin, row_end) and whole panels.
struct LinearTask {
  Input x;
  WeightSegment w[2];
  const float* bias = nullptr;         // [panels * columns] or null
  const int32_t* row_index = nullptr;  // source(row) = row_index[row]; null: row
  int row_begin = 0, row_end = 0;
  int panel_begin = 0, panel_end = 0;
  int n = 0;
  float* y = nullptr;  // [.., n]
  int add = 0;         // y += instead of y =
};

// K or V in a page of the cache.
struct CacheSide {
  int bits = 0;        // 32, 16, 8 or 4
  int64_t offset = 0;  // of its first head in a page
  int64_t head_bytes = 0, row_bytes = 0, param_bytes = 0;
};

// Queries of one KV head: rows [row_begin, row_end) of the step at positions position, position +
// 1, ...
struct AttentionTask {
  const float* qkv = nullptr;
  int heads = 0, kv_heads = 0, head_dim = 0;
  int page_tokens = 0;
  int64_t page_bytes = 0;
  CacheSide sides[2];  // K, V
  uint8_t* pages = nullptr;
  const int32_t* page_table = nullptr;
  const float* rope_cos = nullptr;
  const float* rope_sin = nullptr;
  int hadamard = 0;                   // block length of the transform of Q and K; 0: none
  const float* key_offset = nullptr;  // [kv_heads, head_dim], subtracted from K then; may be null
  float kv_clip = 1;                  // of int4 sides
  int window = 0;                     // positions that a query reads; 0: all up to its own
  // With open pages: the sequence's, and the step's rows in int8, [rows][K, V][kv_heads] of {codes [head_dim], lo,
  // step}; else null.
  uint8_t* open_page = nullptr;
  uint8_t* fresh = nullptr;
  int64_t open_head_bytes = 0;
  int first_row = 0, first_position = 0;  // of the sequence's part of the step
  int row_begin = 0, row_end = 0;
  int position = 0;  // of row_begin
  int kv_head = 0;
  float* out = nullptr;  // [rows of the step, heads * head_dim]
};

struct KernelTable {
  int panel_columns = 0;
  int byte_offset = 0;  // added to int8 weight codes when they are packed
  int row_tile = 0;     // rows of a register tile

  size_t (*linear_scratch)(const LinearTask&);
  void (*linear)(const LinearTask&, std::byte* scratch);

  // Orders x [k] and writes it as row `row` of y. row_scratch bytes of scratch.
  size_t (*row_scratch)(const Input&);
  void (*quantize_row)(const Input& y, int row, const float* x, std::byte* scratch);
  void (*norm_row)(const float* x, const float* gain, float epsilon, int k, float* y);
  void (*gate_row)(const float* x, int k, float* y);  // y = silu(x[0 .. k)) * x[k .. 2 k)
  void (*widen_row)(Element element, const void* from, int size, float* to);
  // y += sum of weights[j] * rows[j], j ascending
  void (*combine_row)(const float* const* rows, const float* weights, int count, int n, float* y);

  void (*store_kv)(const AttentionTask&, std::byte* scratch);  // all KV heads of the task's rows
  size_t (*attention_scratch)(const AttentionTask&);
  void (*attention)(const AttentionTask&, std::byte* scratch);

  float (*largest)(const float* x, int size);                  // NaN when there is one
  double (*sum_exp)(const float* x, int size, float largest);  // sum of e^(x - largest)
};

namespace baseline {
extern const KernelTable kKernels;
}
namespace avx2 {
extern const KernelTable kKernels;
}
namespace avx512 {
extern const KernelTable kKernels;
}

}  // namespace atom::backend::cpu
