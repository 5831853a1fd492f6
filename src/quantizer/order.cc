#include "quantizer/order.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "format/hadamard.h"

namespace atom::quantizer {
namespace {

using model::LinearTensors;

size_t value_bytes(format::Format format) { return static_cast<size_t>(format::bits(format)) / 8; }

void check_plain(const LinearTensors& linear) {
  check(linear.segments.at[1].size == 0 && !format::is_integer(linear.segments.at[0].format),
        "only a floating-point linear of one segment is permuted or cut");
}

// [n, k] in one part -> [n, first] and [n, k - first] in two.
void cut(LinearTensors& linear, int first) {
  check_plain(linear);
  const format::Format format = linear.segments.at[0].format;
  const int k = linear.k();
  if (first == k) return;
  const size_t row = value_bytes(format) * static_cast<size_t>(k);
  const size_t head = value_bytes(format) * static_cast<size_t>(first);
  const std::vector<std::byte> all = std::move(linear.part[0].codes);
  linear.part[0].codes.resize(head * static_cast<size_t>(linear.n));
  linear.part[1].codes.resize((row - head) * static_cast<size_t>(linear.n));
  for (size_t r = 0; r < static_cast<size_t>(linear.n); ++r) {
    if (head > 0) std::memcpy(linear.part[0].codes.data() + r * head, all.data() + r * row, head);
    std::memcpy(linear.part[1].codes.data() + r * (row - head), all.data() + r * row + head,
                row - head);
  }
  linear.segments = {{format::Segment{format, first}, format::Segment{format, k - first}}};
}

// The first `size` columns in the basis that the input has after its transform: x w^T = (x H) (w H)^T.
void hadamard_columns(LinearTensors& linear, int size, int block) {
  check_plain(linear);
  const int k = linear.k();
  std::vector<float> values = model::to_f32(linear);
  for (int64_t r = 0; r < linear.n; ++r)
    format::block_hadamard({values.data() + r * k, static_cast<size_t>(size)}, block);
  LinearTensors turned = model::from_f32(linear.name, linear.n, k, format::kF32, values.data());
  turned.bias = std::move(linear.bias);
  linear = std::move(turned);
}

void set_input(const model::Scheme& scheme, model::Site& site,
               std::initializer_list<LinearTensors*> linears) {
  const LinearTensors& first = **linears.begin();
  const model::LinearScheme* linear_scheme = scheme.find(first.name);
  if (linear_scheme == nullptr) return;
  site.segments = input_segments(*linear_scheme, first.k());
  site.clip = linear_scheme->clip;
  site.signed_scales = linear_scheme->signed_scales;
  site.hadamard = linear_scheme->hadamard;
  for (LinearTensors* linear : linears) {
    if (site.hadamard != 0) hadamard_columns(*linear, site.segments.at[0].size, site.hadamard);
    cut(*linear, site.segments.at[0].size);
  }
}

}  // namespace

Permutation energy_order(std::span<const double> energy) {
  Permutation order(energy.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return energy[static_cast<size_t>(a)] < energy[static_cast<size_t>(b)];
  });
  if (std::is_sorted(order.begin(), order.end())) order.clear();
  return order;
}

void permute_columns(LinearTensors& linear, const Permutation& order) {
  if (order.empty()) return;
  check_plain(linear);
  check(order.size() == static_cast<size_t>(linear.k()), "an order names every column");
  const size_t size = value_bytes(linear.segments.at[0].format);
  const size_t row = size * order.size();
  std::vector<std::byte> old(row);
  for (size_t r = 0; r < static_cast<size_t>(linear.n); ++r) {
    std::byte* values = linear.part[0].codes.data() + r * row;
    std::memcpy(old.data(), values, row);
    for (size_t i = 0; i < order.size(); ++i)
      std::memcpy(values + i * size, old.data() + static_cast<size_t>(order[i]) * size, size);
  }
}

void permute_rows(LinearTensors& linear, const Permutation& order) {
  if (order.empty()) return;
  check_plain(linear);
  check(order.size() == static_cast<size_t>(linear.n), "an order names every row");
  const size_t row = value_bytes(linear.segments.at[0].format) * static_cast<size_t>(linear.k());
  const std::vector<std::byte> old = linear.part[0].codes;
  const std::vector<float> old_bias = linear.bias;
  for (size_t i = 0; i < order.size(); ++i) {
    const auto from = static_cast<size_t>(order[i]);
    std::memcpy(linear.part[0].codes.data() + i * row, old.data() + from * row, row);
    if (!old_bias.empty()) linear.bias[i] = old_bias[from];
  }
}

void apply_orders(const LayerOrders& orders, model::LayerTensors& layer) {
  for (LinearTensors* linear : {&layer.q, &layer.k, &layer.v}) permute_columns(*linear, orders.qkv);
  permute_columns(layer.out, orders.out);
  for (size_t e = 0; e < layer.experts.size(); ++e) {
    model::ExpertTensors& expert = layer.experts[e];
    permute_columns(expert.gate, orders.ffn);
    permute_columns(expert.up, orders.ffn);
    if (orders.down.empty()) continue;
    permute_rows(expert.gate, orders.down[e]);
    permute_rows(expert.up, orders.down[e]);
    permute_columns(expert.down, orders.down[e]);
  }
  layer.qkv_input.order = orders.qkv;
  layer.out_input.order = orders.out;
  layer.ffn_input.order = orders.ffn;
}

void apply_input_formats(const model::Scheme& scheme, model::LayerTensors& layer) {
  set_input(scheme, layer.qkv_input, {&layer.q, &layer.k, &layer.v});
  set_input(scheme, layer.out_input, {&layer.out});
  for (model::ExpertTensors& expert : layer.experts) {
    set_input(scheme, layer.ffn_input, {&expert.gate, &expert.up});
    set_input(scheme, layer.down_input, {&expert.down});
  }
}

void apply_cache_format(const model::Scheme& scheme, int index, model::LayerTensors& layer) {
  layer.kv = scheme.kv[static_cast<size_t>(index)];
  layer.qk_hadamard = scheme.qk_hadamard;
  layer.kv_clip = scheme.kv_clip;
  layer.open_page = scheme.open_page;
}

}  // namespace atom::quantizer
