// The backend "cpu": threads of an Executor and the kernels of one instruction set. This folder's
// .cc files cut operations into tasks; kernel_table.h lists what a task may do.
#pragma once

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/isa.h"
#include "backend/cpu/memory.h"
#include "base/executor.h"

namespace atom::backend::cpu {

class CpuBackend final : public Backend {
 public:
  // Error: see choose_isa().
  CpuBackend(Executor& executor, Isa isa);

  std::string name() const override { return "cpu"; }
  std::string description() const override;
  std::vector<std::string> fallbacks() const override;

  void upload(void* device, const void* host, size_t bytes) override;
  void download(void* host, const void* device, size_t bytes) override;
  void synchronize() override {}

  std::unique_ptr<PackedLinear> pack(std::span<const LinearWeight> parts,
                                     const format::Segments& input) override;
  size_t activation_bytes(const InputSpec& spec, int rows) const override;

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

  void dequantize(const Activation& x, float* y) override;
  void export_codes(const Activation& x, int8_t* codes, float* scales) override;
  void count_saturated(const Activation& x, uint64_t* count) override;

  Ceilings ceilings() override;
  std::unique_ptr<LibraryLinear> library_linear(const LibraryShape& shape) override;
  std::string library() override;

 protected:
  void* allocate_bytes(size_t bytes) override { return allocate_memory(bytes); }
  void free_bytes(void* data, size_t) override { free_memory(data); }

 private:
  // Calls body(i, scratch) for i in [0, count) on the workers, each with its own `scratch_bytes`.
  void run(int64_t count, size_t scratch_bytes,
           const std::function<void(int64_t, std::byte*)>& body);
  // Calls body(row, scratch) for every row; rows of little work share an iteration. row_work is in
  // elements.
  void for_rows(int rows, int64_t row_work, size_t scratch_bytes,
                const std::function<void(int, std::byte*)>& body);

  Executor& executor_;
  Isa isa_;
  const KernelTable& kernels_;
  std::vector<Memory> scratch_;  // of each worker
  Memory attended_;              // attention before quantization
  Memory fresh_rows_;            // a step's K and V in int8, for its open pages
  std::set<std::string> notices_;
};

}  // namespace atom::backend::cpu
