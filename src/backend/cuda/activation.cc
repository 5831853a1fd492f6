#include "backend/cuda/activation.h"

#include "base/error.h"
#include "format/list.h"

namespace atom::backend::cuda {
namespace {

constexpr int kAlignment = 16;

int aligned(int bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

Scaling scaling_of(format::Format format, bool signed_scales) {
  return format::visit(format, [&](auto f) {
    using F = decltype(f);
    if constexpr (!F::kInteger)
      return Scaling::kInt8;
    else if constexpr (F::kGlobal)
      return Scaling::kNvfp4;
    else if constexpr (F::kE2M1)
      return F::kWeightScaleBytes == 1 ? Scaling::kMxfp4 : Scaling::kE2M1;
    else if constexpr (F::kBits == 8)
      return Scaling::kInt8;
    else
      return signed_scales ? Scaling::kInt4Signed : Scaling::kInt4;
  });
}

}  // namespace

InputView input_view(const InputSpec& spec) {
  InputView view;
  int at = 0;
  for (int i = 0; i < 2; ++i) {
    const auto [format, size] = spec.segments.at[static_cast<size_t>(i)];
    InputSegment& s = view.at[i];
    s.size = size;
    if (size == 0) continue;
    if (format::is_integer(format)) {
      s.group = format::group_size(format, size);
      s.groups = format::groups(format, size);
      s.scaling = scaling_of(format, spec.signed_scales);
      s.codes_at = at;
      at += aligned((size + kCodeRun - 1) / kCodeRun * kCodeRun);
      s.scales_at = at;
      at += aligned(s.groups * static_cast<int>(sizeof(float)));
      if (s.scaling == Scaling::kInt8) {
        s.sum_at = at;
        at += aligned(sizeof(int32_t));
      }
    } else {
      s.values_at = at;
      at += aligned(size * static_cast<int>(sizeof(float)));
    }
  }
  view.row_bytes = (at + kRowPitch - 1) / kRowPitch * kRowPitch;
  return view;
}

InputView input_view(const Activation& x) {
  check(x.spec != nullptr && (x.data != nullptr || x.rows == 0), "an input has memory and a spec");
  InputView view = input_view(*x.spec);
  view.data = static_cast<uint8_t*>(x.data);
  view.rows = x.rows;
  return view;
}

}  // namespace atom::backend::cuda
