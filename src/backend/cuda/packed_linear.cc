#include "backend/cuda/packed_linear.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "backend/linear_parts.h"
#include "base/error.h"
#include "format/list.h"

namespace atom::backend::cuda {
namespace {

using format::Format;

constexpr int64_t kRowAlignment = 16;

Element element_of(Format format) {
  return format::visit(format, [](auto f) {
    using F = decltype(f);
    if constexpr (F::kInteger) {
      if constexpr (F::kE2M1) return Element::kE2M1;
      return F::kBits == 8 ? Element::kInt8 : Element::kInt4;
    } else {
      if constexpr (F::kBits == 32) return Element::kF32;
      return F::kTag == format::kF16.kind ? Element::kF16 : Element::kBF16;
    }
  });
}

// "int4.g128 + int8 x int4.g128 + int8"
std::string pair_name(const format::Segments& weight, const format::Segments& input) {
  std::string words;
  for (const format::Segments* side : {&weight, &input}) {
    if (side == &input) words += " x ";
    bool more = false;
    for (const format::Segment& s : side->at) {
      if (s.size == 0) continue;
      words += (more ? " + " : "") + format::name(s.format);
      more = true;
    }
  }
  return words;
}

// Pageable memory has been read when this returns.
void upload(void* device, const void* host, size_t bytes, Stream stream) {
  if (bytes > 0)
    require(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream),
            "packing a weight");
}

// The values of one code of row `row`, one per stored scale.
std::vector<float> row_steps(const LinearWeight::Part& part, const format::Segment& segment,
                             int row) {
  const int count = format::weight_scales(segment.format, segment.size);
  std::vector<float> steps(static_cast<size_t>(count));
  format::visit(segment.format, [&](auto f) {
    using F = decltype(f);
    if constexpr (F::kInteger) {
      const char* from =
          static_cast<const char*>(part.scales) + int64_t{row} * count * F::kWeightScaleBytes;
      for (size_t g = 0; g < steps.size(); ++g) {
        typename F::Scale scale;
        static_assert(sizeof scale == F::kWeightScaleBytes);
        std::memcpy(&scale, from + g * sizeof scale, sizeof scale);
        steps[g] = F::step(scale);
        if constexpr (F::kGlobal) steps[g] /= *part.global_scale;
      }
    }
  });
  return steps;
}

}  // namespace

CudaLinear::CudaLinear(std::span<const LinearWeight> parts, const format::Segments& input,
                       bool hopper, Stream stream)
    : input_(input) {
  check_parts(parts, input, "cuda");
  for (const LinearWeight& part : parts) n_ += part.n;
  k_ = input.k();
  view_.n = n_;
  for (int i = 0; i < 2; ++i) {
    const format::Segment w = parts[0].segments.at[static_cast<size_t>(i)];
    const Format x = input.at[static_cast<size_t>(i)].format;
    if (w.size == 0) continue;
    if (!format::is_integer(w.format) && format::is_integer(x))
      notice_ =
          "linear " + format::name(w.format) + " x " + format::name(x) + ": input dequantized";
    pack_codes(parts, i, stream);
    if (format::is_integer(w.format)) pack_scales(parts, i, stream);
  }
  pack_bias(parts, stream);
  if (!hopper) return;
  if (find_segments(parts[0].segments))
    pack_slots(stream);
  else if (find_half_segment(parts[0].segments))
    pack_half(stream);
  else if (notice_.empty())
    notice_ = fmt::format("linear {}: plain kernel", pair_name(parts[0].segments, input));
}

// Which segments the Hopper kernels would take; false: they do not compute this pair.
bool CudaLinear::find_segments(const format::Segments& weight) {
  constexpr int kGroup = 128;
  if (n_ == 0) return false;
  for (int i = 0; i < 2; ++i) {
    const format::Segment w = weight.at[static_cast<size_t>(i)];
    const Format x = input_.at[static_cast<size_t>(i)].format;
    if (w.size == 0) continue;
    const bool groups = w.format == format::int4(kGroup) && x == w.format;
    const bool progressive = w.format == format::int4_progressive(kGroup) && x == format::kInt8;
    const bool int8 = w.format == format::kInt8 && x == format::kInt8;
    int& segment = int8 ? segment8_ : segment4_;
    if (!(groups || progressive || int8) || segment >= 0) return false;
    segment = i;
    grouped_ = grouped_ || groups;
  }
  return segment4_ < 0 || segment8_ < 0 || segment4_ < segment8_;
}

