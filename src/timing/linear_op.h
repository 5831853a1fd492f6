// One linear with random weights, packed as often as keeps them out of the device's caches, to be timed.
//
//   LinearOp qkv(backend, layer.qkv_input, {&layer.q, &layer.k, &layer.v}, data, rotated);
//   qkv.set_rows(16);
//   time_operations(backend, {qkv.operation(y)}, options);      // y: [16, qkv.n()]
#pragma once

#include <initializer_list>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "model/layer_tensors.h"
#include "timing/operation.h"
#include "timing/random_data.h"

namespace atom::timing {

class LinearOp {
 public:
  // The rows of the parts are concatenated. Copies are made until `rotated` bytes of weights are.
  LinearOp(backend::Backend& backend, const model::Site& input,
           std::initializer_list<const model::LinearTensors*> parts, RandomData& data,
           size_t rotated);
  LinearOp(const LinearOp&) = delete;
  LinearOp& operator=(const LinearOp&) = delete;

  int n() const { return copies_.front()->n(); }
  int k() const { return spec_.k(); }
  const backend::InputSpec& spec() const { return spec_; }
  const backend::PackedLinear& weight() const { return *copies_.front(); }

  void set_rows(
      int rows);  // makes the input: what the calls below gave earlier is no more to be used
  backend::Activation input() const { return {x_.data(), &spec_, rows_}; }
  // y: [rows, n], in f32 or (LinearArgs::y_f16) f16; the other is null.
  backend::LinearArgs args(int copy, float* y, uint16_t* y_f16, backend::Then then) const;
  Operation operation(float* y, uint16_t* y_f16 = nullptr) const;

 private:
  backend::Backend& backend_;
  RandomData& data_;
  backend::InputSpec spec_;
  backend::Buffer order_, x_;
  std::vector<std::unique_ptr<backend::PackedLinear>> copies_;
  std::vector<const backend::PackedLinear*> pointers_;  // to copies_
  double weight_bytes_ = 0;
  int rows_ = 0;
};

}  // namespace atom::timing
