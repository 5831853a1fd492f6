// The device operations on an NVIDIA GPU: plain kernels, one for each operation, and fast ones where hopper_linear.h,
// hopper_half_linear.h, hopper_producers.h, hopper_decode.h and hopper_prefill.h have them, on one stream. Codes, scales and
// what attention stores have the bits of `reference`; a row's result does not depend on the batch, but on Hopper for the
// last bits of attention in a decoding step, and of linears with floating-point inputs, which may cut k by the number of
// rows, unless PluginOptions ask for that too.
//
//   const auto backend = open_backend("cuda", {});   // the plug-in's atom_make_backend()
//
// Calls enqueue and return; only download(), synchronize(), sample(), PendingIds::wait(), pack(), uploads of more than a MiB,
// free and what grows a scratch wait.
// Errors of a kernel appear at the next of them.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/draws.h"
#include "backend/cuda/hopper_decode_plan.h"
#include "backend/cuda/hopper_measured.h"
#include "backend/cuda/hopper_prefill_plan.h"
#include "backend/cuda/hopper_producers.h"
#include "backend/cuda/recording.h"
#include "backend/cuda/runtime.h"
#include "backend/cuda/tasks.h"
#include "backend/plugin.h"

namespace atom::backend::cuda {

class CublasLt;

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(const PluginOptions& options);  // Error: as open_device()
  ~CudaBackend() override;
  CudaBackend(const CudaBackend&) = delete;
  CudaBackend& operator=(const CudaBackend&) = delete;

  std::string name() const override { return "cuda"; }
  std::string description() const override;
  std::vector<std::string> fallbacks() const override { return fallbacks_; }

  void upload(void* device, const void* host, size_t bytes) override;
  void download(void* host, const void* device, size_t bytes) override;
  void synchronize() override;
  size_t available_memory() override;

  std::unique_ptr<PackedLinear> pack(std::span<const LinearWeight> parts,
                                     const format::Segments& input) override;
  size_t activation_bytes(const InputSpec& spec, int rows) const override;
  bool has_f16_rows() const override { return is_hopper(); }

  void embed(const EmbedArgs& args) override;
  void norm(const NormArgs& args) override;
  void quantize(const QuantizeArgs& args) override;
  void linear(const LinearArgs& args) override;
  void norm_heads(const NormHeadsArgs& args) override;
  void attention(const AttentionArgs& args) override;
  void gate(const GateArgs& args) override;
  void route(const RouteArgs& args) override;
  void combine(const CombineArgs& args) override;
  void sample(const SampleArgs& args) override;
  std::unique_ptr<PendingIds> sample_ahead(const SampleArgs& args, int32_t* sampled) override;
  bool runs_ahead() const override { return true; }

  std::unique_ptr<Recording> record(StepFunction step) override;

  void dequantize(const Activation& x, float* y) override;
  void export_codes(const Activation& x, int8_t* codes, float* scales) override;
  void count_saturated(const Activation& x, uint64_t* count) override;

  Ceilings ceilings() override;
  std::unique_ptr<LibraryLinear> library_linear(const LibraryShape& shape) override;
  std::string library() override;
  std::unique_ptr<LinearTuner> linear_tuner() override;

 protected:
  void* allocate_bytes(size_t bytes) override { return allocate_device(bytes); }
  void free_bytes(void* data, size_t) override {
    forget_halves();
    free_device(data);
  }

