// The library products that kernels are compared with: exact for small integers, in every format that a backend offers.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "backend/backends_under_test.h"
#include "base/random.h"
#include "format/float16.h"
#include "format/float8.h"

namespace atom::backend {
namespace {

constexpr int kOutputs = 96, kInputs = 128, kRows = 32;

// -1, 0 or 1: every sum is exact in bf16.
std::vector<int> small_integers(size_t count, Random& random) {
  std::vector<int> values(count);
  for (int& value : values) value = static_cast<int>(random.below(3)) - 1;
  return values;
}

size_t value_bytes(LibraryFormat format) {
  return format == LibraryFormat::kF32 ? 4 : format == LibraryFormat::kF16 ? 2 : 1;
}

std::vector<uint8_t> narrowed(const std::vector<int>& values, LibraryFormat format) {
  std::vector<uint8_t> bytes(values.size() * value_bytes(format));
  for (size_t i = 0; i < values.size(); ++i) {
    const auto value = static_cast<float>(values[i]);
    if (format == LibraryFormat::kF32) std::memcpy(&bytes[4 * i], &value, 4);
    const uint16_t half = format::f32_to_f16(value);
    if (format == LibraryFormat::kF16) std::memcpy(&bytes[2 * i], &half, 2);
    if (format == LibraryFormat::kInt8) bytes[i] = static_cast<uint8_t>(values[i]);
    if (format == LibraryFormat::kFp8)
      bytes[i] =
          static_cast<uint8_t>(format::f32_to_e4m3(std::abs(value)) | (value < 0 ? 0x80 : 0));
  }
  return bytes;
}

float result_at(const std::vector<uint8_t>& bytes, size_t i, LibraryFormat format) {
  uint16_t half = 0;
  int32_t whole = 0;
  float value = 0;
  switch (format) {
    case LibraryFormat::kF16:
      std::memcpy(&half, &bytes[2 * i], 2);
      return format::f16_to_f32(half);
    case LibraryFormat::kFp8:
      std::memcpy(&half, &bytes[2 * i], 2);
      return format::bf16_to_f32(half);
    case LibraryFormat::kInt8:
      std::memcpy(&whole, &bytes[4 * i], 4);
      return static_cast<float>(whole);
    case LibraryFormat::kF32:
      break;
  }
  std::memcpy(&value, &bytes[4 * i], 4);
  return value;
}

Buffer on_device(Backend& backend, const std::vector<uint8_t>& bytes) {
  Buffer buffer = backend.allocate(bytes.size());
  backend.upload(buffer.data(), bytes.data(), bytes.size());
  return buffer;
}

void expect_products(Backend& backend, LibraryFormat format) {
  const auto product = backend.library_linear({format, kOutputs, kInputs, kRows});
  if (product == nullptr) return;
  ASSERT_GT(product->choices(), 0);
  Random random(1);
  const std::vector<int> x = small_integers(size_t{kRows} * kInputs, random);
  const std::vector<int> w = small_integers(size_t{kOutputs} * kInputs, random);
  const Buffer dx = on_device(backend, narrowed(x, format)),
               dw = on_device(backend, narrowed(w, format));
  std::vector<uint8_t> y(size_t{kRows} * kOutputs * 4);
  for (int choice = 0; choice < product->choices(); ++choice) {
    const Buffer dy = on_device(backend, std::vector<uint8_t>(y.size(), 0xff));
    product->enqueue(choice, dx.data(), dw.data(), dy.data());
    backend.download(y.data(), dy.data(), y.size());
    for (size_t row = 0; row < kRows; ++row)
      for (size_t n = 0; n < kOutputs; ++n) {
        int sum = 0;
        for (size_t k = 0; k < kInputs; ++k) sum += x[row * kInputs + k] * w[n * kInputs + k];
        ASSERT_EQ(result_at(y, row * kOutputs + n, format), static_cast<float>(sum))
            << "choice " << choice << ", row " << row << ", output " << n;
      }
  }
}

class Library : public BackendTest {};

TEST_P(Library, ProductsAreExactForSmallIntegers) {
  EXPECT_FALSE(backend->library().empty());
  for (const LibraryFormat format :
       {LibraryFormat::kF32, LibraryFormat::kF16, LibraryFormat::kInt8, LibraryFormat::kFp8}) {
    SCOPED_TRACE(static_cast<int>(format));
    expect_products(*backend, format);
  }
}

TEST_P(Library, CeilingsAreOfThisWorld) {
  const Ceilings ceilings = backend->ceilings();
  if (GetParam().name == "reference") {
    EXPECT_EQ(ceilings.read_bytes, 0);
    return;
  }
  EXPECT_GT(ceilings.read_bytes, 1e8);
  EXPECT_LT(ceilings.read_bytes, 1e14);
  EXPECT_FALSE(ceilings.origin.empty());
}

INSTANTIATE_TEST_SUITE_P(All, Library, ::testing::ValuesIn(candidates()), candidate_name);

}  // namespace
}  // namespace atom::backend
