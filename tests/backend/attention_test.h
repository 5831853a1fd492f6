// The fixture of the tests of the attention operation: steps on a backend against `reference` and against sums from the
// stored bytes (attention_cases.h), with the bound that the backend's kernel for the shape allows.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <vector>

#include "backend/attention_cases.h"
#include "backend/backends_under_test.h"
#include "testing/compare.h"

namespace atom::backend {

inline constexpr std::array kKinds = {format::KvKind::kF32, format::KvKind::kF16,
                                      format::KvKind::kInt8, format::KvKind::kInt4,
                                      format::KvKind::kInt8Int4};

using Steps = std::vector<std::vector<Chunk>>;

// Open pages hold the same codes up to the last position of each sequence; what lies behind is free.
inline ::testing::AssertionResult same_open_pages(const AttentionRun& a, const AttentionRun& b,
                                                  const std::vector<Chunk>& chunks,
                                                  const AttentionShape& shape) {
  const format::KvLayout open = shape.layout().of_open_page();
  const std::vector<uint8_t> x = a.open_pages(), y = b.open_pages();
  for (const Chunk& c : chunks)
    for (int token = 0; token <= (c.end - 1) % open.tokens; ++token)
      for (int side = 0; side < 2; ++side)
        for (int head = 0; head < open.kv_heads; ++head) {
          const int64_t page = c.sequence * open.page_bytes();
          const int64_t row = page + open.row_offset(side, head, token);
          const int64_t params = page + open.param_offset(side, head, token);
          if (std::memcmp(&x[row], &y[row], static_cast<size_t>(open.row_bytes(side))) != 0 ||
              std::memcmp(&x[params], &y[params], 4) != 0)
            return ::testing::AssertionFailure()
                   << "sequence " << c.sequence << ", token " << token << ", side " << side;
        }
  return ::testing::AssertionSuccess();
}

class Attention : public BackendTest {
 protected:
  // Shapes that `cuda` may compute by kernels that round to f16.
  static bool in_halves(const AttentionShape& shape) {
    return GetParam().name == "cuda" && shape.kind != format::KvKind::kF32 && shape.tokens == 64 &&
           (shape.head_dim == 64 || shape.head_dim == 96 || shape.head_dim == 128 ||
            shape.head_dim == 256);
  }
  static bool decodes(const std::vector<Chunk>& chunks) {  // one row a sequence
    return std::all_of(chunks.begin(), chunks.end(),
                       [](const Chunk& c) { return c.end - c.begin == 1; });
  }
  static bool decodes_in_halves(const AttentionShape& shape, const std::vector<Chunk>& chunks) {
    return in_halves(shape) && decodes(chunks);
  }
  static const std::vector<double>& bounds_of(const AttentionRun::Expected& expected,
                                              const AttentionShape& shape,
                                              const std::vector<Chunk>& chunks) {
    if (!in_halves(shape)) return expected.bounds;
    return decodes(chunks) ? expected.half_bounds : expected.rounded_bounds;
  }
  void check_steps(const AttentionShape& shape, const Steps& steps) {
    SCOPED_TRACE(shape.label());
    AttentionRun run(*backend, shape, 4, 51), same(*reference, shape, 4, 51);
    for (const std::vector<Chunk>& chunks : steps) {
      const std::vector<float> y = run.step(chunks);
      const AttentionRun::Expected expected = run.expected(chunks);
      const std::vector<double>& bounds = bounds_of(expected, shape, chunks);
      EXPECT_TRUE(atom::testing::all_within(expected.y, y, bounds_here(expected.y, bounds)));
      EXPECT_TRUE(atom::testing::all_within(same.step(chunks), y, bounds));
      // Rotation and quantization are exact, and no other byte of the pool is written.
      EXPECT_TRUE(atom::testing::same_values<uint8_t>(same.pool(), run.pool()));
      if (shape.open_page) {
        EXPECT_TRUE(same_open_pages(same, run, chunks, shape));
      }
    }
  }
};

}  // namespace atom::backend
