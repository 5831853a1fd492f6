// What the kernels of the cuda backend see: plain structs of pointers and sizes, the layouts of inputs and
// weights on the device, and the functions that launch the kernels. The .cu files include this and nothing else
// of the project; the .cc files fill the structs.
//
//   launch_gate({.x = x, .y = y, .rows = rows, .k = k}, stream);   // enqueues; 0 or a cudaError_t
//
// Pointers are device memory unless they say otherwise. Nothing here owns anything.
#pragma once

#include <cstdint>

struct CUstream_st;

namespace atom::backend::cuda {

using Stream = CUstream_st*;  // cudaStream_t
using Status = int;           // cudaError_t; 0: success

// The element of a weight or of a table.
enum class Element : uint8_t { kF32, kF16, kBF16, kInt8, kInt4, kE2M1 };

// How the step of an input's group follows from its values (docs/formats.md, section 2).
enum class Scaling : uint8_t { kInt8, kInt4, kInt4Signed, kE2M1, kMxfp4, kNvfp4 };

// Codes of a row end at a multiple of this many, with zeros: no loop has a ragged end, and every group of a
// four-bit format ends where a run of 16 codes ends.
inline constexpr int kCodeRun = 16;

// One segment of a linear's input. Offsets are bytes from the beginning of the row, multiples of 16.
struct InputSegment {
  int size = 0;   // channels; 0: absent
  int group = 0;  // values per scale; 0: floating point
  int groups = 0;
  int codes_at = 0;   // s8 [size, up to a multiple of kCodeRun], integer only
  int scales_at = 0;  // f32 [groups], of one code (FP4: half the scale), integer only
  int sum_at = 0;     // s32: the sum of the row's codes, kInt8 only
  int values_at = 0;  // f32 [size], floating point only
  Scaling scaling = Scaling::kInt8;
};

// Rows begin at the lines of the cache, so that the copy engine, which fetches 128 bytes of many rows, touches one line of
// each instead of two.
inline constexpr int kRowPitch = 128;  // bytes

// A linear's input: row after row, each with the codes or values of its segments and then its scales.
struct InputView {
  uint8_t* data = nullptr;
  int64_t row_bytes = 0;  // a multiple of kRowPitch
  int rows = 0;
  InputSegment at[2];
};

// One segment of a weight.
struct WeightSegment {
  int size = 0;   // inputs; 0: absent
  int group = 0;  // values per scale; 0: floating point
  int groups = 0;
  Element element = Element::kF32;
  int progressive = 0;                  // steps are [1, n], and multipliers exist
  int64_t row_bytes = 0;                // a multiple of 16
  const uint8_t* codes = nullptr;       // [n, row_bytes]: the checkpoint's row, then zeros
  const float* steps = nullptr;         // [groups, n]: the value of one code
  const int8_t* multipliers = nullptr;  // [groups, n], progressive only
};

struct WeightView {
  int n = 0;
  const float* bias = nullptr;  // [n], may be null
  WeightSegment at[2];
};

// y[i, :] = x[row_index[i], :] * w^T for the rows i of one expert, or for all rows.
struct LinearTask {
  InputView x;
  WeightView w;
  const int32_t* row_ends =
      nullptr;  // rows [row_ends[expert - 1], row_ends[expert]); null: [0, x.rows)
  const int32_t* row_index = nullptr;  // may be null: i
  int expert = 0;
  int add = 0;                // y += instead of y =
  float* y = nullptr;         // [rows, n]
  uint16_t* y_f16 = nullptr;  // instead of y, f16, saturated; not with add
};
Status launch_linear(const LinearTask& task, Stream stream);

// Record i of `to` becomes record row_index[i] of `from`, for i < *count, which is on the device and at most to.rows.
Status launch_gather(const InputView& from, const int32_t* row_index, const int32_t* count,
                     const InputView& to, Stream stream);

// Orders, transforms and quantizes rows.
struct QuantizeTask {
  const float* x = nullptr;        // [rows, k]
  const int32_t* order = nullptr;  // [k], may be null
  int hadamard = 0;                // of the first segment; 0: none
  float clip = 1;
  float* ordered = nullptr;  // [rows, k] scratch; null when there is neither order nor hadamard
  InputView y;
};
Status launch_quantize(const QuantizeTask& task, Stream stream);
Status launch_dequantize(const InputView& x, float* y, Stream stream);  // y = [rows, k]

// As Backend::count_saturated().
struct SaturationTask {
  InputView x;
  int8_t low[2] = {}, high[2] = {};  // the ends of the codes of each segment
  unsigned long long* count = nullptr;
};
Status launch_count_saturated(const SaturationTask& task, Stream stream);

struct EmbedTask {
  const int32_t* ids = nullptr;      // [rows]; ~j is sampled[j]
  const int32_t* sampled = nullptr;  // may be null; a row of an id outside [0, count) becomes NaN
  const void* table = nullptr;       // [count, width]
  Element element = Element::kF32;
  int rows = 0;
  int count = 0;
  int width = 0;
  float* y = nullptr;  // [rows, width]
};
Status launch_embed(const EmbedTask& task, Stream stream);

struct NormTask {
  const float* x = nullptr;     // [rows, k]
  const float* gain = nullptr;  // [k]
  float epsilon = 0;
  int rows = 0;
  int k = 0;
  float* y = nullptr;  // [rows, k]
};
Status launch_norm(const NormTask& task, Stream stream);

// Heads of Q and K, in place: block (row, head).
struct NormHeadsTask {
  float* qkv = nullptr;         // [rows, (heads + 2 kv_heads) * head_dim]
  uint16_t* qkv_f16 = nullptr;  // instead of qkv
  int rows = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  const float* q_gain = nullptr;  // [head_dim]
  const float* k_gain = nullptr;
  float epsilon = 0;
};
Status launch_norm_heads(const NormHeadsTask& task, Stream stream);

struct GateTask {
  const float* x = nullptr;         // [rows, 2 k], gate first
  const uint16_t* x_f16 = nullptr;  // instead of x
  float* y = nullptr;               // [rows, k]
  int rows = 0;
  int k = 0;
};
Status launch_gate(const GateTask& task, Stream stream);

struct CombineTask {
  const float* x = nullptr;        // [rows * top_k, n]
  const int32_t* slots = nullptr;  // [rows, top_k]
  const float* weights = nullptr;  // [rows, top_k]
  int rows = 0;
  int top_k = 0;
  int n = 0;
  float* y = nullptr;  // [rows, n], added to
};
Status launch_combine(const CombineTask& task, Stream stream);

// As RouteArgs.
struct RouteTask {
  const float* logits = nullptr;  // [rows, experts]
  int rows = 0;
  int experts = 0;
  int top_k = 0;
  int renormalize = 0;
  int32_t* chosen = nullptr;     // [rows, top_k] scratch: experts of each row, ascending
  int32_t* row_index = nullptr;  // [rows * top_k]
  int32_t* row_ends = nullptr;   // [experts]
  int32_t* slots = nullptr;      // [rows, top_k]
  float* weights = nullptr;      // [rows, top_k]
};
Status launch_route(const RouteTask& task, Stream stream);

// As SampleRule.
struct DrawRule {
  float temperature = 0;
  int top_k = 0;
  float min_p = 0;
  float top_p = 1;
  double uniform = 0;
};

struct SampleTask {
  const float* logits = nullptr;  // [rows, vocabulary]
  int rows = 0;
  int vocabulary = 0;
  // Pinned host memory, all [rows].
  const DrawRule* rules = nullptr;  // may be null: no ids
  int32_t* ids = nullptr;
  const int32_t* targets = nullptr;  // may be null: no scores
  double* log_probabilities = nullptr;
  int32_t* sampled = nullptr;  // [rows] the ids once more, on the device; may be null
};
Status launch_sample(const SampleTask& task, Stream stream);

// Where a row of a step stands in its sequence.
struct RowPlace {
  const int32_t* page_table = nullptr;  // the sequence's
  int32_t position = 0;
  int32_t first_row =
      0;  // of the sequence in this step, and its position: rows from there on are in
  int32_t first_position = 0;  // AttentionTask::fresh, earlier ones in the open page
  int32_t last_position = 0;
  int32_t open_page = 0;
};

// format::KvLayout in bytes. Side 0 is K, side 1 is V.
struct KvSide {
  int bits = 16;           // 32, 16: floats; 8, 4: codes with {lo, step}
  int64_t offset = 0;      // of the side's first head in a page
  int64_t head_bytes = 0;  // of one KV head of a page
  int64_t row_bytes = 0;   // codes of one token and head
};
struct KvView {
  uint8_t* pages = nullptr;
  int tokens = 64;
  int64_t page_bytes = 0;
  KvSide side[2];
};

struct AttentionTask {
  const float* qkv = nullptr;         // [rows, (heads + 2 kv_heads) * head_dim]
  const uint16_t* qkv_f16 = nullptr;  // instead of qkv
  int rows = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;                 // even
  const float* rope_cos = nullptr;  // [positions, head_dim / 2]
  const float* rope_sin = nullptr;
  int hadamard = 0;
  const float* key_offset = nullptr;  // [kv_heads, head_dim], may be null
  float kv_clip = 1;                  // of sides with 4 bits
  int window = 0;                     // positions that a query reads; 0: all up to its own
  const RowPlace* places = nullptr;   // [rows]
  KvView cache;
  int has_open_page = 0;
  KvView open;  // int8; open.pages + place.open_page * open.page_bytes
  // K and V of the step's rows in int8: [rows, 2, kv_heads, fresh_bytes]. Null in a decoding step on Hopper, whose
  // rows go to the open pages at once.
  uint8_t* fresh = nullptr;
  // The only row of a sequence goes to its open page at once, also beside others that go to `fresh`.
  int single_rows_apart = 0;
  int64_t fresh_bytes = 0;  // codes [head_dim], then {lo, step} as two f16, then what rounds up
  uint8_t* queries =
      nullptr;              // hopper::DecodeTask::queries, by launch_store_kv; null: not asked for
  int64_t query_bytes = 0;  // hopper::decode_query_bytes()
  float* y = nullptr;       // [rows, heads * head_dim]
};
Status launch_store_kv(const AttentionTask& task, Stream stream);
Status launch_attend(const AttentionTask& task,
                     Stream stream);  // a block takes attend_shared_bytes()
uint64_t attend_shared_bytes(const AttentionTask& task);
Status launch_keep_open_pages(const AttentionTask& task, Stream stream);

// Arrays that come from pinned host memory: `to` and `from` are multiples of 16, nothing overlaps.
struct CopyTask {
  static constexpr int kMost = 8;
  struct Piece {
    const void* from = nullptr;
    void* to = nullptr;
    int64_t bytes = 0;
  };
  Piece at[kMost];
  int count = 0;
};
Status launch_copies(const CopyTask& task, Stream stream);

// 0 when the device can run the kernels of this build.
Status probe_kernels();

}  // namespace atom::backend::cuda
