#include "model/layer_tensors.h"

#include <cstring>
#include <utility>

#include "base/error.h"
#include "format/list.h"
#include "format/quantize.h"

namespace atom::model {
namespace {

// Widens columns [begin, begin + size) of every row from one part.
void widen_part(const LinearTensors& linear, int index, int begin, float* out) {
  const format::Segment& segment = linear.segments.at[index];
  const int k = linear.k();
  const int64_t row_bytes = format::row_bytes(segment.format, segment.size);
  const int group = format::group_size(segment.format, segment.size);
  const int groups = format::groups(segment.format, segment.size);
  const std::byte* scales = linear.part[index].scales.data();
  for (int row = 0; row < linear.n; ++row) {
    const std::byte* codes = linear.part[index].codes.data() + row * row_bytes;
    float* y = out + int64_t{row} * k + begin;
    format::visit(segment.format, [&](auto f) {
      using F = decltype(f);
      using Storage = typename F::Storage;
      const auto* values = reinterpret_cast<const Storage*>(codes);
      for (int i = 0; i < segment.size; ++i) {
        if constexpr (!F::kInteger) {
          y[i] = F::widen(values[i]);
        } else {
          const int64_t at = int64_t{row} * groups + i / group;
          const auto* stored = reinterpret_cast<const typename F::Scale*>(scales);
          float step = F::step(stored[F::kProgressive ? row : at]);
          if constexpr (F::kProgressive)
            step *= static_cast<float>(linear.part[index].multipliers[static_cast<size_t>(at)]);
          if constexpr (F::kGlobal) step /= linear.part[index].global_scale[0];
          y[i] = step * static_cast<float>(format::unpack_code<F>(values, i));
        }
      }
    });
  }
}

}  // namespace

int64_t LinearTensors::Part::bytes() const {
  return static_cast<int64_t>(codes.size() + scales.size() + multipliers.size() +
                              global_scale.size() * sizeof(float));
}

int64_t LinearTensors::bytes() const {
  int64_t sum = static_cast<int64_t>(bias.size() * sizeof(float));
  for (const Part& p : part) sum += p.bytes();
  return sum;
}

backend::LinearWeight view(const LinearTensors& linear) {
  backend::LinearWeight out{.n = linear.n, .segments = linear.segments};
  for (int i = 0; i < 2; ++i) {
    const LinearTensors::Part& part = linear.part[i];
    out.part[i] = {.codes = part.codes.data(),
                   .scales = part.scales.empty() ? nullptr : part.scales.data(),
                   .multipliers = part.multipliers.empty() ? nullptr : part.multipliers.data(),
                   .global_scale = part.global_scale.empty() ? nullptr : part.global_scale.data()};
  }
  out.bias = linear.bias.empty() ? nullptr : linear.bias.data();
  return out;
}

std::vector<float> to_f32(const LinearTensors& linear) {
  std::vector<float> out(static_cast<size_t>(linear.n) * linear.k());
  int begin = 0;
  for (int i = 0; i < 2; ++i) {
    if (linear.segments.at[i].size > 0) widen_part(linear, i, begin, out.data());
    begin += linear.segments.at[i].size;
  }
  return out;
}

LinearTensors from_f32(std::string name, int n, int k, format::Format format, const float* values) {
  check(!format::is_integer(format), "from_f32 makes floating-point weights");
  LinearTensors out{.name = std::move(name), .n = n, .segments = format::whole(format, k)};
  const size_t count = static_cast<size_t>(n) * k;
  out.part[0].codes.resize(static_cast<size_t>(n) * format::row_bytes(format, k));
  format::visit(format, [&](auto f) {
    using F = decltype(f);
    if constexpr (!F::kInteger) {
      auto* bits = reinterpret_cast<typename F::Storage*>(out.part[0].codes.data());
      for (size_t i = 0; i < count; ++i) bits[i] = F::narrow(values[i]);
    }
  });
  return out;
}

}  // namespace atom::model
