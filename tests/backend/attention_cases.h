// A KV-cache and steps over it for the tests of the attention operation, and attention from the
// stored bytes, written once more apart from the backends: outputs and a bound of the f32 error for
// each.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "backend/backends_under_test.h"
#include "base/random.h"
#include "format/hadamard.h"
#include "format/quantize.h"
#include "testing/random_data.h"

namespace atom::backend {

struct AttentionShape {
  int heads, kv_heads, head_dim;
  format::KvKind kind;
  int tokens = 16;      // per page
  int hadamard = 0;     // of Q and K after RoPE
  bool offset = false;  // a key_offset: 6 in every head's fourth channel, other values elsewhere
  bool open_page = false;
  float clip = 1.0f;  // of int4 sides
  int window = 0;

  format::KvLayout layout() const {
    return {.kind = kind,
            .kv_heads = kv_heads,
            .head_dim = head_dim,
            .tokens = tokens,
            .open_page = open_page};
  }
  int width() const { return (heads + 2 * kv_heads) * head_dim; }
  std::string label() const {
    return fmt::format(
        "heads {}/{}, head_dim {}, kv {}, {} tokens a page, hadamard {}, offset {}, open page {}, "
        "clip {}, window {}",
        heads, kv_heads, head_dim, format::name(kind), tokens, hadamard, offset, open_page, clip,
        window);
  }
};

// Part of one sequence in a step; its rows are positions [begin, end) of the sequence's own data.
struct Chunk {
  int sequence, begin, end;
};

// How the rows of a step reach the backend: in f32; in f16; or what f16 keeps of them, in f32.
enum class RowKind { kF32, kF16, kWidened };

// Sequences with all their rows, pages scattered over a pool that starts as ones, and RoPE tables.
class AttentionRun {
 public:
  static constexpr int kMaxPositions = 224;

  AttentionRun(Backend& backend, const AttentionShape& shape, int sequences, uint64_t seed)
      : backend_(backend),
        shape_(shape),
        random_(seed),
        pages_per_sequence_((kMaxPositions + shape.tokens - 1) / shape.tokens),
        pool_(backend, static_cast<size_t>((sequences * pages_per_sequence_ + 2) *
                                           shape.layout().page_bytes())),
        open_(backend, static_cast<size_t>(sequences + 1) *
                           static_cast<size_t>(shape.layout().of_open_page().page_bytes())),
        tables_(backend, atom::testing::permutation(random_, sequences * pages_per_sequence_ + 2)),
        turns_{table(0), table(1)},
        cos_(backend, turns_[0]),
        sin_(backend, turns_[1]),
        offset_(backend, offsets(shape)) {
    for (int s = 0; s < sequences; ++s) {
      qkv.push_back(atom::testing::normal_values(
          random_, static_cast<size_t>(kMaxPositions) * static_cast<size_t>(shape.width())));
      // K of real models has channels with an offset; it makes lo and step matter.
      for (int p = 0; p < kMaxPositions; ++p)
        for (int h = 0; h < shape.kv_heads; ++h) at(s, p, shape.heads + h)[3] += 6.0f;
    }
  }

  // One vector of a sequence's row: query heads, then K heads, then V heads.
  float* at(int sequence, int position, int head) {
    return qkv[static_cast<size_t>(sequence)].data() +
           static_cast<size_t>(position) * static_cast<size_t>(shape_.width()) +
           static_cast<size_t>(head) * static_cast<size_t>(shape_.head_dim);
  }

