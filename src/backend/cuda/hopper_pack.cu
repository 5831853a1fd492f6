// Weights as uploaded (tasks.h: WeightView) to the slots of hopper_linear.h, on the device. A block takes a slot.
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include "backend/cuda/hopper_linear.h"

namespace atom::backend::cuda::hopper {
namespace {

constexpr int kThreads = 128;

// Byte of a slot, from the fragments of hopper.cuh: a thread's 16 bytes for 64 (int4) or 32 inputs, then the next
// thread's, then the next inputs.
__device__ int nibble_byte(int output, int input) {
  const int thread = output / 16 * 32 + output % 8 * 4 + input % 16 / 4;
  const int word = input / 32 % 2 * 2 + output / 8 % 2;
  return input / 64 * 2048 + thread * 16 + word * 4 + input % 4;
}
__device__ int code_byte(int output, int input) {  // int8
  const int thread = output / 16 * 32 + output % 8 * 4 + input % 16 / 4;
  const int word = input / 16 % 2 * 2 + output / 8 % 2;
  return input / 32 * 2048 + thread * 16 + word * 4 + input % 4;
}
__device__ int multiplier_byte(int output) {
  return kCodeBytes + output / 16 * 16 + output % 8 * 2 + output / 8 % 2;
}
__device__ int step_byte(int output) {
  return kCodeBytes + output / 16 * 32 + output % 8 * 4 + output / 8 % 2 * 2;
}

struct Place {
  int block, slot;  // of the segment
};

__device__ uint32_t stored_byte(const WeightSegment& s, int n, int output, int64_t at) {
  return output < n && at < s.row_bytes ? s.codes[output * s.row_bytes + at] : 0;
}

// Code + 8 of an int4 segment, as stored; a byte holds those of inputs 2 i and 2 i + 1.
__device__ uint32_t nibble_of(const WeightSegment& s, int n, int output, int input) {
  return (stored_byte(s, n, output, input / 2) >> (input % 2 * 4)) & 15;
}

__device__ void pack4(const WeightSegment& s, int n, bool grouped, const Place& place,
                      uint8_t* slot) {
  const uint32_t sign = grouped ? 0x88 : 0;  // from code + 8 to two's complement
  for (int i = static_cast<int>(threadIdx.x); i < kBlockOutputs * kSlotInputs4 / 2; i += kThreads) {
    const int output = i / 64, low = i % 64 / 16 * 32 + i % 16;  // and low + 16
    const int row = place.block * kBlockOutputs + output, first = place.slot * kSlotInputs4;
    const uint32_t both = nibble_of(s, n, row, first + low) | nibble_of(s, n, row, first + low + 16)
                                                                  << 4;
    slot[nibble_byte(output, low)] = static_cast<uint8_t>(both ^ sign);
  }
  for (int output = static_cast<int>(threadIdx.x); output < kBlockOutputs; output += kThreads) {
    const int row = place.block * kBlockOutputs + output;
    const int64_t at = int64_t{place.slot} * n + row;
    if (grouped)  // an f16 as stored, so nothing is rounded
      *reinterpret_cast<__half*>(slot + step_byte(output)) =
          __float2half_rn(row < n ? s.steps[at] : 0.0f);
    else
      slot[multiplier_byte(output)] = row < n ? static_cast<uint8_t>(s.multipliers[at]) : 0;
  }
}

__device__ void pack8(const WeightSegment& s, int n, const Place& place, uint8_t* slot) {
  for (int i = static_cast<int>(threadIdx.x); i < kBlockOutputs * kSlotInputs8; i += kThreads) {
    const int output = i / kSlotInputs8, input = i % kSlotInputs8;
    const int row = place.block * kBlockOutputs + output;
    slot[code_byte(output, input)] =
        static_cast<uint8_t>(stored_byte(s, n, row, int64_t{place.slot} * kSlotInputs8 + input));
  }
}

__global__ void pack_kernel(WeightView w, int segment4, int segment8, Packing to) {
  const int slots = to.slots4 + to.slots8;
  const Place place{static_cast<int>(blockIdx.x) / slots, static_cast<int>(blockIdx.x) % slots};
  const bool grouped = to.grouped != 0;
  uint8_t* slot = to.slots + int64_t{blockIdx.x} * (grouped ? kGroupedSlotBytes : kSlotBytes);
  if (place.slot < to.slots4)
    pack4(w.at[segment4], w.n, grouped, place, slot);
  else
    pack8(w.at[segment8], w.n, {place.block, place.slot - to.slots4}, slot);
  if (place.slot != 0) return;
  for (int i = static_cast<int>(threadIdx.x); i < kBlockOutputs; i += kThreads) {
    const int output = place.block * kBlockOutputs + i;
    if (to.slots4 > 0 && !grouped)
      to.steps4[output] = output < w.n ? w.at[segment4].steps[output] : 0;
    if (to.slots8 > 0) to.steps8[output] = output < w.n ? w.at[segment8].steps[output] : 0;
  }
}

}  // namespace

Status launch_pack(const WeightView& w, int segment4, int segment8, const Packing& to,
                   Stream stream) {
  const int blocks = packed_blocks(w.n);
  if (blocks == 0 || to.slots4 + to.slots8 == 0) return 0;
  pack_kernel<<<blocks*(to.slots4 + to.slots8), kThreads, 0, stream>>>(w, segment4, segment8, to);
  return cudaGetLastError();
}

}  // namespace atom::backend::cuda::hopper
