#include "backend/cpu/packed_linear.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "backend/cpu/activation.h"
#include "backend/linear_parts.h"
#include "base/error.h"
#include "format/quantize.h"

namespace atom::backend::cpu {
namespace {

using format::Format;

// One output's row of one segment, as the checkpoint stores it. Null: a column of padding.
struct Row {
  const char* codes = nullptr;
  const char* scales = nullptr;
  const char* multipliers = nullptr;  // of progressive int4
  float global_scale = 1;             // of nvfp4
};

// The first `bytes` of four; the others are 0.
uint32_t read_word(const char* from, int bytes) {
  uint32_t word = 0;
  std::memcpy(&word, from, static_cast<size_t>(bytes));
  return word;
}

// Nibbles 0..3 of the lower half to bytes 0..3.
uint32_t spread_nibbles(uint32_t half) {
  return (half & 0xfu) | (half & 0xf0u) << 4 | (half & 0xf00u) << 8 | (half & 0xf000u) << 12;
}

// Of int4 (whose rows end with a whole word) or E2M1; `zeros` holds eight times the nibble of code 0.
void pack_nibbles(const Row& row, int size, int columns, uint32_t zeros, uint8_t* to) {
  for (int octet = 0; octet < (size + 7) / 8; ++octet, to += 4 * columns) {
    uint32_t word = zeros;
    const int left = size - 8 * octet;
    if (row.codes != nullptr) word = read_word(row.codes + 4 * octet, std::min(4, (left + 1) / 2));
    if (left < 8) {
      const uint32_t padding = ~0u << (4 * left);
      word = (word & ~padding) | (zeros & padding);
    }
    const uint32_t bytes = spread_nibbles(word & 0xffffu) | spread_nibbles(word >> 16) << 4;
    std::memcpy(to, &bytes, sizeof bytes);
  }
}

void pack_int8(const Row& row, int size, int columns, int offset, uint8_t* to) {
  for (int k = 0; k < (size + 7) / 8 * 8; ++k) {
    const int code = row.codes != nullptr && k < size ? static_cast<int8_t>(row.codes[k]) : 0;
    to[int64_t{k / 4} * 4 * columns + k % 4] = static_cast<uint8_t>(code + offset);
  }
}

// Elements of `bytes` bytes: to[i * columns].
void pack_elements(const char* from, int count, int bytes, int columns, uint8_t* to) {
  for (int i = 0; i < count; ++i, to += int64_t{bytes} * columns) {
    if (from != nullptr)
      std::memcpy(to, from + int64_t{i} * bytes, static_cast<size_t>(bytes));
    else
      std::memset(to, 0, static_cast<size_t>(bytes));
  }
}

// Steps of `count` groups, f32, from scales of any FP4 format: to[i * columns].
void pack_steps(const Row& row, Format format, int count, int columns, uint8_t* to) {
  format::visit(format, [&](auto f) {
    using F = decltype(f);
    if constexpr (F::kInteger) {
      for (int i = 0; i < count; ++i, to += int64_t{sizeof(float)} * columns) {
        float step = 0;
        if (row.scales != nullptr) {
          typename F::Scale scale;
          std::memcpy(&scale, row.scales + i * int64_t{sizeof scale}, sizeof scale);
          step = F::step(scale) / row.global_scale;
        }
        std::memcpy(to, &step, sizeof step);
      }
    }
  });
}

}  // namespace

// The outputs of all parts, one after the other.
struct CpuLinear::Rows {
  explicit Rows(std::span<const LinearWeight> parts) : segments(parts[0].segments) {
    for (const LinearWeight& part : parts)
      for (int row = 0; row < part.n; ++row) places.push_back({&part, row});
  }
  Row at(int64_t output, int segment) const {
    if (output >= static_cast<int64_t>(places.size())) return {};
    const auto [weight, row] = places[static_cast<size_t>(output)];
    const auto [format, size] = segments.at[static_cast<size_t>(segment)];
    const LinearWeight::Part& part = weight->part[segment];
    Row result;
    result.codes = static_cast<const char*>(part.codes) + row * format::row_bytes(format, size);
    if (format::is_integer(format))
      result.scales =
          static_cast<const char*>(part.scales) +
          int64_t{row} * format::weight_scales(format, size) * format::weight_scale_bytes(format);
    if (format::is_progressive(format))
      result.multipliers = reinterpret_cast<const char*>(part.multipliers) +
                           int64_t{row} * format::weight_multipliers(format, size);
    if (format::has_global_scale(format)) result.global_scale = *part.global_scale;
    return result;
  }

