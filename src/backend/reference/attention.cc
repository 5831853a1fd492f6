// Attention: rotate, store K and V in the cache's format, attend to them as stored.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <vector>

#include "backend/reference/activation.h"
#include "backend/reference/reference_backend.h"
#include "base/error.h"
#include "format/hadamard.h"
#include "format/quantize.h"

namespace atom::backend {
namespace {

using format::KvLayout;

enum Side { kKey = 0, kValue = 1 };

// The pages of one sequence.
class Cache {
 public:
  Cache(const AttentionArgs& args, const SequenceStep& sequence)
      : layout_(args.layout),
        clip_(args.kv_clip),
        pages_(static_cast<uint8_t*>(args.pages)),
        table_(sequence.page_table) {}

  // The sequence's open page, at the positions of any page.
  static Cache open_page(const AttentionArgs& args, const SequenceStep& sequence) {
    Cache cache(args, sequence);
    cache.layout_ = args.layout.of_open_page();
    cache.pages_ =
        static_cast<uint8_t*>(args.open_pages) + sequence.open_page * cache.layout_.page_bytes();
    cache.table_ = nullptr;
    return cache;
  }

  // Writes x [head_dim] as the vector of one position and KV head.
  void store(Side side, int head, int position, std::span<const float> x) const {
    const Place place = find(side, head, position);
    format::visit(format::kv_side(layout_.kind, side), [&](auto kind) {
      using Kv = decltype(kind);
      if constexpr (Kv::kInteger) {
        const format::KvParams params =
            format::kv_params(x, Kv::kHigh, Kv::kBits == 4 ? clip_ : 1.0f);
        const float lo = format::f16_to_f32(params.lo);
        const float inv_step = 1.0f / format::f16_to_f32(params.step);
        std::memcpy(place.params, &params.lo, 2);
        std::memcpy(place.params + 2, &params.step, 2);
        std::memset(place.row, 0, static_cast<size_t>(layout_.row_bytes(side)));
        for (size_t i = 0; i < x.size(); ++i) {
          const auto code = static_cast<uint8_t>(format::kv_code(x[i], lo, inv_step, Kv::kHigh));
          if constexpr (Kv::kBits == 8)
            place.row[i] = code;
          else
            place.row[i / 2] = static_cast<uint8_t>(place.row[i / 2] | (code << (4 * (i % 2))));
        }
      } else {
        for (size_t i = 0; i < x.size(); ++i) {
          const uint16_t half = format::f32_to_f16(x[i]);
          if constexpr (Kv::kBits == 16)
            std::memcpy(place.row + 2 * i, &half, 2);
          else
            std::memcpy(place.row + 4 * i, &x[i], 4);
        }
      }
    });
  }

  // The vector as stored: lo + step * code in f32, or the stored float.
  std::vector<float> load(Side side, int head, int position) const {
    const Place place = find(side, head, position);
    std::vector<float> x(static_cast<size_t>(layout_.head_dim));
    format::visit(format::kv_side(layout_.kind, side), [&](auto kind) {
      using Kv = decltype(kind);
      if constexpr (Kv::kInteger) {
        format::KvParams params;
        std::memcpy(&params.lo, place.params, 2);
        std::memcpy(&params.step, place.params + 2, 2);
        const float lo = format::f16_to_f32(params.lo), step = format::f16_to_f32(params.step);
        for (size_t i = 0; i < x.size(); ++i) {
          const int code = Kv::kBits == 8 ? place.row[i] : (place.row[i / 2] >> (4 * (i % 2))) & 15;
          x[i] = lo + step * static_cast<float>(code);
        }
      } else if constexpr (Kv::kBits == 16) {
        for (size_t i = 0; i < x.size(); ++i) {
          uint16_t half;
          std::memcpy(&half, place.row + 2 * i, 2);
          x[i] = format::f16_to_f32(half);
        }
      } else {
        for (size_t i = 0; i < x.size(); ++i) {
          float value;
          std::memcpy(&value, place.row + 4 * i, 4);
          x[i] = value;
        }
      }
    });
    return x;
  }

 private:
  struct Place {
    uint8_t* row;
    uint8_t* params;
  };
  Place find(Side side, int head, int position) const {
    const int32_t index = table_ == nullptr ? 0 : table_[position / layout_.tokens];
    uint8_t* page = pages_ + index * layout_.page_bytes();
    const int token = position % layout_.tokens;
    return {page + layout_.row_offset(side, head, token),
            page + layout_.param_offset(side, head, token)};
  }

