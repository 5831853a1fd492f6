#include "quantizer/order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "backend/open.h"
#include "base/random.h"
#include "checkpoint/model_files.h"
#include "kv/pool.h"
#include "model/forward.h"
#include "model/weights.h"
#include "quantizer/random_checkpoint.h"
#include "testing/temp_folder.h"

namespace atom::quantizer {
namespace {

using atom::testing::RandomModel;
using atom::testing::TempFolder;
using atom::testing::write_random_checkpoint;

Permutation random_order(int k, uint64_t seed) {
  Permutation order(static_cast<size_t>(k));
  std::iota(order.begin(), order.end(), 0);
  Random random(seed);
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
  return order;
}

TEST(EnergyOrder, AscendingTiesByChannelIdentityEmpty) {
  EXPECT_EQ(energy_order(std::vector<double>{3, 1, 2, 1}), (Permutation{1, 3, 2, 0}));
  EXPECT_TRUE(energy_order(std::vector<double>{0, 0, 1, 5}).empty());
  EXPECT_TRUE(energy_order({}).empty());
}

TEST(Permute, ColumnsAndRowsWithBias) {
  const std::vector<float> values = {0, 1, 2, 10, 11, 12};
  model::LinearTensors linear = model::from_f32("w", 2, 3, format::kBF16, values.data());
  linear.bias = {5, 6};
  permute_columns(linear, {2, 0, 1});
  EXPECT_EQ(model::to_f32(linear), (std::vector<float>{2, 0, 1, 12, 10, 11}));
  permute_rows(linear, {1, 0});
  EXPECT_EQ(model::to_f32(linear), (std::vector<float>{12, 10, 11, 2, 0, 1}));
  EXPECT_EQ(linear.bias, (std::vector<float>{6, 5}));
}

// Hidden states after layer 0 on the reference backend, 12 tokens.
std::vector<float> outputs(const model::ModelConfig& config, const model::LayerTensors& tensors) {
  const auto backend = backend::make_reference_backend();
  const int rows = 12;
  model::Forward forward(config, *backend, {.max_rows = rows, .max_positions = rows});
  const format::KvLayout layout{
      .kind = format::KvKind::kF32, .kv_heads = config.kv_heads, .head_dim = config.head_dim};
  kv::Pool pool(*backend, {layout}, kv::pages_for(rows, layout));
  const std::vector<int32_t> pages = model::consecutive_pages(0, pool.pages());
  std::vector<float> h(static_cast<size_t>(rows) * config.hidden);
  Random random(3);
  for (float& v : h) v = static_cast<float>(random.normal());
  const auto layer = model::bind_layer(*backend, tensors);
  const backend::SequenceStep step{
      .row_begin = 0, .row_end = rows, .position = 0, .page_table = pages.data()};
  forward.layer(*layer, pool, 0, {&step, 1}, rows, h.data());
  return h;
}

void expect_same_function(const RandomModel& shape) {
  const TempFolder folder;
  write_random_checkpoint(folder / "in", shape);
  const auto files = checkpoint::ModelFiles::open(folder / "in");
  const model::ModelConfig config = model::parse_config(files.config(), "config.json");
  model::Scheme plain;
  plain.kv.assign(static_cast<size_t>(config.layers), format::KvKind::kF32);
  model::LayerTensors layer = model::read_layer(files, config, plain, 0);
  const std::vector<float> want = outputs(config, layer);

  LayerOrders orders{.qkv = random_order(config.hidden, 1),
                     .out = random_order(config.attention_size(), 2),
                     .ffn = random_order(config.hidden, 3),
                     .down = {}};
  for (int e = 0; e < config.experts; ++e)
    orders.down.push_back(random_order(config.intermediate, 4 + e));
  apply_orders(orders, layer);
  EXPECT_EQ(layer.qkv_input.order, orders.qkv);
  EXPECT_TRUE(layer.down_input.order.empty());  // folded
  const std::vector<float> got = outputs(config, layer);
  // The reference adds in f64: only the last f32 rounding of each operation can differ.
  for (size_t i = 0; i < want.size(); ++i)
    ASSERT_NEAR(got[i], want[i], 1e-5 * (1 + std::abs(want[i])));
}

TEST(Orders, FoldedAndOrderedLayerIsTheSameFunction) { expect_same_function({.bias = true}); }
TEST(Orders, EveryExpertHasItsOwnDownOrder) { expect_same_function({.experts = 4}); }

TEST(Orders, InputFormatsCutTheWeights) {
  const TempFolder folder;
  write_random_checkpoint(folder / "in", {});
  const auto files = checkpoint::ModelFiles::open(folder / "in");
  const model::ModelConfig config = model::parse_config(files.config(), "config.json");
  model::Scheme plain;
  plain.kv.assign(2, format::KvKind::kF32);
  model::LayerTensors layer = model::read_layer(files, config, plain, 0);
  const std::vector<float> want = model::to_f32(layer.experts[0].down);
  model::Scheme scheme = plain;
  model::LinearScheme linear{.weight = format::int4(32),
                             .input = format::int4(32),
                             .kept_weight = format::kInt8,
                             .kept_input = format::kInt8,
                             .kept = 16,
                             .clip = 0.9f};
  for (const std::string& module : model::linear_modules(config))
    scheme.linears.emplace(module, linear);
  apply_input_formats(scheme, layer);
  EXPECT_EQ(layer.down_input.segments.at[0], (format::Segment{format::int4(32), 80}));
  EXPECT_EQ(layer.down_input.segments.at[1], (format::Segment{format::kInt8, 16}));
  EXPECT_EQ(layer.down_input.clip, 0.9f);
  EXPECT_EQ(layer.experts[0].down.segments.at[1], (format::Segment{format::kBF16, 16}));
  EXPECT_EQ(model::to_f32(layer.experts[0].down), want);
}

}  // namespace
}  // namespace atom::quantizer
