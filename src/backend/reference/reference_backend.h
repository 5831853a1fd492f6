// The executable specification: every operation of backend.h as plain loops on one thread, sums in
// f64 (sums of codes in integers), each result rounded to f32 once. Read linear.cc, attention.cc,
// rows.cc and sample.cc to learn what Atom computes; every other backend is tested against them.
//
//   auto backend = make_reference_backend();   // backend/open.h
//
// Device memory is host memory. Nothing is cached between calls.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "backend/backend.h"

namespace atom::backend {

class ReferenceBackend final : public Backend {
 public:
  std::string name() const override { return "reference"; }
  std::string description() const override {
    return "reference: plain loops, one thread, f64 sums";
  }

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

 protected:
  void* allocate_bytes(size_t bytes) override;
  void free_bytes(void* data, size_t bytes) override;
};

}  // namespace atom::backend
