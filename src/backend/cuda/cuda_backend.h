// The device operations on an NVIDIA GPU: plain kernels, one for each operation, and fast ones where hopper_linear.h,
// hopper_decode.h and hopper_prefill.h have them, on one stream. Codes, scales and what attention stores have the bits of `reference`;
// a row's result does not depend on the batch, but for the last bits of attention in a decoding step on Hopper.
//
//   const auto backend = open_backend("cuda", {});   // the plug-in's atom_make_backend()
//
// Calls enqueue and return; only download(), synchronize(), sample(), pack(), uploads of more than a MiB, free and what
// grows a scratch wait.
// Errors of a kernel appear at the next of them.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/hopper_decode_plan.h"
#include "backend/cuda/hopper_prefill_plan.h"
#include "backend/cuda/runtime.h"
#include "backend/cuda/tasks.h"

namespace atom::backend::cuda {

class CudaBackend final : public Backend {
 public:
  CudaBackend();  // Error: as open_device()
  ~CudaBackend() override;
  CudaBackend(const CudaBackend&) = delete;
  CudaBackend& operator=(const CudaBackend&) = delete;

  std::string name() const override { return "cuda"; }
  std::string description() const override;
  std::vector<std::string> fallbacks() const override { return fallbacks_; }

  void upload(void* device, const void* host, size_t bytes) override;
  void download(void* host, const void* device, size_t bytes) override;
  void synchronize() override;

  std::unique_ptr<PackedLinear> pack(std::span<const LinearWeight> parts,
                                     const format::Segments& input) override;
  size_t activation_bytes(const InputSpec& spec, int rows) const override;

  void embed(const EmbedArgs& args) override;
  void norm(const NormArgs& args) override;
  void quantize(const QuantizeArgs& args) override;
  void linear(const LinearArgs& args) override;
  void attention(const AttentionArgs& args) override;
  void gate(const GateArgs& args) override;
  void route(const RouteArgs& args) override;
  void combine(const CombineArgs& args) override;
  void sample(const SampleArgs& args) override;

  void dequantize(const Activation& x, float* y) override;
  void export_codes(const Activation& x, int8_t* codes, float* scales) override;

 protected:
  void* allocate_bytes(size_t bytes) override { return allocate_device(bytes); }
  void free_bytes(void* data, size_t) override { free_device(data); }

 private:
  void quantize_rows(const float* x, const Activation& y);
  void fast_linear(const LinearArgs& args);
  std::string kernels_word() const;  // which kernels the device runs, for description()
  bool is_hopper() const { return device_.major == 9 && device_.minor == 0; }
  static bool is_decoding(const AttentionArgs& args);  // one row a sequence at most
  const RowPlace* upload_places(const AttentionArgs& args);
  bool decode(const AttentionArgs& args, AttentionTask task);  // false: not by the Hopper kernel
  void upload_decode_plan(const hopper::DecodePlanShape& shape, hopper::DecodeTask* task);
  bool prefill(const AttentionArgs& args, AttentionTask task);  // as decode()
  void upload_tiles(int group, hopper::PrefillTask* task);
  void reserve_fresh(int64_t vector_bytes, AttentionTask* task);
  float* rows_scratch(int rows, int width);
  void note(const std::string& fallback);

  Device device_;
  Stream stream_ = nullptr;
  Staging staging_;
  // Scratch, in stream order: each call overwrites what the one before has read.
  DeviceMemory rows_;      // f32 rows of a producer before they are quantized
  DeviceMemory ordered_;   // QuantizeTask::ordered
  DeviceMemory fresh_;     // AttentionTask::fresh
  DeviceMemory places_;    // RowPlace [rows], then page tables that came from the host
  DeviceMemory gathered_;  // rows of a linear's input, expert by expert
  DeviceMemory chosen_;    // RouteTask::chosen
  DeviceMemory masses_, draws_;
  // Attention on Hopper: queries. Of a decoding step: the plan, partial results of several blocks, counters of who has
  // arrived. Of others: the tiles.
  DeviceMemory queries_, plan_, pieces_, counters_, tiles_;
  std::vector<char> step_bytes_;              // that places_ holds
  std::vector<hopper::DecodeRow> step_rows_;  // of the call
  std::vector<hopper::PrefillSequence> step_sequences_;
  // What plan_ holds, without the vectors, and what it was made for.
  struct {
    hopper::DecodePlanShape shape;
    int head_dim = 0, blocks = 0;
    size_t segments = 0, merges = 0;  // bytes
  } decode_plan_;
  int tiles_group_ = 0,
      tile_count_ = 0;  // what tiles_ holds, and for how many heads a KV head; 0: nothing
  std::vector<std::string> fallbacks_;
};

}  // namespace atom::backend::cuda
