#include "checkpoint/packed_weight.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "checkpoint/packed_codes.h"
#include "format/float16.h"
#include "format/float8.h"

namespace atom::checkpoint {

using Layout = PackedFormat::Layout;
using tensor::DType;
using tensor::Shape;
using tensor::TensorView;

namespace {

constexpr int64_t kMostSize = int64_t{1} << 30;  // rows and inputs; their product fits int64
constexpr int64_t kTileRows = 64;

std::string kind_of(const PackedFormat& format) {
  switch (format.layout) {
    case Layout::kGptq:
      return fmt::format("gptq{}", format.bits);
    case Layout::kAwq:
      return "awq4";
    case Layout::kPacked:
    case Layout::kInt8:
      return fmt::format("int{}", format.bits);
    case Layout::kFloat8:
      return "f8_e4m3";
    case Layout::kMxfp4:
      return "mxfp4";
    case Layout::kNvfp4:
      return "nvfp4";
  }
  return {};
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

PackedWeight::PackedWeight(const Find& find, std::string where, std::string module,
                           const PackedFormat& format)
    : where_(std::move(where)),
      module_(std::move(module)),
      kind_(kind_of(format)),
      format_(format) {
  take_codes(find);
  set_groups();
  take_scales(find);
  take_rest(find);
  const Parameters read = parameters();
  for (size_t i = 0; i < read.group_of.size(); ++i)
    in_order_ = in_order_ && read.group_of[i] == static_cast<int64_t>(i) / group_;
  middle_zeros_ = std::all_of(read.zeros.begin(), read.zeros.end(),
                              [&](int16_t zero) { return zero == middle(); });
  half_scales_ = std::all_of(read.scales.begin(), read.scales.end(), [](float scale) {
    return format::f16_to_f32(format::f32_to_f16(scale)) == scale;
  });
}

void PackedWeight::refuse(const std::string& part, const std::string& rule) const {
  fail("{}: tensor \"{}.{}\" {}", where_, module_, part, rule);
}

std::optional<TensorView> PackedWeight::take_if(const Find& find, const std::string& part) {
  std::string name = module_ + "." + part;
  std::optional<TensorView> view = find(name);
  if (!view) return view;
  parts_.push_back(std::move(name));
  stored_bytes_ += view->bytes.size();
  return view;
}

TensorView PackedWeight::take(const Find& find, const std::string& part) {
  const std::optional<TensorView> view = take_if(find, part);
  if (!view) refuse(part, fmt::format("is missing beside \"{}\"", codes_part_));
  return *view;
}

void PackedWeight::require(const std::string& part, const TensorView& view,
                           std::initializer_list<DType> dtypes, const Shape& shape) const {
  if (std::find(dtypes.begin(), dtypes.end(), view.dtype) == dtypes.end())
    refuse(part, fmt::format("must be {}, but is {}", tensor::dtype_name(*dtypes.begin()),
                             tensor::dtype_name(view.dtype)));
  if (view.shape == shape) return;
  refuse(part, fmt::format("must have the shape {} by \"{}\" and the group size, but has {}",
                           shape.to_string(), codes_part_, view.shape.to_string()));
}

// Sizes follow from the codes: nothing else says them for all layouts.
void PackedWeight::take_codes(const Find& find) {
  const bool bytes = format_.layout == Layout::kInt8 || format_.layout == Layout::kFloat8;
  const bool fp4 = format_.layout == Layout::kMxfp4 || format_.layout == Layout::kNvfp4;
  codes_part_ = transposed() ? "qweight" : bytes ? "weight" : "weight_packed";
  scales_part_ = transposed() ? "scales" : "weight_scale";
  zeros_part_ = transposed() ? "qzeros" : "weight_zero_point";
  order_part_ = transposed() ? "g_idx" : "weight_g_idx";
  codes_ = take(find, codes_part_);
  const DType dtype = fp4                                 ? DType::U8
                      : format_.layout == Layout::kInt8   ? DType::I8
                      : format_.layout == Layout::kFloat8 ? DType::F8_E4M3
                                                          : DType::I32;
  if (codes_.shape.rank() != 2)
    refuse(codes_part_,
           fmt::format("must be a matrix, but has the shape {}", codes_.shape.to_string()));
  require(codes_part_, codes_, {dtype}, codes_.shape);
  const int64_t first = codes_.shape[0], second = codes_.shape[1];
  if (first < 1 || second < 1 || first > kMostSize / 32 || second > kMostSize / 32)
    refuse(codes_part_, fmt::format("must have 1 to {} rows and columns, but has the shape {}",
                                    kMostSize / 32, codes_.shape.to_string()));
  const auto unpacked = [&](int64_t words) { return words * 32 / format_.bits; };
  rows_ = format_.layout == Layout::kAwq ? unpacked(second) : transposed() ? second : first;
  inputs_ = format_.layout == Layout::kAwq    ? first
            : format_.layout == Layout::kGptq ? unpacked(first)
            : bytes                           ? second
            : fp4                             ? second * 2
                                              : unpacked(second);
  if (format_.layout == Layout::kGptq && first * 32 % format_.bits != 0)
    refuse(codes_part_, fmt::format("must have a multiple of {} rows for {} bits, but has {}",
                                    format_.bits, format_.bits, first));
  if (transposed() && rows_ * format_.bits % 32 != 0)
    refuse(codes_part_, fmt::format("has {} outputs of {} bits, which fill no words of 32 bits",
                                    rows_, format_.bits));
  if (format_.layout == Layout::kPacked) read_shape(find);
}

// Of a packed weight, whose last word of a row may be padded.
void PackedWeight::read_shape(const Find& find) {
  const std::optional<TensorView> view = take_if(find, "weight_shape");
  if (!view) return;
  require("weight_shape", *view, {DType::I64, DType::I32}, {2});
  int64_t sizes[2];
  for (size_t i = 0; i < 2; ++i) {
    int32_t narrow = 0;
    if (view->dtype == DType::I64)
      std::memcpy(&sizes[i], view->bytes.data() + 8 * i, 8);
    else
      std::memcpy(&narrow, view->bytes.data() + 4 * i, 4), sizes[i] = narrow;
  }
  const bool fits = sizes[0] == rows_ && sizes[1] >= 1 && sizes[1] <= inputs_ &&
                    ceil_div(sizes[1] * format_.bits, 32) == codes_.shape[1];
  if (!fits)
    refuse("weight_shape", fmt::format("holds [{}, {}], but \"weight_packed\" has the shape {}",
                                       sizes[0], sizes[1], codes_.shape.to_string()));
  inputs_ = sizes[1];
}

void PackedWeight::set_groups() {
  group_ = format_.group == PackedFormat::kAll ? inputs_ : format_.group;
  rows_of_scale_ = format_.rows == PackedFormat::kAll ? rows_ : format_.rows;
  const bool blocks = rows_of_scale_ != 1;
  if (!blocks && inputs_ % group_ != 0)
    refuse(codes_part_,
           fmt::format("has {} inputs, which the group size {} does not divide", inputs_, group_));
  groups_ = ceil_div(inputs_, group_);
  scale_rows_ = ceil_div(rows_, rows_of_scale_);
}

void PackedWeight::take_scales(const Find& find) {
  scales_ = take(find, scales_part_);
  const bool one = scale_rows_ == 1 && groups_ == 1;
  // One scale has no dimension, or one; one a row may lack its second.
  Shape shape = transposed() ? Shape{groups_, rows_} : Shape{scale_rows_, groups_};
  if (!transposed() && scales_.shape.rank() < 2 && groups_ == 1)
    shape = one && scales_.shape.rank() == 0 ? Shape{} : Shape{scale_rows_};
  switch (format_.layout) {
    case Layout::kMxfp4:
      return require(scales_part_, scales_, {DType::U8}, shape);
    case Layout::kNvfp4: {
      require(scales_part_, scales_, {DType::F8_E4M3}, shape);
      global_ = take(find, "weight_global_scale");
      return require("weight_global_scale", *global_, {DType::F32}, {1});
    }
    default:
      return require(scales_part_, scales_, {DType::F16, DType::BF16, DType::F32}, shape);
  }
}

void PackedWeight::take_rest(const Find& find) {
  // Of the inputs, which are not rounded; they are seen no more.
  for (const char* part : {"input_scale", "input_zero_point", "input_global_scale", "output_scale"})
    take_if(find, part);
  if (is_float()) {
    take_if(find, zeros_part_);  // zeros, in older files
    return;
  }
  const bool needed = format_.layout == Layout::kGptq || !format_.symmetric;
  if (needed)
    zeros_ = take(find, zeros_part_);
  else
    zeros_ = take_if(find, zeros_part_);
  if (zeros_) {
    const int bits = format_.bits;
    if (transposed()) {
      require(zeros_part_, *zeros_, {DType::I32}, {groups_, rows_ * bits / 32});
    } else if (format_.layout == Layout::kPacked && zeros_->dtype == DType::I32) {
      require(zeros_part_, *zeros_, {DType::I32}, {ceil_div(rows_ * bits, 32), groups_});
    } else {
      const Shape shape = zeros_->shape.rank() < 2 ? scales_.shape : Shape{scale_rows_, groups_};
      require(zeros_part_, *zeros_, {DType::I8}, shape);
    }
  }
  if (format_.layout == Layout::kGptq || format_.layout == Layout::kPacked)
    order_ = format_.ordered ? take(find, order_part_) : take_if(find, order_part_);
  if (order_) require(order_part_, *order_, {DType::I32}, {inputs_});
}

std::string PackedWeight::misfit() const {
  if (is_float())
    return fmt::format("weights in {} are not computed with as they are stored", kind_);
  if (!in_order_) return "groups follow an order of the inputs";
  if (!middle_zeros_) return "it has zeros other than the middle";
  if (is_int4() && format_.layout != Layout::kInt8) {
    if (format_.inputs != PackedFormat::Inputs::kFloat)
      return "no linear has int4 weights of this kind and rounded inputs";
    const bool known = group_ == 32 || group_ == 64 || group_ == 128;
    if (!known) return fmt::format("groups of {} are not computed with", group_);
    return half_scales_ ? "" : "a scale has no F16";
  }
  if (format_.layout != Layout::kInt8)
    return fmt::format("weights in {} are not computed with as they are stored", kind_);
  if (rows_of_scale_ != 1 || groups_ != 1) return "int8 weights must have one scale a row";
  if (format_.inputs != PackedFormat::Inputs::kInt8PerToken)
    return "int8 weights need inputs in int8, with a scale a token";
  const auto most = std::find(codes_.bytes.begin(), codes_.bytes.end(), std::byte{0x80});
  return most == codes_.bytes.end() ? "" : "it holds the code -128, which has no negative";
}

std::vector<std::byte> PackedWeight::fitting_scales() const {
  const std::vector<float> scales = read_scales();
  std::vector<std::byte> out(scales.size() * (is_int4() ? 2 : 4));
  for (size_t i = 0; i < scales.size(); ++i) {
    const uint16_t half = format::f32_to_f16(scales[i]);
    if (is_int4())
      std::memcpy(out.data() + 2 * i, &half, 2);
    else
      std::memcpy(out.data() + 4 * i, &scales[i], 4);
  }
  return out;
}

std::vector<std::byte> PackedWeight::int4_codes() const {
  const int64_t words = ceil_div(inputs_, 8);
  std::vector<std::byte> out(static_cast<size_t>(rows_ * words * 4));
  std::vector<uint8_t> codes(static_cast<size_t>(kTileRows * inputs_));
  for (int64_t first = 0; first < rows_; first += kTileRows) {
    const int64_t count = std::min(kTileRows, rows_ - first);
    unpack(first, count, codes.data());
    for (int64_t row = 0; row < count; ++row)
      for (int64_t word = 0; word < words; ++word) {
        uint32_t bits = 0;
        for (int64_t i = word * 8; i < std::min(word * 8 + 8, inputs_); ++i)
          bits |= uint32_t{codes[static_cast<size_t>(row * inputs_ + i)]} << (4 * (i % 8));
        std::memcpy(out.data() + ((first + row) * words + word) * 4, &bits, 4);
      }
  }
  return out;
}

void PackedWeight::decode(std::span<std::byte> out) const {
  check(out.size() == static_cast<size_t>(rows_ * inputs_) * sizeof(float), "size of a weight");
  const Parameters with = parameters();
  const std::vector<float> values = values_of_codes();
  std::vector<uint8_t> codes(static_cast<size_t>(kTileRows * inputs_));
  std::vector<float> line(static_cast<size_t>(inputs_));
  for (int64_t first = 0; first < rows_; first += kTileRows) {
    const int64_t count = std::min(kTileRows, rows_ - first);
    unpack(first, count, codes.data());
    for (int64_t row = 0; row < count; ++row) {
      const uint8_t* code = codes.data() + row * inputs_;
      const auto begin = static_cast<size_t>((first + row) / rows_of_scale_ * groups_);
      for (int64_t i = 0; i < inputs_; ++i) {
        const auto at = begin + static_cast<size_t>(with.group_of.empty()
                                                        ? i / group_
                                                        : with.group_of[static_cast<size_t>(i)]);
        const float zero =
            is_float() ? 0.0f : static_cast<float>(with.zeros.empty() ? middle() : with.zeros[at]);
        line[static_cast<size_t>(i)] = (values[code[i]] - zero) * with.scales[at];
      }
      if (format_.layout == Layout::kFloat8)
        for (const float value : line)
          if (value != value) refuse(codes_part_, "holds NaN; weights must be finite");
      std::memcpy(out.data() + static_cast<size_t>((first + row) * inputs_) * sizeof(float),
                  line.data(), line.size() * sizeof(float));
    }
  }
}

}  // namespace atom::checkpoint
