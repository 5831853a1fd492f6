// Rows that a linear leaves to attention or gate, in f16 where the backend keeps them so, else in f32.
//
//   LinearRows rows(backend, count * width);
//   backend.linear({.x = x, .weights = weights, .y = rows.f32(), .y_f16 = rows.f16()});
//   backend.gate({.x = rows.f32(), .x_f16 = rows.f16(), .y = y});
#pragma once

#include "backend/backend.h"

namespace atom::backend {

class LinearRows {
 public:
  LinearRows() = default;
  // Not cleared. Error when the device has not enough memory.
  LinearRows(Backend& backend, size_t values)
      : f16_(backend.has_f16_rows()),
        data_(backend.allocate(values * (f16_ ? sizeof(uint16_t) : sizeof(float)))) {}

  // One of the two is null.
  float* f32() const { return f16_ ? nullptr : data_.as<float>(); }
  uint16_t* f16() const { return f16_ ? data_.as<uint16_t>() : nullptr; }
  size_t bytes() const { return data_.bytes(); }
  void* data() const { return data_.data(); }

 private:
  bool f16_ = false;
  Buffer data_;
};

}  // namespace atom::backend