void CudaLinear::pack_slots(Stream stream) {
  const auto slots_of = [&](int segment, int inputs) {
    return segment < 0 ? 0 : (view_.at[segment].size + inputs - 1) / inputs;
  };
  const auto blocks = static_cast<size_t>(hopper::packed_blocks(n_));
  const size_t outputs = blocks * hopper::kBlockOutputs;
  hopper::Packing to{.slots4 = slots_of(segment4_, hopper::kSlotInputs4),
                     .slots8 = slots_of(segment8_, hopper::kSlotInputs8),
                     .grouped = grouped_ ? 1 : 0};
  fast_ = {
      .n = n_, .slots4 = to.slots4, .slots8 = to.slots8, .grouped = to.grouped, .bias = view_.bias};
  slots_.reserve(blocks * static_cast<size_t>(to.slots4 + to.slots8) *
                 static_cast<size_t>(fast_.slot_bytes()));
  if (!grouped_) steps4_.reserve(outputs * sizeof(float));  // else they are in the slots
  steps8_.reserve(outputs * sizeof(float));
  to.slots = slots_.as<uint8_t>();
  to.steps4 = steps4_.as<float>();
  to.steps8 = steps8_.as<float>();
  require(hopper::launch_pack(view_, segment4_, segment8_, to, stream), "packing a weight");
  require(cudaStreamSynchronize(stream), "packing a weight");
  fast_.slots = to.slots;
  fast_.steps4 = to.steps4;
  fast_.steps8 = to.steps8;
  drop_codes();
}

// One segment of weights in 16 bits or int4, met by an input in floating point.
bool CudaLinear::find_half_segment(const format::Segments& weight) {
  constexpr int kGroup = 128;
  half_segment_ = -1;
  if (n_ == 0) return false;
  for (int i = 0; i < 2; ++i) {
    const format::Segment w = weight.at[static_cast<size_t>(i)];
    if (w.size == 0) continue;
    if (half_segment_ >= 0 || format::is_integer(input_.at[static_cast<size_t>(i)].format))
      return false;
    if (w.format != format::kF16 && w.format != format::kBF16 && w.format != format::int4(kGroup))
      return false;
    half_segment_ = i;
  }
  return half_segment_ >= 0;
}

void CudaLinear::pack_half(Stream stream) {
  const WeightSegment& w = view_.at[half_segment_];
  half_ = {.n = n_,
           .k = w.size,
           .kind = w.element == Element::kInt4 ? hopper::HalfKind::kInt4 : hopper::HalfKind::kF16,
           .bias = view_.bias};
  slots_.reserve(static_cast<size_t>(half_.bytes()));
  factors_.reserve(static_cast<size_t>(hopper::half_blocks(n_)) * hopper::kBlockOutputs *
                   sizeof(float));
  half_.slots = slots_.as<uint8_t>();
  half_.factors = factors_.as<float>();
  require(hopper::launch_half_pack(view_, half_segment_, half_, stream), "packing a weight");
  require(cudaStreamSynchronize(stream), "packing a weight");
  drop_codes();
}

void CudaLinear::drop_codes() {
  for (int i = 0; i < 2; ++i) {
    codes_[i] = DeviceMemory();
    steps_[i] = DeviceMemory();
    multipliers_[i] = DeviceMemory();
    view_.at[i].codes = nullptr;
    view_.at[i].steps = nullptr;
    view_.at[i].multipliers = nullptr;
  }
}

