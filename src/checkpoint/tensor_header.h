// What is known of a tensor without its bytes.
#pragma once

#include <cstdint>
#include <string_view>

#include "tensor/tensor.h"

namespace atom::checkpoint {

struct TensorHeader {
  tensor::DType dtype = tensor::DType::F32;  // of the view
  tensor::Shape shape;
  std::string_view stored;  // type in the file: "BF16", and "Q8_0" of what is read as F32
  uint64_t bytes = 0;       // in the file
};

}  // namespace atom::checkpoint
