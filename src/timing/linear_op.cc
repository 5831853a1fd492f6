#include "timing/linear_op.h"

namespace atom::timing {

LinearOp::LinearOp(backend::Backend& backend, const model::Site& input,
                   std::initializer_list<const model::LinearTensors*> parts, RandomData& data,
                   size_t rotated)
    : backend_(backend),
      data_(data),
      spec_{.segments = input.segments,
            .clip = input.clip,
            .signed_scales = input.signed_scales,
            .hadamard = input.hadamard} {
  if (!input.order.empty()) {
    order_ = backend.allocate(input.order.size() * sizeof(int32_t));
    backend.upload(order_.data(), input.order.data(), input.order.size() * sizeof(int32_t));
    spec_.order = order_.as<int32_t>();
  }
  std::vector<backend::LinearWeight> views;
  for (const model::LinearTensors* part : parts) {
    views.push_back(model::view(*part));
    weight_bytes_ += static_cast<double>(part->bytes());
  }
  for (int i = 0; i < copies_for(weight_bytes_, rotated); ++i) {
    copies_.push_back(backend.pack(views, input.segments));
    pointers_.push_back(copies_.back().get());
    data.pause();
  }
}

void LinearOp::set_rows(int rows) {
  rows_ = rows;
  x_ = {};
  x_ = backend_.allocate(backend_.activation_bytes(spec_, rows));
  const backend::Buffer values =
      data_.make_f32(static_cast<size_t>(rows) * static_cast<size_t>(k()));
  backend_.quantize({.x = values.as<float>(), .y = input()});
  backend_.synchronize();
}

backend::LinearArgs LinearOp::args(int copy, float* y, uint16_t* y_f16, backend::Then then) const {
  return {.x = input(),
          .weights = {&pointers_[static_cast<size_t>(copy) % pointers_.size()], 1},
          .y = y,
          .y_f16 = y_f16,
          .then = then};
}

Operation LinearOp::operation(float* y, uint16_t* y_f16) const {
  Operation out;
  out.copies = static_cast<int>(copies_.size());
  out.bytes = weight_bytes_ + static_cast<double>(backend_.activation_bytes(spec_, rows_)) +
              (y_f16 != nullptr ? 2.0 : 4.0) * rows_ * n();
  out.products = 2.0 * rows_ * n() * k();
  out.integers = format::is_integer(spec_.segments.at[0].format);
  out.enqueue = [this, y, y_f16](int copy, auto) {
    backend_.linear(args(copy, y, y_f16, backend::Then::kStore));
  };
  return out;
}

}  // namespace atom::timing
