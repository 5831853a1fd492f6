// Records of a journal that say something else than this program writes, as those of a changed journal may.
#include "quantizer/journal_records.h"

#include <gtest/gtest.h>

#include <numeric>

#include "fuzz/small_layer.h"
#include "testing/expect_error.h"

namespace atom::quantizer {
namespace {

using testing::expect_error;

// A layer as a run solves it: arrays of the sizes that its formats ask for.
model::LayerTensors solved_layer(const model::Scheme& scheme) {
  model::LayerTensors layer = fuzz::small_layer();
  auto& expert = layer.experts[0];
  for (model::LinearTensors* linear :
       {&layer.q, &layer.k, &layer.v, &layer.out, &expert.gate, &expert.up, &expert.down}) {
    linear->segments = model::weight_segments(*scheme.find(linear->name), linear->k());
    for (int i = 0; i < 2; ++i) {
      const auto [format, size] = linear->segments.at[i];
      if (size == 0) continue;
      const auto rows = static_cast<size_t>(linear->n);
      linear->part[i].codes.resize(rows * static_cast<size_t>(format::row_bytes(format, size)));
      linear->part[i].scales.resize(rows * static_cast<size_t>(format::weight_scales(format, size) *
                                                               format::weight_scale_bytes(format)));
      linear->part[i].multipliers.resize(
          rows * static_cast<size_t>(format::weight_multipliers(format, size)));
      if (format::has_global_scale(format)) linear->part[i].global_scale = {1.0f};
    }
  }
  return layer;
}

class JournalRecords : public ::testing::Test {
 protected:
  void restore(const Record& record) {
    model::LayerTensors layer = fuzz::small_layer();
    model::Scheme scheme = scheme_;
    of_record("J", [&] { restore_layer(record, layer, scheme); });
    EXPECT_EQ(model::to_f32(layer.experts[0].down).size(), 32u * 32u);
  }

  model::Scheme scheme_ = fuzz::small_scheme();
  Record record_ = layer_record(solved_layer(scheme_), scheme_);
  model::ModelConfig config_ = fuzz::small_config();
};

TEST_F(JournalRecords, ALayerIsRestored) { restore(record_); }

TEST_F(JournalRecords, OtherFormatsAndSizesAreRefused) {
  const auto refused = [this](const char* linear, int segment, const Json& value) {
    Record changed = record_;
    changed.json["linears"][linear][segment] = value;
    expect_error([&] { restore(changed); }, {linear, "segment"});
  };
  refused("q", 0, {"int4.g32", 32});
  refused("q", 0, {"int4.g32", -16});
  refused("q", 1, {"int8", 1 << 30});
  refused("q", 0, {"int4.g64", 16});
  refused("down", 0, {"e2m1.g32", 16});
  refused("gate", 0, {"f32", 32});
  refused("gate", 0, {"magic", 32});
  Record changed = record_;
  changed.json["linears"]["q"][0] = 7;
  expect_error([&] { restore(changed); }, {"J", "lacks a value"});
}

TEST_F(JournalRecords, ArraysOfOtherSizesAreRefused) {
  const auto refused = [this](const char* name, const char* linear) {
    for (const bool longer : {false, true}) {
      Record changed = record_;
      auto& bytes = changed.arrays.at(name);
      bytes.resize(longer ? bytes.size() + 4 : bytes.size() - 4);
      expect_error([&] { restore(changed); }, {linear});
    }
    Record changed = record_;
    changed.arrays.erase(name);
    expect_error([&] { restore(changed); }, {name});
  };
  refused("q.0.codes", "q");
  refused("q.1.scales", "q");
  refused("out.0.multipliers", "out");
  refused("down.0.global_scale", "down");
}

TEST_F(JournalRecords, ClipsOutsideTheirRangeAreRefused) {
  for (const Json& clip : {Json(0), Json(-1), Json(1.5), Json(1e300)}) {
    Record changed = record_;
    changed.json["clips"]["v"] = clip;
    expect_error([&] { restore(changed); }, {"clip"});
    changed = record_;
    changed.json["input_clips"][3] = clip;
    expect_error([&] { restore(changed); }, {"clip"});
  }
}

TEST_F(JournalRecords, OrdersThatAreNoneAreRefused) {
  Permutation all(32);
  std::iota(all.begin(), all.end(), 0);
  LayerOrders good{.qkv = all, .out = all, .ffn = {}, .down = {all}};
  Record kept;
  put_orders(kept, "o.", good);
  require_fits(take_orders(kept, "o."), config_);
  const auto refused = [this](const LayerOrders& orders) {
    expect_error([&] { require_fits(orders, config_); }, {"order"});
  };
  for (const int32_t channel : {-1, 32, 1 << 30, 3}) {  // 3 is there already
    LayerOrders orders = good;
    orders.qkv[5] = channel;
    refused(orders);
    orders = good;
    orders.down[0][5] = channel;
    refused(orders);
  }
  LayerOrders orders = good;
  orders.down.push_back(all);
  refused(orders);
  orders = good;
  orders.out.pop_back();
  expect_error([&] { require_fits(orders, config_); }, {"out"});
}

TEST_F(JournalRecords, TransformsOfOtherModelsAreRefused) {
  const LayerTransform good{.value = {std::vector<float>(256)},
                            .value_inverse = {std::vector<float>(256)},
                            .key = std::vector<double>(8),
                            .key_offset = std::vector<float>(16),
                            .up = {std::vector<double>(32)}};
  require_fits(good, config_);
  require_fits(LayerTransform{}, config_);
  const auto refused = [&](const char* part, const auto& change) {
    LayerTransform transform = good;
    change(transform);
    expect_error([&] { require_fits(transform, config_); }, {part});
  };
  refused("value", [](LayerTransform& t) { t.value[0].pop_back(); });
  refused("value", [](LayerTransform& t) { t.value.emplace_back(256); });
  refused("value_inverse", [](LayerTransform& t) { t.value_inverse.clear(); });
  refused("key", [](LayerTransform& t) { t.key.pop_back(); });
  refused("key_offset", [](LayerTransform& t) { t.key_offset.push_back(0); });
  refused("up", [](LayerTransform& t) { t.up[0].clear(); });
}

TEST_F(JournalRecords, ChoicesThatNoSearchMakesAreRefused) {
  const std::vector<LayerChoice> choices = {{.kept = {16, 0, 32, 48}, .by_error = {"down"}}};
  EXPECT_EQ(choices_of(choices_json(choices))[0].kept, choices[0].kept);
  for (const Json& kept : {Json{16, 0, 32}, Json{16, 0, 32, -16}, Json{16, 0, 32, 7}}) {
    Json json = choices_json(choices);
    json[0]["kept"] = kept;
    expect_error([&] { choices_of(json); }, {"choice"});
  }
}

}  // namespace
}  // namespace atom::quantizer