  // One step of several chunks; outputs as the consumer sees them, row by row.
  void step(const std::vector<Chunk>& chunks, const Input& y) {
    std::vector<float> rows;
    std::vector<SequenceStep> steps;
    int row = 0;
    for (const Chunk& c : chunks) {
      const float* begin = at(c.sequence, c.begin, 0);
      rows.insert(rows.end(), begin, begin + static_cast<size_t>(c.end - c.begin) * shape_.width());
      steps.push_back({.row_begin = row,
                       .row_end = row + c.end - c.begin,
                       .position = c.begin,
                       .page_table = tables_.as<int32_t>() + c.sequence * pages_per_sequence_,
                       .open_page = c.sequence});
      row += c.end - c.begin;
    }
    std::vector<uint16_t> halves;
    if (row_kind != RowKind::kF32)
      for (float& x : rows) {
        halves.push_back(format::f32_to_f16(x));
        x = format::f16_to_f32(halves.back());
      }
    const Guarded device(backend_, rows), device_f16(backend_, halves);
    const bool in_f16 = row_kind == RowKind::kF16;
    backend_.attention({.qkv = in_f16 ? nullptr : device.as<float>(),
                        .qkv_f16 = in_f16 ? device_f16.as<uint16_t>() : nullptr,
                        .rows = row,
                        .heads = shape_.heads,
                        .layout = shape_.layout(),
                        .pages = pool_.data(),
                        .rope_cos = cos_.as<float>(),
                        .rope_sin = sin_.as<float>(),
                        .hadamard = shape_.hadamard,
                        .key_offset = shape_.offset ? offset_.as<float>() : nullptr,
                        .kv_clip = shape_.clip,
                        .window = shape_.window,
                        .open_pages = shape_.open_page ? open_.data() : nullptr,
                        .sequences = steps,
                        .y = y.activation()});
    backend_.synchronize();
  }
  std::vector<float> step(const std::vector<Chunk>& chunks) {
    int rows = 0;
    for (const Chunk& c : chunks) rows += c.end - c.begin;
    const Input y(backend_, format::whole(format::kF32, shape_.heads * shape_.head_dim), rows);
    step(chunks, y);
    return y.dequantized();
  }

  std::vector<uint8_t> pool() const { return pool_.values<uint8_t>(); }
  std::vector<uint8_t> open_pages() const { return open_.values<uint8_t>(); }
  std::vector<int32_t> pages(int sequence) const {  // the sequence's table
    const std::vector<int32_t> all = tables_.values<int32_t>();
    return {all.begin() + sequence * pages_per_sequence_,
            all.begin() + (sequence + 1) * pages_per_sequence_};
  }

  struct Expected {
    std::vector<float> y;
    std::vector<double> bounds;
    std::vector<double> half_bounds;     // with queries and weights rounded to f16
    std::vector<double> rounded_bounds;  // with K and V rounded to f16 too
  };
  Expected expected(const std::vector<Chunk>& chunks);

  std::vector<std::vector<float>> qkv;  // [sequences][positions, width]
  RowKind row_kind = RowKind::kF32;

 private:
  // Stored vector of a position, and the magnitudes that f32 arithmetic may add: |lo| + step *
  // code.
  struct Stored {
    std::vector<float> value;
    std::vector<double> magnitude;
  };
  Stored load(const std::vector<uint8_t>& pool, const std::vector<int32_t>& tables, int side,
              const Chunk& c, int head, int position) const;
  // The vector of the step's own data, rotated and moved as K is, rounded to int8 and back.
  Stored in_int8(int side, const Chunk& c, int head, int position);

  static std::vector<float> offsets(const AttentionShape& shape) {
    std::vector<float> values;
    for (int i = 0; i < shape.kv_heads * shape.head_dim; ++i)
      values.push_back(i % shape.head_dim == 3 ? 6.0f : 0.37f * static_cast<float>(i % 5 - 2));
    return values;
  }
  std::vector<float> table(int which) const {
    std::vector<float> values;
    for (int p = 0; p < kMaxPositions; ++p)
      for (int i = 0; i < shape_.head_dim / 2; ++i) {
        const double angle = p * std::pow(10000.0, -2.0 * i / shape_.head_dim);
        values.push_back(static_cast<float>(which == 0 ? std::cos(angle) : std::sin(angle)));
      }
    return values;
  }

