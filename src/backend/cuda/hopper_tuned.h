// The fastest plan of every shape and class of rows, as bench/cuda/linear_bench measured it with its word "sweep":
// w4a8 up to 32 rows alone, and from 64 to 1024 rows in chains of a layer's linears, on an NVIDIA H200; 4096 rows and w4a4
// on an H100 80GB HBM3; CUDA 13.0, groups of 128 and 128 kept channels. Up to 64 rows then
// tried again in decoding steps on an H200 (atom bench step --tune), and replaced where the step became faster.
#pragma once

#include "backend/cuda/hopper_linear.h"

namespace atom::backend::cuda::hopper {

// Other devices with as many multiprocessors take them too.
inline constexpr const char* kTunedOrigin = "plans measured on an H200 and an H100";
inline constexpr int kTunedMultiprocessors = 132;
inline constexpr int kTunedRows[] = {8, 16, 32, 64, 128, 256, 1024, 4096};
inline constexpr int kTunedClasses = 8;

struct Tuned {
  int blocks, slots;         // of the weight
  Plan plan[kTunedClasses];  // of up to kTunedRows rows
};
// w8a8 where a plan of its own was measured; else those of w4a8 serve it.
struct TunedInt8 {
  int blocks, slots;  // of the weight; slots of 128 inputs
  int rows;           // one of kTunedRows
  Plan plan;
};
inline constexpr TunedInt8 kTunedInt8[] = {
    // LLaMA-7B: qkv
    {192, 32, 32, {32, 1, 2, 1, false}},
    {192, 32, 64, {64, 1, 1, 1, false}},
    // o
    {64, 32, 32, {32, 1, 6, 1, false}},
    {64, 32, 64, {64, 1, 4, 2, false}},
    // gate and up
    {344, 32, 8, {8, 1, 4, 1, false}},
    {344, 32, 16, {16, 1, 1, 1, false}},
    {344, 32, 32, {32, 1, 1, 1, false}},
    {344, 32, 64, {64, 4, 1, 1, true}},
    // down
    {64, 86, 32, {32, 1, 2, 2, false}},
};
// w4a8
inline constexpr Tuned kTuned[] = {
    // LLaMA-7B: qkv
    {192,
     33,
     {{8, 1, 4, 1, false},
      {16, 1, 3, 1, false},
      {32, 2, 2, 1, false},
      {64, 2, 1, 1, true},
      {128, 2, 1, 1, true},
      {128, 3, 1, 1, true},
      {256, 2, 1, 2, true},
      {256, 2, 1, 2, true}}},
    // o
    {64,
     33,
     {{8, 1, 8, 1, false},
      {16, 1, 6, 1, false},
      {32, 1, 6, 1, false},
      {64, 2, 2, 1, true},
      {64, 1, 4, 1, false},
      {128, 2, 2, 1, true},
      {256, 2, 1, 2, true},
      {256, 2, 1, 2, true}}},
    // gate and up
    {344,
     33,
     {{8, 1, 2, 1, false},
      {16, 2, 1, 1, false},
      {32, 3, 1, 1, true},
      {64, 3, 1, 1, true},
      {128, 3, 1, 1, true},
      {128, 3, 1, 1, true},
      {256, 2, 1, 2, true},
      {256, 2, 1, 2, true}}},
    // down
    {64,
     87,
     {{8, 1, 8, 2, false},
      {16, 1, 6, 2, false},
      {32, 1, 4, 2, false},
      {64, 1, 2, 2, false},
      {64, 1, 4, 1, false},
      {128, 2, 2, 1, true},
      {256, 2, 1, 2, true},
      {256, 2, 1, 2, true}}},
    // LLaMA-2-70B: qkv
    {160,
     65,
     {{8, 1, 4, 1, false},
      {16, 1, 3, 1, false},
      {32, 2, 2, 1, false},
      {64, 2, 1, 1, true},
      {128, 2, 1, 1, true},
      {128, 3, 1, 1, true},
      {256, 2, 2, 1, true},
      {256, 2, 1, 2, true}}},
    // o
    {128,
     65,
     {{8, 1, 8, 1, false},
      {16, 1, 6, 1, false},
      {32, 1, 4, 1, false},
      {64, 1, 4, 1, false},
      {128, 2, 2, 1, true},
      {256, 2, 2, 1, true},
      {256, 2, 2, 1, true},
      {256, 2, 1, 2, true}}},
    // gate and up
    {896,
     65,
     {{8, 1, 2, 1, false},
      {16, 2, 1, 1, false},
      {32, 2, 1, 1, false},
      {64, 4, 1, 1, true},
      {128, 2, 2, 1, true},
      {256, 2, 2, 1, true},
      {256, 2, 1, 2, true},
      {256, 2, 1, 2, true}}},
    // down
    {128,
     225,
     {{8, 1, 4, 2, false},
      {16, 1, 6, 1, false},
      {32, 1, 4, 1, false},
      {64, 1, 4, 1, false},
      {128, 2, 2, 1, true},
      {256, 2, 2, 1, true},
      {256, 2, 1, 2, true},
      {256, 2, 1, 2, true}}},
};

// w4a4
inline constexpr Tuned kTunedGrouped[] = {
    // LLaMA-7B: qkv
    {192,
     33,
     {{8, 1, 4, 1, false},
      {16, 1, 3, 1, false},
      {32, 2, 2, 1, false},
      {64, 1, 2, 1, false},
      {128, 2, 1, 1, true},
      {128, 3, 1, 1, true},
      {256, 2, 1, 1, true},
      {256, 2, 1, 1, true}}},
    // o
    {64,
     33,
     {{8, 1, 8, 2, false},
      {16, 1, 6, 1, false},
      {32, 1, 6, 1, false},
      {32, 1, 6, 1, false},
      {64, 1, 4, 1, false},
      {64, 2, 1, 1, true},
      {256, 2, 1, 1, true},
      {256, 2, 1, 1, true}}},
    // gate and up
    {344,
     33,
     {{8, 1, 4, 1, false},
      {16, 1, 3, 1, false},
      {32, 2, 1, 1, false},
      {64, 3, 1, 1, true},
      {128, 3, 1, 1, true},
      {128, 2, 1, 1, true},
      {128, 2, 1, 1, true},
      {256, 2, 1, 1, true}}},
    // down
    {64,
     87,
     {{8, 1, 8, 1, false},
      {16, 1, 6, 1, false},
      {32, 1, 6, 2, false},
      {64, 1, 4, 2, false},
      {64, 1, 4, 1, false},
      {64, 1, 2, 1, false},
      {256, 2, 1, 1, true},
      {256, 2, 1, 1, true}}},
    // LLaMA-2-70B: qkv
    {160,
     65,
     {{8, 1, 4, 1, false},
      {16, 2, 3, 1, false},
      {32, 2, 2, 1, false},
      {64, 2, 2, 1, false},
      {128, 2, 1, 1, true},
      {128, 3, 1, 1, true},
      {256, 2, 1, 1, true},
      {256, 2, 1, 2, true}}},
    // o
    {128,
     65,
     {{8, 1, 8, 1, false},
      {16, 1, 3, 2, false},
      {32, 1, 4, 1, false},
      {64, 1, 4, 1, false},
      {64, 1, 2, 1, false},
      {128, 2, 1, 1, true},
      {256, 2, 1, 1, true},
      {256, 2, 1, 2, true}}},
    // gate and up
    {896,
     65,
     {{8, 2, 2, 1, false},
      {16, 2, 1, 1, false},
      {32, 2, 1, 1, false},
      {64, 2, 2, 1, true},
      {128, 2, 1, 1, true},
      {128, 2, 1, 1, true},
      {256, 2, 1, 1, true},
      {256, 2, 1, 2, true}}},
    // down
    {128,
     225,
     {{8, 1, 8, 1, false},
      {16, 1, 6, 1, false},
      {32, 1, 4, 1, false},
      {64, 1, 4, 1, false},
      {64, 2, 1, 2, false},
      {128, 2, 1, 1, true},
      {256, 2, 1, 1, true},
      {256, 2, 1, 2, true}}},
};

}  // namespace atom::backend::cuda::hopper
