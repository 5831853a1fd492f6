// One transformer layer on the host, in the checkpoint's canonical bits: what is read from a
// checkpoint, what the quantizer transforms and writes, and what bind_layer() (weights.h) packs for a
// backend.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "backend/operations.h"
#include "format/format.h"
#include "format/linear_format.h"

namespace atom::model {

// One weight matrix [n, k]. Column i multiplies position i of the site's ordered input.
struct LinearTensors {
  std::string name;  // module, "model.layers.0.self_attn.q_proj"
  int n = 0;
  format::Segments segments;
  struct Part {
    std::vector<std::byte> codes;  // [n, row_bytes(format, size)]
    std::vector<std::byte>
        scales;  // [n, weight_scales] of format::weight_scale_bytes, empty for floating point
    std::vector<int8_t> multipliers;  // [n, groups] of progressive int4, else empty
    std::vector<float> global_scale;  // [1] of nvfp4, else empty

    int64_t bytes() const;  // as stored
  };
  Part part[2];
  std::vector<float> bias;  // [n] or empty

  int k() const { return segments.k(); }
  int64_t bytes() const;  // codes + scales + bias as stored
};

// The shared input of one or several linears.
struct Site {
  std::string name;            // "model.layers.0.self_attn.qkv_input"
  format::Segments segments;   // formats of the activation
  float clip = 1.0f;           // of int4 and e2m1 segments
  bool signed_scales = false;  // of int4 segments
  std::vector<int32_t> order;  // [k], or empty: identity, or folded into the producer's rows
  int hadamard = 0;            // block length of the transform at run time; 0: none
};

struct ExpertTensors {
  LinearTensors gate, up, down;
};

struct LayerTensors {
  std::vector<float> attention_norm, ffn_norm;  // [hidden]
  std::vector<float> q_norm, k_norm;            // [head_dim], of families with qk_norm, else empty
  Site qkv_input, out_input, ffn_input, down_input;
  LinearTensors q, k, v, out;
  LinearTensors router;                // [experts, hidden] 16-bit; n = 0: dense
  std::vector<ExpertTensors> experts;  // one for a dense layer
  format::KvKind kv = format::KvKind::kF32;
  int qk_hadamard = 0;            // block length of the transform of Q and K at run time; 0: none
  int window = 0;                 // positions that a query reads; 0: all up to its own
  float kv_clip = 1.0f;           // of int4 sides of the cache (backend::AttentionArgs)
  bool open_page = false;         // of a cache with an int4 side (format::KvLayout)
  std::vector<float> key_offset;  // [kv_heads, head_dim] (backend::AttentionArgs), or empty
};

// Pointers of `linear` for Backend::pack; valid while `linear` lives.
backend::LinearWeight view(const LinearTensors& linear);

// Values of a linear as f32 [n, k], dequantized, columns as stored.
std::vector<float> to_f32(const LinearTensors& linear);

// A floating-point linear from f32 values; `format` must be f32, f16 or bf16.
LinearTensors from_f32(std::string name, int n, int k, format::Format format, const float* values);

}  // namespace atom::model