  Backend& backend_;
  AttentionShape shape_;
  Random random_;
  int pages_per_sequence_;
  Guarded pool_, open_, tables_;
  std::vector<float> turns_[2];  // cosines and sines
  Guarded cos_, sin_, offset_;
};

inline AttentionRun::Stored AttentionRun::load(const std::vector<uint8_t>& pool,
                                               const std::vector<int32_t>& tables, int side,
                                               const Chunk& c, int head, int position) const {
  const format::KvLayout layout = shape_.layout();
  const int page =
      tables[static_cast<size_t>(c.sequence * pages_per_sequence_ + position / layout.tokens)];
  const uint8_t* base = pool.data() + page * layout.page_bytes();
  const uint8_t* row = base + layout.row_offset(side, head, position % layout.tokens);
  Stored s;
  for (int i = 0; i < layout.head_dim; ++i) {
    if (layout.param_bytes(side) == 0) {
      float value = 0;
      uint16_t half = 0;
      std::memcpy(&value, row + (layout.bits(side) == 32 ? 4 * i : 0), 4);
      std::memcpy(&half, row + 2 * i, 2);
      s.value.push_back(layout.bits(side) == 32 ? value : format::f16_to_f32(half));
      s.magnitude.push_back(std::abs(double{s.value.back()}));
    } else {
      uint16_t params[2];
      std::memcpy(params, base + layout.param_offset(side, head, position % layout.tokens), 4);
      const int code = layout.bits(side) == 8 ? row[i] : (row[i / 2] >> (i % 2 * 4)) & 15;
      const float lo = format::f16_to_f32(params[0]), step = format::f16_to_f32(params[1]);
      s.value.push_back(lo + step * static_cast<float>(code));
      s.magnitude.push_back(std::abs(double{lo}) + double{step} * code);
    }
  }
  return s;
}

inline AttentionRun::Stored AttentionRun::in_int8(int side, const Chunk& c, int head,
                                                  int position) {
  const int d = shape_.head_dim, half = d / 2;
  const float* x = at(c.sequence, position, shape_.heads + side * shape_.kv_heads + head);
  std::vector<float> v(x, x + d);
  if (side == 0) {
    for (int i = 0; i < half; ++i) {
      const float co = turns_[0][position * half + i], si = turns_[1][position * half + i];
      v[i] = x[i] * co - x[i + half] * si;
      v[i + half] = x[i + half] * co + x[i] * si;
    }
    if (shape_.hadamard != 0) format::block_hadamard(v, shape_.hadamard);
    for (int i = 0; shape_.offset && i < d; ++i) v[i] -= offsets(shape_)[head * d + i];
  }
  const format::KvParams params = format::kv_params(v, 255);
  const float lo = format::f16_to_f32(params.lo), step = format::f16_to_f32(params.step);
  Stored s;
  for (const float value : v) {
    const int code = format::kv_code(value, lo, 1.0f / step, 255);
    s.value.push_back(lo + step * static_cast<float>(code));
    s.magnitude.push_back(std::abs(double{lo}) + double{step} * code);
  }
  return s;
}

// Error bound, with u = 2^-24, d = head_dim, n = context:
// * a score is a sum of d terms in f32, in any order, with lo and step factored out or not: at most
//   (d + 4) u sum |q| (|lo| + step code) / sqrt(d) = E. Subtracting the maximum and the argument of
//   exp add 4 u max|score|. A weight exp(s - max) is then off by a factor within 1 +- (2 (E + 4 u
//   max|score|) + 8 u): twice, as the maximum is off too; 8 u for exp itself.
// * the sum of n weights, its division, rescaling where the maximum grows, and the sum of n values:
// 2 n + 8
//   roundings. All of them are relative to sum p (|lo| + step code).
// * the mass has the same relative error as the weights: twice in all.
inline AttentionRun::Expected AttentionRun::expected(const std::vector<Chunk>& chunks) {
  const double u = std::ldexp(1.0, -24);
  const std::vector<uint8_t> bytes = pool();
  const std::vector<int32_t> tables = tables_.values<int32_t>();
  const std::vector<float> cos = cos_.values<float>(), sin = sin_.values<float>();
  const int d = shape_.head_dim, half = d / 2, group = shape_.heads / shape_.kv_heads;
  Expected out;
  for (const Chunk& c : chunks) {
    std::vector<std::vector<Stored>> k(shape_.kv_heads), v(shape_.kv_heads);
    std::vector<std::vector<Stored>> own_k(shape_.kv_heads), own_v(shape_.kv_heads);
    for (int head = 0; head < shape_.kv_heads; ++head)
      for (int p = 0; p < c.end; ++p) {
        k[head].push_back(load(bytes, tables, 0, c, head, p));
        v[head].push_back(load(bytes, tables, 1, c, head, p));
        if (!shape_.open_page) continue;
        own_k[head].push_back(in_int8(0, c, head, p));
        own_v[head].push_back(in_int8(1, c, head, p));
      }
    for (int position = c.begin; position < c.end; ++position)
      for (int head = 0; head < shape_.heads; ++head) {
        const float* x = at(c.sequence, position, head);
        std::vector<float> q(static_cast<size_t>(d));
        for (int i = 0; i < half; ++i) {
          const float co = cos[position * half + i], si = sin[position * half + i];
          q[i] = x[i] * co - x[i + half] * si;
          q[i + half] = x[i + half] * co + x[i] * si;
        }
        if (shape_.hadamard != 0) format::block_hadamard(q, shape_.hadamard);
        const int page = shape_.open_page ? position - position % shape_.tokens : position + 1;
        const auto key = [&](int p) -> const Stored& {
          return (p < page ? k : own_k)[head / group][p];
        };
        const auto value = [&](int p) -> const Stored& {
          return (p < page ? v : own_v)[head / group][p];
        };
        const int oldest = shape_.window > 0 ? std::max(0, position + 1 - shape_.window) : 0;
        std::vector<double> scores;
        double top = -INFINITY, largest = 0, score_error = 0, mass = 0;
        for (int p = oldest; p <= position; ++p) {
          double score = 0, magnitude = 0;
          for (int i = 0; i < d; ++i) {
            score += double{q[i]} * double{key(p).value[i]};
            magnitude += std::abs(double{q[i]}) * key(p).magnitude[i];
          }
          scores.push_back(score / std::sqrt(d));
          top = std::max(top, scores.back());
          largest = std::max(largest, std::abs(scores.back()));
          score_error = std::max(score_error, (d + 4) * u * magnitude / std::sqrt(d));
        }
        for (double& s : scores) mass += s = std::exp(s - top);
        const double relative =
            2 * (2 * (score_error + 4 * u * largest) + 8 * u) + (2 * position + 10) * u;
        // (d + 4) * u became 2^-11 in a score. Weights are rounded once, the smallest ones to 2^-14 of the largest.
        const double half_relative = 2 * score_error / ((d + 4) * u) * 0x1p-11 + 0x1p-10;
        // K adds as much to a score as the query does, V is rounded once.
        const double rounded_relative = 2 * half_relative;
        for (int i = 0; i < d; ++i) {
          double sum = 0, magnitude = 0;
          for (int p = oldest; p <= position; ++p) {
            const double weight = scores[static_cast<size_t>(p - oldest)] / mass;
            sum += weight * double{value(p).value[i]};
            magnitude += weight * value(p).magnitude[i];
          }
          out.y.push_back(static_cast<float>(sum));
          out.bounds.push_back(relative * magnitude);
          out.half_bounds.push_back((relative + half_relative) * magnitude);
          out.rounded_bounds.push_back((relative + rounded_relative) * magnitude);
        }
      }
  }
  return out;
}

}  // namespace atom::backend
