// The decision how to quantize: formats and solver settings, as a person can read and edit them
// (JSON, docs/formats.md). A preset is a recipe; --recipe FILE overrides single fields of the
// preset.
//
//   Recipe recipe = preset("w4a4", Method::kBest);
//   apply_json(recipe, parse_json(text, {.source = path}), path);   // unknown fields are refused
//   const Json normalized = to_json(recipe);                        // goes into the checkpoint
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "format/format.h"
#include "model/config.h"
#include "model/scheme.h"

namespace atom::quantizer {

// What a preset starts from: the published recipe (Atom, Zhao et al., MLSys 2024), or what docs/accuracy.md shows to
// be best.
enum class Method { kPublished, kBest };
enum class Rounding { kNearest, kGptq };
enum class Order { kNone, kEnergy };

// Function-preserving changes before rounding (transform.h).
struct Transforms {
  bool equalize = false;  // norm gains folded; v/o, q/k pairs, up/down balanced
  bool heads = false;     // Hadamard: V and O folded per head, Q and K at run time
  bool residual =
      false;  // residual stream in its PCA basis, folded; kept channels are its leading ones
  bool down = false;    // block Hadamard of down_proj's input at run time
  bool center = false;  // K without its mean, at run time; where the KV-cache is quantized
  static constexpr int kBlock = 128;  // largest Hadamard block

  bool any() const { return equalize || heads || residual || down || center; }
  bool operator==(const Transforms&) const = default;
};

// Kept channels of the inputs of a layer: q, k and v; o_proj; gate and up; down_proj. A plain number speaks of all four.
struct KeptCounts {
  int qkv = 0, out = 0, ffn = 0, down = 0;

  // NOLINTNEXTLINE(google-explicit-constructor): a number is the same for all four
  constexpr KeptCounts(int all) : qkv(all), out(all), ffn(all), down(all) {}
  constexpr KeptCounts(int qkv, int out, int ffn, int down)
      : qkv(qkv), out(out), ffn(ffn), down(down) {}
  constexpr bool equal() const { return *this == KeptCounts(qkv); }
  constexpr bool operator==(const KeptCounts&) const = default;
};

// What a search gave one layer.
struct LayerChoice {
  KeptCounts kept = 0;
  bool heads = true,
       down = true;  // of the recipe's transforms: false where the layer is better without
  std::vector<std::string>
      by_error;  // sites whose kept channels are those that cost most, not the loudest
};

struct Recipe {
  // w16a16 | w8a8 | w4a16 | w4a8 | w4a4: bits of weights and inputs; fp4 | mxfp4 | nvfp4: both
  std::string preset = "w4a4";
  Method method = Method::kPublished;
  Rounding rounding = Rounding::kGptq;
  bool refine = false;  // GPTQ's codes and scales, by coordinate descent (refine.h)
  int group =
      128;  // 32 | 64 | 128, or 0 for "row" (w4a4, w4a16): values that share a scale; not of mxfp4, nvfp4
  float clip_weights = 0.85f;     // (0, 1], of four-bit groups; 0: searched, group by group
  float clip_activations = 0.9f;  // (0, 1], of four-bit groups; 0: searched, site by site
  bool signed_scales = false;     // of int4 groups: the scale's sign is free (docs/formats.md)
  KeptCounts kept =
      128;  // channels in kept_format, multiples of 16; not with w16a16, w8a8 and w4a16
  bool search_kept = false;  // of every layer by measured error, at the cost of `kept`
  format::Format kept_format =
      format::kInt8;  // int8 or f16 (f16: weight as in the source, input unquantized)
  Order order = Order::kEnergy;
  Transforms transform;
  std::vector<format::KvKind> kv = {format::KvKind::kInt4};  // one for all layers, or one per layer
  float clip_kv = 1.0f;  // (0, 1], of int4 sides of the KV-cache
  bool open_page =
      false;  // of a KV-cache with an int4 side: the page that is being filled has 8 bits
  format::Format head =
      format::kF16;  // f16: as in the source; int8; int4.g128 (inputs stay unquantized)
};

// Error: unknown name.
Recipe preset(std::string_view name, Method method = Method::kPublished);
std::vector<std::string> preset_names();
std::vector<std::string> method_names();

// What a preset has.
bool is_fp4(const Recipe& recipe);
bool has_fixed_groups(const Recipe& recipe);  // FP4 whose groups and scales are those of a standard
bool has_int4_weights(const Recipe& recipe);
bool has_four_bit_weights(const Recipe& recipe);
bool has_segments(const Recipe& recipe);        // may keep channels, and order them
bool has_clipped_inputs(const Recipe& recipe);  // whose clip may be other than 1
bool quantizes_kv(const Recipe& recipe);        // any layer, either side
bool has_int4_kv(const Recipe& recipe);         // any layer, either side

// Method best: what is not in `given` follows from the preset and from what is (docs/formats.md, "Recipe"). With the
// published method nothing happens.
void fit_best(Recipe& recipe, const Json& given);
// Error naming `source`, the field and its value: fields that contradict the preset or each other.
void refuse_contradictions(const Recipe& recipe, std::string_view source);

// Overrides fields. With a "preset" or a "method" among them it starts from that preset and method, and method best
// fits the fields that are not named (transform, clips) to those that are. Error naming source, field and value: unknown field, wrong type, value out of
// range.
void apply_json(Recipe& recipe, const Json& json, std::string_view source);
Json to_json(const Recipe& recipe);
Json to_json(
    const KeptCounts& kept);  // a number, or an object with the numbers of qkv, o, gate_up and down
Json to_json(const LayerChoice& choice, const Recipe& recipe);
Json to_json(std::span<const LayerChoice> chosen, const Recipe& recipe);  // a list

// Leaves out what compressed-tensors has no words for, so that other programs read the checkpoint: the transform of
// down_proj's inputs. What else stands in the way is an Error that says what.
void make_compatible(Recipe& recipe);
// w8a8 by method best with the transform of down_proj's inputs, which it has by default only where something else, too,
// keeps other programs from reading it: less error, for Atom alone. Error: another preset or method.
void make_own_format(Recipe& recipe);

// The largest kept count that linears of k inputs can have: a multiple of 16 that leaves the normal segment at least one
// channel, or the whole input when it is narrower than that.
int most_kept(int k);

// The formats that the recipe gives the model. Kept channels are clamped per linear to most_kept(): each clamp adds a
// sentence to `notices`. `chosen`, if not empty, has every layer. Error: kv list of the wrong length.
model::Scheme to_scheme(const Recipe& recipe, const model::ModelConfig& config,
                        std::vector<std::string>& notices,
                        std::span<const LayerChoice> chosen = {});

}  // namespace atom::quantizer