  KvLayout layout_;
  float clip_;  // of an int4 side
  uint8_t* pages_;
  const int32_t* table_;
};

// Elements i and i + d/2 turn by the angle of the position; every product and sum is rounded.
std::vector<float> rotate(std::span<const float> x, const AttentionArgs& args, int position) {
  const size_t half = x.size() / 2;
  const float* cos = args.rope_cos + static_cast<size_t>(position) * half;
  const float* sin = args.rope_sin + static_cast<size_t>(position) * half;
  std::vector<float> out(x.size());
  for (size_t i = 0; i < half; ++i) {
    out[i] = x[i] * cos[i] - x[i + half] * sin[i];
    out[i + half] = x[i + half] * cos[i] + x[i] * sin[i];
  }
  if (args.hadamard != 0) format::block_hadamard(out, args.hadamard);
  return out;
}

// Softmax over scores, then the weighted sum of values. keys and values: [context][head_dim].
std::vector<float> attend(std::span<const float> q, std::span<const std::vector<float>> keys,
                          std::span<const std::vector<float>> values) {
  std::vector<double> weights;
  double largest = -std::numeric_limits<double>::infinity();
  for (const std::vector<float>& k : keys) {
    double score = 0;
    for (size_t i = 0; i < q.size(); ++i) score += double{q[i]} * double{k[i]};
    weights.push_back(score / std::sqrt(static_cast<double>(q.size())));
    largest = std::max(largest, weights.back());
  }
  double mass = 0;
  for (double& w : weights) {
    w = std::exp(w - largest);  // a NaN score makes the mass, and with it every output, NaN
    mass += w;
  }
  std::vector<double> sum(q.size());
  for (size_t position = 0; position < values.size(); ++position)
    for (size_t i = 0; i < sum.size(); ++i)
      sum[i] += weights[position] / mass * double{values[position][i]};
  return {sum.begin(), sum.end()};
}

}  // namespace

void ReferenceBackend::attention(const AttentionArgs& args) {
  check(args.qkv_f16 == nullptr, "reference takes rows in f32");
  const KvLayout& layout = args.layout;
  const int d = layout.head_dim;
  check(d % 2 == 0 && args.heads % layout.kv_heads == 0, "attention: heads or head_dim");
  const size_t row_size = static_cast<size_t>(args.heads + 2 * layout.kv_heads) * d;
  const auto head_of = [&](int row, int head) {
    return std::span(args.qkv + row * row_size + static_cast<size_t>(head) * d, d);
  };

  const auto key_of = [&](int row, int head, int position) {
    std::vector<float> key = rotate(head_of(row, args.heads + head), args, position);
    if (args.key_offset != nullptr)
      for (int i = 0; i < d; ++i) key[i] -= args.key_offset[head * d + i];
    return key;
  };
  const auto store = [&](const Cache& cache, int row, int position) {
    for (int head = 0; head < layout.kv_heads; ++head) {
      cache.store(kKey, head, position, key_of(row, head, position));
      cache.store(kValue, head, position, head_of(row, args.heads + layout.kv_heads + head));
    }
  };
  // All of a step is stored before any of it is attended to; open pages follow the rows.
  for (const SequenceStep& sequence : args.sequences)
    for (int row = sequence.row_begin; row < sequence.row_end; ++row)
      store(Cache(args, sequence), row, sequence.position + row - sequence.row_begin);

  const int group = args.heads / layout.kv_heads;
  for (const SequenceStep& sequence : args.sequences) {
    const Cache cache(args, sequence);
    const int end = sequence.position + sequence.row_end - sequence.row_begin;
    std::vector<std::vector<float>> keys, values;  // [KV head * end + position]
    for (int head = 0; head < layout.kv_heads; ++head)
      for (int position = 0; position < end; ++position) {
        keys.push_back(cache.load(kKey, head, position));
        values.push_back(cache.load(kValue, head, position));
      }
    for (int position = sequence.position; position < end; ++position) {
      const int row = sequence.row_begin + position - sequence.position;
      const int oldest = args.window > 0 ? std::max(0, position + 1 - args.window) : 0;
      const int own = layout.open_page ? position - position % layout.tokens : position + 1;
      if (layout.open_page) store(Cache::open_page(args, sequence), row, position);
      std::vector<float> out(static_cast<size_t>(args.heads) * d);
      for (int head = 0; head < args.heads; ++head) {
        const int kv_head = head / group;
        std::vector<std::vector<float>> k, v;
        for (int p = oldest; p <= position; ++p) {
          const size_t at = static_cast<size_t>(kv_head) * end + p;
          if (p < own) {
            k.push_back(keys[at]);
            v.push_back(values[at]);
          } else {
            const Cache open = Cache::open_page(args, sequence);
            k.push_back(open.load(kKey, kv_head, p));
            v.push_back(open.load(kValue, kv_head, p));
          }
        }
        const std::vector<float> o = attend(rotate(head_of(row, head), args, position), k, v);
        std::copy(o.begin(), o.end(), out.begin() + static_cast<size_t>(head) * d);
      }
      quantize_row(out, args.y, row);
    }
  }
}

}  // namespace atom::backend