 private:
  friend class CudaRecording;
  friend class CudaTuner;
  void quantize_rows(const float* x, const Activation& y);
  hopper::HalfRows reserve_halves(int rows, int k);
  void forget_halves() { halved_ = {}; }
  // By the Hopper kernel; false: not. task has the source, name is its in a notice.
  bool produce(hopper::ProduceTask task, const Activation& y, std::string_view name);
  void read_plans();  // of PluginOptions::tuned
  hopper::PlanSource plan_source() const { return {device_.multiprocessors, measured_}; }
  // By a given plan, or by that which suits.
  void fast_linear(const LinearArgs& args, const hopper::Plan* chosen = nullptr);
  void half_linear(const LinearArgs& args, const hopper::Plan* chosen = nullptr);
  std::string kernels_word() const;  // which kernels the device runs, for description()
  bool is_hopper() const { return device_.major == 9 && device_.minor == 0; }
  static bool is_decoding(std::span<const SequenceStep> sequences);  // one row each at most
  const RowPlace* upload_places(std::span<const SequenceStep> sequences, int rows, int page_tokens);
  void begin_step() { step_.tokens = 0, step_.plans.clear(); }
  void prepare(std::span<const SequenceStep> sequences, int page_tokens,
               std::span<const size_t> plans);
  void store_kv(const AttentionTask& task);
  bool attend_on_hopper(const AttentionArgs& args, AttentionTask task);  // false: it has no kernel
  static hopper::DecodeTask decode_task(const AttentionTask& task);
  static hopper::PrefillTask prefill_task(const AttentionTask& task);
  void decode(const AttentionTask& task);
  void prefill(const AttentionTask& task);
  struct DecodePlanOnDevice;
  size_t find_decode_plan(const hopper::DecodePlanShape& shape, int head_dim);
  void make_room(DecodePlanOnDevice& on_device);
  void renew(DecodePlanOnDevice& on_device);
  void upload_decode_plan(const hopper::DecodePlanShape& shape, hopper::DecodeTask* task);
  void forget_step();
  void upload_tiles(int group, bool without_single_rows, hopper::PrefillTask* task);
  void reserve_fresh(int64_t vector_bytes, AttentionTask* task);
  std::shared_ptr<DrawSlot> enqueue_sample(const SampleArgs& args, int32_t* sampled);
  float* rows_scratch(int rows, int width);
  void note(const std::string& fallback);

  PluginOptions options_;
  std::vector<hopper::MeasuredPlan> measured_;
  Device device_;
  Stream stream_ = nullptr;
  Staging staging_;
  DrawSlots draws_;
  // Scratch, in stream order: each call overwrites what the one before has read.
  DeviceMemory rows_;      // f32 rows of a producer before they are quantized
  DeviceMemory ordered_;   // QuantizeTask::ordered
  DeviceMemory fresh_;     // AttentionTask::fresh
  DeviceMemory places_;    // RowPlace [rows], then page tables that came from the host; of step_
  DeviceMemory gathered_;  // rows of a linear's input, expert by expert
  DeviceMemory halves_, half_factors_;  // HalfRows
  // The input whose rows are there: a producer has written them beside its f32, or a linear that came before.
  struct {
    const void* data = nullptr;
    int rows = 0, k = 0;
  } halved_;
  DeviceMemory chosen_;        // RouteTask::chosen
  DeviceMemory queries_;       // of attention on Hopper
  DeviceMemory silu_offsets_;  // hopper::ProduceTask::silu_offsets; never changes

  // The attention calls of a step share what follows from its sequences.
  struct {
    std::vector<char> bytes;  // that places_ holds
    std::vector<hopper::DecodeRow> rows;
    std::vector<hopper::PrefillSequence> sequences;
    uint64_t number = 0;        // counts what places_ held
    int tokens = 0;             // of a page
    std::vector<size_t> plans;  // of decode_plans_, used since begin_step()
  } step_;
  // The plan of a decoding step and the partial results of its blocks, in memory that stays where it is until a step
  // needs more.
  struct DecodePlanOnDevice {
    hopper::DecodePlanShape shape;
    int head_dim = 0;
    hopper::DecodePlanLimits limits = {};
    hopper::DecodePlanLayout layout = {};
    uint64_t step = 0;  // that it was made for; 0: none
    DeviceMemory plan = {}, pieces = {};
  };
  std::vector<DecodePlanOnDevice> decode_plans_;
  std::vector<hopper::DecodeRun> host_plan_;
  bool capturing_ = false;  // a step, for a graph
  struct {                  // of step_, for so many query heads a KV head
    uint64_t step = 0;
    int group = 0, count = 0;
    bool without_single_rows = false;
    DeviceMemory memory;
  } tiles_;
  std::vector<std::string> fallbacks_;
  std::shared_ptr<CublasLt> library_;  // opened when it is asked for
};

}  // namespace atom::backend::cuda
