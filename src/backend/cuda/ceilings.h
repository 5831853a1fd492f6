// What the device does at best: the speed of reading, measured, and the rates of the tensor cores, from the data sheet.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/cuda/tasks.h"

namespace atom::backend::cuda {

// Sums the words at `data`, a multiple of 64 KiB of them, into words [multiprocessors * kReadBlocks]: one pass, as fast
// as the memory gives them.
inline constexpr int kReadBlocks = 8;  // a multiprocessor
Status launch_read(const void* data, size_t bytes, int multiprocessors, uint32_t* words,
                   Stream stream);

// Multiplications and additions of dense products that a multiprocessor does in a clock, of 16-bit floating-point
// numbers and of 8-bit integers; 0: not known. major, minor: compute capability.
struct TensorRate {
  int operations16 = 0, operations8 = 0;
};
constexpr TensorRate tensor_rate(int major, int minor) {
  if (major == 8 && minor == 0) return {2048, 4096};
  if (major == 8) return {1024, 2048};
  if (major == 9) return {4096, 8192};
  if (major == 10) return {8192, 16384};
  if (major == 12) return {1024, 2048};
  return {};
}

}  // namespace atom::backend::cuda
