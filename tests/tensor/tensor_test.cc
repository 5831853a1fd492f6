#include "tensor/tensor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "testing/expect_error.h"

namespace atom::tensor {
namespace {

using atom::testing::expect_error;

TEST(DType, NamesAndSizesRoundTrip) {
  const std::pair<DType, size_t> rows[] = {{DType::F32, 4}, {DType::F16, 2},    {DType::BF16, 2},
                                           {DType::I8, 1},  {DType::U8, 1},     {DType::I32, 4},
                                           {DType::I64, 8}, {DType::F8_E4M3, 1}};
  for (const auto& [dtype, size] : rows) {
    EXPECT_EQ(dtype_size(dtype), size);
    EXPECT_EQ(dtype_from_name(dtype_name(dtype)), dtype);
  }
  EXPECT_EQ(dtype_name(DType::BF16), "BF16");
  EXPECT_EQ(dtype_from_name("f32"), std::nullopt);
  EXPECT_EQ(dtype_from_name("F64"), std::nullopt);
}

TEST(Shape, CountsElements) {
  EXPECT_EQ(Shape().elements(), 1);
  EXPECT_EQ(Shape({2, 3, 4}).elements(), 24);
  EXPECT_EQ(Shape({2, 0, 4}).elements(), 0);
  EXPECT_EQ(Shape({2, 3}).rank(), 2);
  EXPECT_EQ(Shape({2, 3})[1], 3);
  EXPECT_EQ(Shape({2, 3}).to_string(), "[2, 3]");
  EXPECT_EQ(Shape().to_string(), "[]");
  EXPECT_EQ(Shape({2, 3}), Shape({2, 3}));
  EXPECT_FALSE(Shape({2, 3}) == Shape({3, 2}));
  EXPECT_FALSE(Shape({1}) == Shape());
  EXPECT_THROW(Shape({2})[1], InvariantError);
}

TEST(Shape, RefusesNegativeLargeAndDeep) {
  expect_error([] { Shape({2, -1}); }, {"negative", "-1"});
  expect_error([] { Shape({int64_t{1} << 32, int64_t{1} << 31}); }, {"exceeds 64 bits"});
  // A zero does not hide an overflow that lies before or behind it.
  expect_error([] { Shape({0, int64_t{1} << 32, int64_t{1} << 32}); }, {"exceeds 64 bits"});
  expect_error([] { Shape({int64_t{1} << 32, int64_t{1} << 32, 0}); }, {"exceeds 64 bits"});
  EXPECT_EQ(Shape({1, 1, 1, 1, 1, 1, 1, 1}).rank(), 8);
  expect_error([] { Shape({1, 1, 1, 1, 1, 1, 1, 1, 1}); }, {"at most 8", "9"});
}

TEST(ByteSize, ChecksOverflow) {
  EXPECT_EQ(byte_size(DType::BF16, {3, 5}), 30u);
  EXPECT_EQ(byte_size(DType::I64, {0}), 0u);
  expect_error([] { byte_size(DType::I64, {int64_t{1} << 60}); }, {"I64", "64 bits"});
}

TEST(TensorView, TypedAccessChecksDtypeAndAlignment) {
  HostTensor tensor(DType::F32, {2, 2});
  tensor.as<float>()[3] = 2.5f;
  const TensorView view = tensor.view();
  EXPECT_EQ(view.as<float>().size(), 4u);
  EXPECT_EQ(view.as<float>()[3], 2.5f);
  EXPECT_THROW(view.as<int32_t>(), InvariantError);
  EXPECT_THROW(view.as<uint16_t>(), InvariantError);
  const TensorView odd{DType::F32, {1}, tensor.bytes().subspan(1, 4)};
  expect_error([&] { odd.as<float>(); }, {"F32", "no multiple of 4"});
  EXPECT_EQ(HostTensor(odd).as<float>().size(), 1u);
}

TEST(HostTensor, IsZeroedAlignedAndCopies) {
  HostTensor tensor(DType::I8, {3});
  EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.bytes().data()) % 64, 0u);
  for (const int8_t value : tensor.as<int8_t>()) EXPECT_EQ(value, 0);
  tensor.as<int8_t>()[1] = -7;
  const HostTensor copy(tensor.view());
  tensor.as<int8_t>()[1] = 1;
  EXPECT_EQ(copy.as<int8_t>()[1], -7);
  EXPECT_EQ(HostTensor().elements(), 0);
  EXPECT_TRUE(HostTensor(DType::F32, {0, 4}).as<float>().empty());
}

TEST(Widen, IsExactForEveryFloatingDtype) {
  HostTensor half(DType::F16, {4});
  half.as<uint16_t>()[0] = 0x3c00;  // 1
  half.as<uint16_t>()[1] = 0xc100;  // -2.5
  half.as<uint16_t>()[2] = 0x0001;  // 2^-24, the smallest subnormal
  half.as<uint16_t>()[3] = 0x7c00;  // infinity
  EXPECT_EQ(widen(half.view()),
            (std::vector<float>{1.0f, -2.5f, 0x1p-24f, std::numeric_limits<float>::infinity()}));
  HostTensor brain(DType::BF16, {2});
  brain.as<uint16_t>()[0] = 0x3f80;  // 1
  brain.as<uint16_t>()[1] = 0xc020;  // -2.5
  EXPECT_EQ(widen(brain.view()), (std::vector<float>{1.0f, -2.5f}));
  HostTensor single(DType::F32, {1});
  single.as<float>()[0] = 0.1f;
  EXPECT_EQ(widen(single.view()), std::vector<float>{0.1f});
}

TEST(Widen, NeedsNoAlignment) {
  const uint8_t bytes[] = {0, 0x80, 0x3f, 0x20, 0xc0};
  const TensorView odd{DType::BF16, {2}, std::as_bytes(std::span(bytes)).subspan(1)};
  EXPECT_EQ(widen(odd), (std::vector<float>{1.0f, -2.5f}));
}

TEST(Widen, RefusesIntegersAndWrongSizes) {
  const HostTensor codes(DType::U8, {4});
  expect_error([&] { widen(codes.view()); }, {"F32, F16 or BF16", "U8"});
  const HostTensor single(DType::F32, {2});
  std::vector<float> out(3);
  EXPECT_THROW(widen(single.view(), out), InvariantError);
}

}  // namespace
}  // namespace atom::tensor
