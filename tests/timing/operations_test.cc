// Operations to be timed: each of them runs on the cpu backend, bytes and products are those of the formula. Times are
// not asserted.
#include <gtest/gtest.h>

#include <cmath>

#include "backend/open.h"
#include "base/executor.h"
#include "testing/expect_error.h"
#include "timing/attention_ops.h"
#include "timing/baseline_file.h"
#include "timing/layer_ops.h"
#include "timing/small_config.h"

namespace atom::timing {
namespace {

model::ModelConfig one_layer() {
  model::ModelConfig config = small_config();
  config.layers = 1;
  return config;
}

const RoundOptions kQuick = {.rounds = 1, .burst = 1e-4};

class OperationsTest : public ::testing::Test {
 protected:
  OperationsTest()
      : executor_({.threads = 2}),
        backend_(backend::open_backend("cpu", {.executor = &executor_})),
        data_(*backend_) {}

  void expect_time(const Operation& operation) {
    const std::vector<Timing> times = time_operations(*backend_, {&operation, 1}, kQuick);
    EXPECT_GT(times.front().best, 0);
  }

  Executor executor_;
  std::unique_ptr<backend::Backend> backend_;
  RandomData data_;
};

TEST_F(OperationsTest, LayersAndTheirProducers) {
  const model::ModelConfig config = one_layer();
  model::Scheme scheme;
  scheme.kv = {format::KvKind::kInt4};
  for (const std::string& module : model::linear_modules(config))
    scheme.linears.emplace(module, model::LinearScheme{.weight = format::int4_progressive(64),
                                                       .input = format::kInt8});
  LayerOps layer(*backend_, config, scheme, data_, 50'000);
  for (const int rows : {3, 1}) {
    layer.set_rows(rows);
    const Operation qkv = layer.linear(Site::kQkv);
    EXPECT_EQ(qkv.products, 2.0 * rows * 128 * (4 + 2 * 2) * 32);
    EXPECT_TRUE(qkv.integers);
    // 256 x 128 codes in four bits, a scale a row, two multipliers a row.
    EXPECT_EQ(qkv.copies, static_cast<int>(std::ceil(50'000 / (256.0 * (64 + 4 + 2)))));
    EXPECT_GT(qkv.bytes, 256.0 * (64 + 4 + 2) + rows * (128 + 4 * 256));
    EXPECT_EQ(layer.chain().products, 2.0 * rows * 128 * (256 + 128 + 3 * 192));
    for (int i = 0; i < kSites; ++i) expect_time(layer.linear(static_cast<Site>(i)));
    for (const bool plain : {false, true}) {
      for (const Operation& producer :
           {layer.norm(plain), layer.gate(plain), layer.quantize(plain)})
        expect_time(producer);
      EXPECT_GE(layer.gate(plain).bytes, 4.0 * rows * 2 * 192);
    }
    expect_time(layer.chain());
    expect_time(layer.chain_with_producers());
  }
}

TEST_F(OperationsTest, TheLibraryMultipliesInF32AndNothingElse) {
  LibraryOps half(*backend_, one_layer(), backend::LibraryFormat::kF16, data_, 0);
  half.set_rows(2, kQuick);
  EXPECT_FALSE(half.works());
  LibraryOps single(*backend_, one_layer(), backend::LibraryFormat::kF32, data_, 1'000'000);
  single.set_rows(2, kQuick);
  ASSERT_TRUE(single.works());
  expect_time(single.linear(Site::kDown));
  expect_time(single.chain());

  const auto product = backend_->library_linear({backend::LibraryFormat::kF32, 2, 3, 1});
  const float x[] = {1, 2, 3}, w[] = {1, 0, 1, 0, 2, -1};
  float y[2] = {};
  product->enqueue(0, x, w, y);
  EXPECT_EQ(y[0], 4);
  EXPECT_EQ(y[1], 1);
}

TEST_F(OperationsTest, AttentionOfStepsAndPrompts) {
  for (const bool prompts : {false, true})
    for (const bool open : {false, true}) {
      const AttentionOps ops(*backend_, one_layer(),
                             {.cache = format::KvKind::kInt4,
                              .open_page = open,
                              .contexts = {70, 1, 130},
                              .prompts = prompts},
                             data_, 100'000);
      // K and V of two heads of 32 in four bits, lo and step.
      EXPECT_DOUBLE_EQ(ops.cache_bytes(), 201 * 2 * 2 * (16 + 4));
      const Operation operation = ops.operation();
      EXPECT_EQ(operation.products,
                4.0 * 32 * 4 * (prompts ? 0.5 * (70 * 70 + 1 + 130 * 130) : 201));
      EXPECT_EQ(operation.sequences.size(), 3u);
      EXPECT_EQ(operation.copies > 1, !prompts);
      expect_time(operation);
    }
}

TEST(Roofline, IsTheSlowerOfMemoryAndProducts) {
  Operation operation;
  operation.bytes = 100;
  operation.products = 1000;
  EXPECT_EQ(roofline_seconds(operation, {}), 0);
  const backend::Ceilings ceilings{.read_bytes = 10, .operations16 = 50, .operations8 = 1000};
  EXPECT_EQ(roofline_seconds(operation, ceilings), 20);
  operation.integers = true;
  EXPECT_EQ(roofline_seconds(operation, ceilings), 10);
}

TEST(BaselineFile, GivesTheFastest) {
  const Baselines file = parse_baselines(
      "# made by hand\n32,8,4,1024,cudnn,50.5\r\n\n32,8,4,1024,flash,40\n8,4,1,f16,3.25", "f.csv");
  EXPECT_EQ(file.least({32, 8, 4, 1024})->us, 40);
  EXPECT_EQ(file.least({32, 8, 4, 1024}, "cudnn")->us, 50.5);
  EXPECT_EQ(file.least({8, 4, 1})->name, "f16");
  EXPECT_FALSE(file.least({8, 4}).has_value());
}

TEST(BaselineFile, WrongLinesAreNamed) {
  for (const char* line : {"f16,1.5", "1,2,f16,", "1,x,f16,1.5", "1,2,f16,-1", "1,2,f16,nan", "1"})
    testing::expect_error([&] { parse_baselines(std::string("1,f16,2\n") + line, "f.csv"); },
                          {"f.csv", "line 2", line});
}

}  // namespace
}  // namespace atom::timing