void CudaLinear::pack_codes(std::span<const LinearWeight> parts, int index, Stream stream) {
  const format::Segment segment = parts[0].segments.at[static_cast<size_t>(index)];
  const int64_t stored = format::row_bytes(segment.format, segment.size);
  WeightSegment& w = view_.at[index];
  w.size = segment.size;
  w.element = element_of(segment.format);
  w.row_bytes = (stored + kRowAlignment - 1) / kRowAlignment * kRowAlignment;
  const size_t bytes = static_cast<size_t>(w.row_bytes) * static_cast<size_t>(n_);
  codes_[index].reserve(bytes);
  auto* to = codes_[index].as<uint8_t>();
  w.codes = to;
  if (stored != w.row_bytes) require(cudaMemsetAsync(to, 0, bytes, stream), "packing a weight");
  for (const LinearWeight& part : parts) {
    const auto rows = static_cast<size_t>(part.n);
    const void* from = part.part[index].codes;
    if (stored == w.row_bytes)
      upload(to, from, rows * static_cast<size_t>(stored), stream);
    else if (rows > 0)
      require(
          cudaMemcpy2DAsync(to, static_cast<size_t>(w.row_bytes), from, static_cast<size_t>(stored),
                            static_cast<size_t>(stored), rows, cudaMemcpyHostToDevice, stream),
          "packing a weight");
    to += w.row_bytes * part.n;
  }
  require(cudaStreamSynchronize(stream), "packing a weight");
}

void CudaLinear::pack_scales(std::span<const LinearWeight> parts, int index, Stream stream) {
  const format::Segment segment = parts[0].segments.at[static_cast<size_t>(index)];
  const auto n = static_cast<size_t>(n_);
  const auto groups = static_cast<size_t>(format::groups(segment.format, segment.size));
  const auto count = static_cast<size_t>(format::weight_scales(segment.format, segment.size));
  WeightSegment& w = view_.at[index];
  w.group = format::group_size(segment.format, segment.size);
  w.groups = static_cast<int>(groups);
  w.progressive = format::is_progressive(segment.format) ? 1 : 0;
  std::vector<float> steps(count * n);  // [scales, n]
  std::vector<int8_t> multipliers(w.progressive != 0 ? groups * n : 0);
  size_t output = 0;
  for (const LinearWeight& part : parts)
    for (int row = 0; row < part.n; ++row, ++output) {
      const std::vector<float> of_row = row_steps(part.part[index], segment, row);
      for (size_t g = 0; g < count; ++g) steps[g * n + output] = of_row[g];
      for (size_t g = 0; w.progressive != 0 && g < groups; ++g)
        multipliers[g * n + output] =
            part.part[index].multipliers[static_cast<size_t>(row) * groups + g];
    }
  steps_[index].reserve(steps.size() * sizeof(float));
  upload(steps_[index].as<float>(), steps.data(), steps.size() * sizeof(float), stream);
  w.steps = steps_[index].as<float>();
  if (w.progressive != 0) {
    multipliers_[index].reserve(multipliers.size());
    upload(multipliers_[index].as<int8_t>(), multipliers.data(), multipliers.size(), stream);
    w.multipliers = multipliers_[index].as<int8_t>();
  }
  require(cudaStreamSynchronize(stream), "packing a weight");
}

void CudaLinear::pack_bias(std::span<const LinearWeight> parts, Stream stream) {
  const bool any = std::any_of(parts.begin(), parts.end(),
                               [](const LinearWeight& part) { return part.bias != nullptr; });
  if (!any) return;
  std::vector<float> bias;
  for (const LinearWeight& part : parts) {
    if (part.bias != nullptr)
      bias.insert(bias.end(), part.bias, part.bias + part.n);
    else
      bias.resize(bias.size() + static_cast<size_t>(part.n), 0.0f);
  }
  bias_.reserve(bias.size() * sizeof(float));
  upload(bias_.as<float>(), bias.data(), bias.size() * sizeof(float), stream);
  require(cudaStreamSynchronize(stream), "packing a weight");
  view_.bias = bias_.as<float>();
}

}  // namespace atom::backend::cuda
