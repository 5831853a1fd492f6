// Canonical weights (tasks.h: WeightView) to the slots of hopper_half_linear.h, on the device.
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include "backend/cuda/hopper_half_linear.cuh"
#include "backend/cuda/numbers.cuh"

namespace atom::backend::cuda::hopper {
namespace {

constexpr int kThreads = 128;

// 2^(14 - e) for magnitudes of 2^e .. 2^(e + 1), as a field of f32 and its negative.
struct Power {
  float times, back;
};
__device__ Power power_for(uint32_t magnitude) {
  const uint32_t exponent = magnitude == 0 ? 127 + 14 : max(magnitude >> 23, 15u);
  return {__uint_as_float((127 + 127 + 14 - exponent) << 23),
          __uint_as_float((exponent - 14) << 23)};
}

// The largest finite magnitude of an output's values, or of its steps, for a warp.
__device__ uint32_t largest_of(const WeightSegment& s, int n, int output) {
  uint32_t most = 0;
  const int count = s.group == 0 ? s.size : s.groups;
  const uint8_t* row = s.codes + output * s.row_bytes;
  for (int i = static_cast<int>(threadIdx.x) % 32; i < count; i += 32) {
    const float value =
        s.group == 0 ? value_at(row, i, s.element) : s.steps[int64_t{i} * n + output];
    const uint32_t bits = magnitude_bits(value);
    if (bits < kInfinityBits) most = max(most, bits);
  }
  return __reduce_max_sync(0xffffffffu, most);
}

// A product with int4 codes is 2^-24 of code x step (hopper_half_linear.cuh).
__global__ void factors_kernel(WeightSegment s, HalfWeight to, float* factors) {
  const int output = static_cast<int>(blockIdx.x * (kThreads / 32) + threadIdx.x / 32);
  float factor = 1;
  if (output < to.n && s.element != Element::kF16) {
    factor = power_for(largest_of(s, to.n, output)).back;
    if (s.group != 0) factor *= 16777216.0f;
  }
  if (threadIdx.x % 32 == 0) factors[output] = factor;
}

// The power of two that `factor` takes back.
__device__ float power_of(const WeightSegment& s, float factor) {
  const uint32_t bits = __float_as_uint(factor) - (s.group != 0 ? 24u << 23 : 0);
  return __uint_as_float((254u << 23) - bits);
}

struct Place {
  int block, slot;
};

__device__ void pack_f16(const WeightSegment& s, const HalfWeight& to, const Place& place,
                         uint8_t* slot) {
  for (int i = static_cast<int>(threadIdx.x); i < kBlockOutputs * kHalfSlotInputs; i += kThreads) {
    const int output = i / kHalfSlotInputs, input = i % kHalfSlotInputs;
    const int row = place.block * kBlockOutputs + output;
    const int at = place.slot * kHalfSlotInputs + input;
    uint16_t bits = 0;
    if (row < to.n && at < s.size) {
      if (s.element == Element::kF16)
        bits = reinterpret_cast<const uint16_t*>(s.codes + row * s.row_bytes)[at];
      else
        bits = f32_to_f16(value_at(s.codes + row * s.row_bytes, at, s.element) *
                          power_of(s, to.factors[row]));
    }
    const int column = input % kPanelInputs;
    const int byte = input / kPanelInputs * kPanelBytes + output * 128 +
                     ((column / 8) ^ (output % 8)) * 16 + column % 8 * 2;
    *reinterpret_cast<uint16_t*>(slot + byte) = bits;
  }
}

// Code + 8; 8 is zero.
__device__ uint32_t nibble_of(const WeightSegment& s, int n, int output, int input) {
  if (output >= n || input >= s.size) return 8;
  return (s.codes[output * s.row_bytes + input / 2] >> (input % 2 * 4)) & 15u;
}

// Word i of a thread has a step of 16 inputs: of its outputs at bits 0 and 4, 8 inputs further at 8 and 12, and the
// inputs behind all these 16 bits further.
__device__ void pack_int4(const WeightSegment& s, const HalfWeight& to, const Place& place,
                          uint8_t* slot) {
  const int thread = static_cast<int>(threadIdx.x);
  const int output = place.block * kBlockOutputs + thread / 32 * 16 + thread % 32 / 4;
  for (int i = 0; i < kHalfSlotInputs / 16; ++i) {
    const int input = place.slot * kHalfSlotInputs + 16 * i + thread % 4 * 2;
    uint32_t word = 0;
    for (int nibble = 0; nibble < 8; ++nibble)
      word |= nibble_of(s, to.n, output + nibble % 2 * 8, input + nibble / 2 % 2 * 8 + nibble / 4)
              << (4 * nibble);
    *reinterpret_cast<uint32_t*>(slot + i / 4 * (kCodeBytes / 2) + thread * 16 + i % 4 * 4) = word;
  }
  if (thread >= kBlockOutputs) return;
  const int row = place.block * kBlockOutputs + thread;
  const float step =
      row < to.n ? s.steps[int64_t{place.slot} * to.n + row] * power_of(s, to.factors[row]) : 0.0f;
  const int byte = kCodeBytes + thread / 16 * 32 + thread % 8 * 4 + thread / 8 % 2 * 2;
  *reinterpret_cast<uint16_t*>(slot + byte) = f32_to_f16(step);
}

__global__ void pack_kernel(WeightSegment s, HalfWeight to, uint8_t* slots, int slot_bytes) {
  const int count = slots_along(to.k);
  const Place place{static_cast<int>(blockIdx.x) / count, static_cast<int>(blockIdx.x) % count};
  uint8_t* slot = slots + int64_t{blockIdx.x} * slot_bytes;
  if (to.kind == HalfKind::kF16)
    pack_f16(s, to, place, slot);
  else
    pack_int4(s, to, place, slot);
}

}  // namespace

Status launch_half_pack(const WeightView& w, int segment, const HalfWeight& to, Stream stream) {
  const WeightSegment& s = w.at[segment];
  const int blocks = half_blocks(to.n);
  if (blocks == 0 || to.k == 0) return cudaSuccess;
  factors_kernel<<<blocks * kBlockOutputs * 32 / kThreads, kThreads, 0, stream>>>(
      s, to, const_cast<float*>(to.factors));
  pack_kernel<<<blocks * half_slots(to.k), kThreads, 0, stream>>>(
      s, to, const_cast<uint8_t*>(to.slots), to.slot_bytes());
  return cudaGetLastError();
}

}  // namespace atom::backend::cuda::hopper
