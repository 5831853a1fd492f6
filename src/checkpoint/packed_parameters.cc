// What the codes of a packed weight mean: scales, zeros and the groups of the inputs. And the codes themselves.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "checkpoint/packed_codes.h"
#include "checkpoint/packed_weight.h"
#include "format/float8.h"

namespace atom::checkpoint {

using Layout = PackedFormat::Layout;
using tensor::DType;

namespace {

float signed_e4m3(uint8_t bits) {
  if ((bits & 0x7fu) == 0x7fu) return std::numeric_limits<float>::quiet_NaN();
  const float magnitude = format::e4m3_to_f32(bits & 0x7fu);
  return (bits & 0x80u) != 0 ? -magnitude : magnitude;
}

}  // namespace

PackedWeight::Parameters PackedWeight::parameters() const {
  return {read_scales(), read_zeros(), read_order()};
}

std::vector<float> PackedWeight::read_scales() const {
  std::vector<float> stored(static_cast<size_t>(scales_.elements()));
  if (tensor::is_floating(scales_.dtype)) {
    tensor::widen(scales_, stored);
  } else {
    float global = 1.0f;
    if (global_) {
      std::memcpy(&global, global_->bytes.data(), sizeof global);
      if (!(global > 0) || !std::isfinite(global))
        refuse("weight_global_scale", fmt::format("holds {}; it must be positive", global));
    }
    for (size_t i = 0; i < stored.size(); ++i) {
      const auto bits = std::to_integer<uint8_t>(scales_.bytes[i]);
      stored[i] = format_.layout == Layout::kNvfp4 ? signed_e4m3(bits) / global
                  : bits == format::kE8M0NaN       ? std::numeric_limits<float>::quiet_NaN()
                                                   : format::e8m0_to_f32(bits);
    }
  }
  for (const float scale : stored)
    if (!std::isfinite(scale))
      refuse(scales_part_, fmt::format("holds {}; scales must be finite", scale));
  if (!transposed()) return stored;
  std::vector<float> out(stored.size());
  for (size_t group = 0; group < static_cast<size_t>(groups_); ++group)
    for (size_t row = 0; row < static_cast<size_t>(rows_); ++row)
      out[row * static_cast<size_t>(groups_) + group] =
          stored[group * static_cast<size_t>(rows_) + row];
  return out;
}

std::vector<int16_t> PackedWeight::read_zeros() const {
  if (!zeros_) return {};
  std::vector<int16_t> out(static_cast<size_t>(scale_rows_ * groups_));
  const std::byte* words = zeros_->bytes.data();
  const bool plain = zeros_->dtype == DType::I8;
  const int64_t zero_words = plain || !transposed() ? 0 : zeros_->shape[1];
  for (int64_t row = 0; row < scale_rows_; ++row)
    for (int64_t group = 0; group < groups_; ++group) {
      const int64_t at = row * groups_ + group;
      int zero;
      if (plain)
        zero = std::to_integer<int8_t>(words[at]) + middle();
      else if (format_.layout == Layout::kAwq)
        zero = code_at(words + group * zero_words * 4, 1, row / 8 * 8 + kAwqNibble[row % 8], 4);
      else if (format_.layout == Layout::kGptq)
        zero = code_at(words + group * zero_words * 4, 1, row, format_.bits) +
               (format_.zeros_less_one ? 1 : 0);
      else
        zero = code_at(words + group * 4, groups_, row, format_.bits);
      if (zero < 0 || zero >= 1 << format_.bits)
        refuse(zeros_part_, fmt::format("holds the zero {} for output {}, which is outside 0..{}",
                                        zero, row, (1 << format_.bits) - 1));
      out[static_cast<size_t>(at)] = static_cast<int16_t>(zero);
    }
  return out;
}

std::vector<int32_t> PackedWeight::read_order() const {
  if (!order_) return {};
  std::vector<int32_t> out(static_cast<size_t>(inputs_));
  std::memcpy(out.data(), order_->bytes.data(), order_->bytes.size());
  for (size_t i = 0; i < out.size(); ++i)
    if (out[i] < 0 || out[i] >= groups_)
      refuse(order_part_,
             fmt::format("holds {} for input {}, but there are {} groups", out[i], i, groups_));
  // Some programs that know no order leave zeros here.
  const bool blank = std::all_of(out.begin(), out.end(), [](int32_t group) { return group == 0; });
  if (!format_.ordered && blank) return {};
  return out;
}

std::vector<float> PackedWeight::values_of_codes() const {
  std::vector<float> values(256);
  for (size_t code = 0; code < values.size(); ++code)
    values[code] = format_.layout == Layout::kFloat8 ? signed_e4m3(static_cast<uint8_t>(code))
                   : is_float() ? 0.5f * static_cast<float>(format::kE2M1Codes[code % 16])
                                : static_cast<float>(code);
  return values;
}

// Codes of rows [first, first + count), not negative: those of int8 are 128 more than stored.
void PackedWeight::unpack(int64_t first, int64_t count, uint8_t* out) const {
  const std::byte* stored = codes_.bytes.data();
  const int64_t columns = codes_.shape[1];
  if (format_.layout == Layout::kGptq) {
    for (int64_t i = 0; i < inputs_; ++i)
      for (int64_t row = 0; row < count; ++row)
        out[row * inputs_ + i] = code_at(stored + (first + row) * 4, columns, i, format_.bits);
  } else if (format_.layout == Layout::kAwq) {
    for (int64_t i = 0; i < inputs_; ++i)
      for (int64_t row = 0; row < count; ++row) {
        const int64_t output = first + row;
        const uint32_t word = word_at(stored, i * columns + output / 8);
        out[row * inputs_ + i] = static_cast<uint8_t>(word >> (4 * kAwqNibble[output % 8]) & 15u);
      }
  } else if (format_.layout == Layout::kInt8 || format_.layout == Layout::kFloat8) {
    const unsigned flip = format_.layout == Layout::kInt8 ? 0x80 : 0;
    for (int64_t i = 0; i < count * inputs_; ++i)
      out[i] = static_cast<uint8_t>(std::to_integer<unsigned>(stored[first * inputs_ + i]) ^ flip);
  } else {
    const int64_t bytes = columns * static_cast<int64_t>(tensor::dtype_size(codes_.dtype));
    for (int64_t row = 0; row < count; ++row) {
      const std::byte* words = stored + (first + row) * bytes;
      for (int64_t i = 0; i < inputs_; ++i)
        out[row * inputs_ + i] =
            codes_.dtype == DType::U8
                ? static_cast<uint8_t>(std::to_integer<unsigned>(words[i / 2]) >> (i % 2 * 4) & 15u)
                : code_at(words, 1, i, format_.bits);
    }
  }
}

}  // namespace atom::checkpoint
