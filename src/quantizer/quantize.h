// Checkpoint -> quantized checkpoint: calibrate, order, solve, write, layer by layer.
//
//   quantize({.input = &files, .output = "out", .recipe = recipe, .calibration = ids}, backend, executor);
//
// Memory holds one layer plus the calibration activations, whatever the number of layers (transforms add a few
// small matrices for each). The same
// input, recipe, calibration ids and seed give the same bytes for any number of threads. The output
// appears complete under its final name or not at all; the input is only read.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "base/executor.h"
#include "base/json.h"
#include "checkpoint/model_files.h"
#include "quantizer/order.h"
#include "quantizer/progress.h"
#include "quantizer/recipe.h"

namespace atom::quantizer {

struct QuantizeOptions {
  const checkpoint::ModelFiles* input = nullptr;
  std::filesystem::path output;
  Recipe recipe;
  std::span<const int32_t> calibration;  // ids of the whole calibration text, BOS included
  std::string calibration_name;          // file name or "embedded", for messages
  std::string calibration_sha256;
  int samples = 128;    // windows
  int sequence = 2048;  // tokens per window
  uint64_t seed = 0;
  // Orders that a run on the same model, calibration, windows and seed reported: spares their measurement.
  std::span<const LayerOrders> orders;
  // Keeps what is done beside the output (journal.h), so that a run that was killed can be continued.
  bool journal = false;
  bool resume = false;  // continues a journal that lies there; with `journal`
  std::function<void(const Progress&)> progress;  // may be empty
};

struct QuantizeReport {
  int64_t input_bytes = 0;     // tensors of the source
  int64_t output_bytes = 0;    // tensors written
  double bits_per_weight = 0;  // bits of all quantized linears (scales counted) / their weights
  double seconds = 0;
  double forward_seconds =
      0;  // of it: one FP pass over the calibration tokens (the calibrate phase)
  int64_t peak_rss = 0;
  int resumed_layers = 0;  // solved by an earlier run
  std::vector<std::string> notices;
  std::vector<LayerOrders> orders;  // one per layer; empty when the recipe orders nothing
  Json json;                        // the same and per-module errors; written as report.json
};

// Error: calibration shorter than one window (names both lengths), an output that exists or lies in
// the input, an input that is already quantized, NaN weights, disk full.
QuantizeReport quantize(const QuantizeOptions& options, backend::Backend& backend,
                        Executor& executor);

}  // namespace atom::quantizer
