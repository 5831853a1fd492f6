#include "model/tensor_reader.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "format/list.h"
#include "model/fp4_checkpoint.h"

namespace atom::model {

using format::Format;
using tensor::DType;
using tensor::TensorView;

Format format_of(DType dtype) {
  return dtype == DType::F32 ? format::kF32 : dtype == DType::F16 ? format::kF16 : format::kBF16;
}

void require_finite(const std::string& where, const std::string& name, const TensorView& view) {
  if (!tensor::is_floating(view.dtype)) return;
  format::visit(format_of(view.dtype), [&](auto f) {
    using F = decltype(f);
    if constexpr (!F::kInteger) {
      typename F::Storage value;
      for (size_t at = 0; at < view.bytes.size(); at += sizeof(value)) {
        std::memcpy(&value, view.bytes.data() + at, sizeof(value));
        if (!std::isfinite(F::widen(value)))
          fail("{}: tensor '{}' holds {}; weights must be finite", where, name, F::widen(value));
      }
    }
  });
}

std::vector<float> TensorReader::vector(const std::string& name, int n) const {
  const TensorView view = floating(name, {n});
  std::vector<float> out = tensor::widen(view);
  for (const float v : out)
    if (!std::isfinite(v)) refuse_value(name, v);
  return out;
}

LinearTensors TensorReader::linear(const std::string& module, int n, int k) const {
  const LinearScheme* scheme = scheme_.find(module);
  LinearTensors out{.name = module, .n = n};
  if (scheme == nullptr) {
    out.part[0] = {plain(module + ".weight", n, k, out.segments), {}};
  } else {
    if (scheme->kept > k)
      fail("{}: kept_channels {} of '{}' exceed its {} inputs", where(), scheme->kept, module, k);
    out.segments = weight_segments(*scheme, k);
    if (out.segments.at[0].size > 0) out.part[0] = normal(module, n, out.segments.at[0]);
    if (out.segments.at[1].size > 0) out.part[1] = kept(module, n, out.segments.at[1]);
  }
  if (files_.has(module + ".bias")) out.bias = vector(module + ".bias", n);
  return out;
}

Site TensorReader::site(const std::string& name, const std::string& module, int k,
                        bool ordered) const {
  Site out{.name = name, .segments = format::whole(format::kF32, k)};
  const LinearScheme* scheme = scheme_.find(module);
  if (scheme == nullptr) return out;
  out.segments = input_segments(*scheme, k);
  out.clip = scheme->clip;
  out.signed_scales = scheme->signed_scales;
  out.hadamard = scheme->hadamard;
  if (ordered && files_.has(name + ".order")) out.order = permutation(name + ".order", k);
  return out;
}

void TensorReader::require_equal_inputs(const Site& site, const std::string& first,
                                        const std::string& other) const {
  const LinearScheme* a = scheme_.find(first);
  const LinearScheme* b = scheme_.find(other);
  const bool equal = a == nullptr || b == nullptr
                         ? a == b
                         : a->input == b->input && a->kept_input == b->kept_input &&
                               a->kept == b->kept && a->clip == b->clip &&
                               a->hadamard == b->hadamard && a->signed_scales == b->signed_scales;
  if (!equal)
    fail("{}: '{}' and '{}' share the input '{}' but describe it differently", where(), first,
         other, site.name);
}

void TensorReader::refuse_value(const std::string& name, float value) const {
  fail("{}: tensor '{}' holds {}; weights must be finite", where(), name, value);
}

TensorView TensorReader::shaped(const std::string& name, const tensor::Shape& shape) const {
  const TensorView view = files_.tensor(name);
  if (!(view.shape == shape))
    fail("{}: tensor '{}' must have shape {} by config.json and has {}", where(), name,
         shape.to_string(), view.shape.to_string());
  return view;
}

TensorView TensorReader::typed(const std::string& name, const tensor::Shape& shape,
                               DType dtype) const {
  const TensorView view = shaped(name, shape);
  if (view.dtype != dtype)
    fail("{}: tensor '{}' must be {} and is {}", where(), name, tensor::dtype_name(dtype),
         tensor::dtype_name(view.dtype));
  return view;
}

TensorView TensorReader::floating(const std::string& name, const tensor::Shape& shape) const {
  const TensorView view = shaped(name, shape);
  if (!tensor::is_floating(view.dtype))
    fail("{}: tensor '{}' must be F32, F16 or BF16 and is {}", where(), name,
         tensor::dtype_name(view.dtype));
  return view;
}

std::vector<std::byte> TensorReader::copy(std::span<const std::byte> bytes) {
  return {bytes.begin(), bytes.end()};
}

std::vector<std::byte> TensorReader::plain(const std::string& name, int n, int k,
                                           format::Segments& segments) const {
  const TensorView view = floating(name, {n, k});
  require_finite(where(), name, view);
  segments = format::whole(format_of(view.dtype), k);
  return copy(view.bytes);
}

std::vector<std::byte> TensorReader::scales(const std::string& name, const tensor::Shape& shape,
                                            DType dtype) const {
  const TensorView view = typed(name, shape, dtype);
  require_finite(where(), name, view);
  return copy(view.bytes);
}

std::vector<std::byte> TensorReader::row_scales(const std::string& name, int n) const {
  std::vector<std::byte> bytes = scales(name, {n}, DType::F32);
  for (size_t at = 0; at < bytes.size(); at += sizeof(float)) {
    float scale;
    std::memcpy(&scale, bytes.data() + at, sizeof(scale));
    if (!(scale > 0))
      fail("{}: tensor '{}' holds {}; row scales must be positive", where(), name, scale);
  }
  return bytes;
}

std::vector<int8_t> TensorReader::multipliers(const std::string& name,
                                              const tensor::Shape& shape) const {
  const TensorView view = typed(name, shape, DType::I8);
  std::vector<int8_t> out(view.bytes.size());
  std::memcpy(out.data(), view.bytes.data(), out.size());
  for (const int8_t multiplier : out)
    if (multiplier == 0 || std::abs(int{multiplier}) > format::Int4Progressive::kMostMultiplier)
      fail("{}: tensor '{}' holds the multiplier {}, which is outside 1..15 and -15..-1", where(),
           name, multiplier);
  return out;
}

std::vector<std::byte> TensorReader::byte_scales(const std::string& name,
                                                 const tensor::Shape& shape, DType dtype,
                                                 uint8_t largest) const {
  const TensorView view = typed(name, shape, dtype);
  require_scale_bytes(where(), name, view, largest);
  return copy(view.bytes);
}

LinearTensors::Part TensorReader::fp4(const std::string& module, int n,
                                      const format::Segment& segment) const {
  const tensor::Shape shape = {n, format::groups(segment.format, segment.size)};
  const std::string scale = module + ".weight_scale", global = module + ".weight_global_scale";
  const int64_t bytes = format::row_bytes(segment.format, segment.size);
  LinearTensors::Part part;
  part.codes = copy(typed(module + ".weight_packed", {n, bytes}, DType::U8).bytes);
  if (format::weight_scale_bytes(segment.format) == 2) {
    part.scales = scales(scale, shape, DType::F16);
  } else if (!format::has_global_scale(segment.format)) {
    part.scales = byte_scales(scale, shape, DType::U8, format::kE8M0NaN - 1);
  } else {
    part.scales = byte_scales(scale, shape, DType::F8_E4M3, format::kE4M3Largest);
    part.global_scale = read_global_scale(where(), global, typed(global, {1}, DType::F32));
  }
  return part;
}

std::vector<std::byte> TensorReader::int8_codes(const std::string& name,
                                                const tensor::Shape& shape) const {
  const TensorView view = typed(name, shape, DType::I8);
  if (std::find(view.bytes.begin(), view.bytes.end(), std::byte{0x80}) != view.bytes.end())
    fail("{}: tensor '{}' holds the code -128, which is outside -127..127", where(), name);
  return copy(view.bytes);
}

LinearTensors::Part TensorReader::normal(const std::string& module, int n,
                                         format::Segment& segment) const {
  if (!format::is_integer(segment.format)) {
    format::Segments found;
    LinearTensors::Part part{plain(module + ".weight", n, segment.size, found), {}};
    segment.format = found.at[0].format;
    return part;
  }
  if (format::is_e2m1(segment.format)) return fp4(module, n, segment);
  const int64_t groups = format::groups(segment.format, segment.size);
  if (format::is_int4(segment.format)) {
    const TensorView codes =
        typed(module + ".weight_packed", {n, format::row_bytes(segment.format, segment.size) / 4},
              DType::I32);
    if (format::is_progressive(segment.format))
      return {copy(codes.bytes), row_scales(module + ".weight_row_scale", n),
              multipliers(module + ".weight_multiplier", {n, groups})};
    return {copy(codes.bytes), scales(module + ".weight_scale", {n, groups}, DType::F16)};
  }
  return {int8_codes(module + ".weight", {n, segment.size}),
          scales(module + ".weight_scale", {n, 1}, DType::F32)};
}

LinearTensors::Part TensorReader::kept(const std::string& module, int n,
                                       format::Segment& segment) const {
  if (!format::is_integer(segment.format)) {
    format::Segments found;
    LinearTensors::Part part{plain(module + ".kept_weight", n, segment.size, found), {}};
    segment.format = found.at[0].format;
    return part;
  }
  return {int8_codes(module + ".kept_weight", {n, segment.size}),
          scales(module + ".kept_scale", {n}, DType::F32)};
}

std::vector<int32_t> TensorReader::permutation(const std::string& name, int k) const {
  const TensorView view = typed(name, {k}, DType::I32);
  std::vector<int32_t> out(k);
  std::memcpy(out.data(), view.bytes.data(), view.bytes.size());
  std::vector<bool> seen(k, false);
  for (int i = 0; i < k; ++i) {
    if (out[i] < 0 || out[i] >= k || seen[out[i]])
      fail("{}: tensor '{}' must be a permutation of 0..{} and holds {} at {}", where(), name,
           k - 1, out[i], i);
    seen[out[i]] = true;
  }
  return out;
}

}  // namespace atom::model