  struct Place {
    const LinearWeight* weight;
    int row;
  };
  format::Segments segments;
  std::vector<Place> places;
};

CpuLinear::CpuLinear(std::span<const LinearWeight> parts, const format::Segments& input,
                     const KernelTable& kernels, Executor& executor)
    : input_(input) {
  check_parts(parts, input, "cpu");
  const Rows rows(parts);
  n_ = static_cast<int>(rows.places.size());
  k_ = input.k();
  panels_ = (n_ + kernels.panel_columns - 1) / kernels.panel_columns;
  for (int i = 0; i < 2; ++i) {
    const format::Segment w = rows.segments.at[static_cast<size_t>(i)];
    const format::Format x = input.at[static_cast<size_t>(i)].format;
    if (w.size == 0) continue;
    if (!format::is_integer(w.format) && format::is_integer(x))
      notice_ =
          "linear " + format::name(w.format) + " x " + format::name(x) + ": input dequantized";
    pack_segment(rows, i, kernels, executor);
  }
  pack_bias(parts, kernels.panel_columns);
}

void CpuLinear::pack_segment(const Rows& rows, int index, const KernelTable& kernels,
                             Executor& executor) {
  const auto [format, size] = rows.segments.at[static_cast<size_t>(index)];
  const int columns = kernels.panel_columns;
  const int element_bytes = format::bits(format) / 8;  // 0 for int4
  WeightSegment& w = segments_[index];
  w.element = element_of(format);
  const bool fp4 = w.element == Element::kE2M1;
  const int scale_bytes = fp4 ? int{sizeof(float)} : format::weight_scale_bytes(format);
  w.progressive = format::is_progressive(format);
  w.size = size;
  w.group = format::group_size(format, size);
  w.groups = format::groups(format, size);
  const int64_t padded = w.groups > 0 ? (int64_t{size} + 7) / 8 * 8 : size;
  w.panel_bytes = padded * columns * format::bits(format) / 8;
  const int scales = format::weight_scales(format, size);
  const int multipliers = format::weight_multipliers(format, size);
  w.panel_scale_bytes = (int64_t{scales} * scale_bytes + multipliers) * columns;
  codes_[index] = Memory(static_cast<size_t>(w.panel_bytes * panels_));
  scales_[index] = Memory(static_cast<size_t>(w.panel_scale_bytes * panels_));
  w.panels = codes_[index].as<uint8_t>();
  w.scales = scales_[index].as<uint8_t>();

  executor.parallel_for(panels_, [&](int64_t panel, int) {
    for (int column = 0; column < columns; ++column) {
      const Row row = rows.at(panel * columns + column, index);
      uint8_t* to = codes_[index].as<uint8_t>() + panel * w.panel_bytes;
      if (w.element == Element::kInt4 || fp4)
        pack_nibbles(row, size, columns, fp4 ? 0 : 0x88888888u, to + 4 * column);
      else if (w.element == Element::kInt8)
        pack_int8(row, size, columns, kernels.byte_offset, to + 4 * column);
      else
        pack_elements(row.codes, size, element_bytes, columns, to + element_bytes * column);
      to = scales_[index].as<uint8_t>() + panel * w.panel_scale_bytes;
      if (fp4)
        pack_steps(row, format, scales, columns, to + scale_bytes * column);
      else
        pack_elements(row.scales, scales, scale_bytes, columns, to + scale_bytes * column);
      to += int64_t{scales} * scale_bytes * columns;
      pack_elements(row.multipliers, multipliers, 1, columns, to + column);
    }
  });
}

void CpuLinear::pack_bias(std::span<const LinearWeight> parts, int columns) {
  const bool any = std::any_of(parts.begin(), parts.end(),
                               [](const LinearWeight& part) { return part.bias != nullptr; });
  if (!any) return;
  const size_t size = static_cast<size_t>(panels_) * static_cast<size_t>(columns);
  bias_ = Memory(size * sizeof(float));
  std::fill_n(bias_.as<float>(), size, 0.0f);
  float* to = bias_.as<float>();
  for (const LinearWeight& part : parts) {
    if (part.bias != nullptr) std::copy_n(part.bias, part.n, to);
    to += part.n;
  }
}

}  // namespace atom::backend::cpu
