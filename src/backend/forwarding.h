// A backend that passes everything on to another: what decorators derive from, which change some operations. The other
// replays recorded steps by itself: who must see each operation overrides record() with Backend::record().
//
//   class Counting final : public ForwardingBackend {
//     void linear(const LinearArgs& args) override { ++count_; inner().linear(args); }
//   };
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backend/backend.h"

namespace atom::backend {

class ForwardingBackend : public Backend {
 public:
  explicit ForwardingBackend(Backend& inner) : inner_(inner) {}  // which outlives this

  std::string name() const override { return inner_.name(); }
  std::string description() const override { return inner_.description(); }
  std::vector<std::string> fallbacks() const override { return inner_.fallbacks(); }
  size_t available_memory() override { return inner_.available_memory(); }
  void upload(void* device, const void* host, size_t bytes) override {
    inner_.upload(device, host, bytes);
  }
  void download(void* host, const void* device, size_t bytes) override {
    inner_.download(host, device, bytes);
  }
  void synchronize() override { inner_.synchronize(); }
  std::unique_ptr<PackedLinear> pack(std::span<const LinearWeight> parts,
                                     const format::Segments& input) override {
    return inner_.pack(parts, input);
  }
  size_t activation_bytes(const InputSpec& spec, int rows) const override {
    return inner_.activation_bytes(spec, rows);
  }
  bool has_f16_rows() const override { return inner_.has_f16_rows(); }
  void embed(const EmbedArgs& args) override { inner_.embed(args); }
  void norm(const NormArgs& args) override { inner_.norm(args); }
  void quantize(const QuantizeArgs& args) override { inner_.quantize(args); }
  void linear(const LinearArgs& args) override { inner_.linear(args); }
  void norm_heads(const NormHeadsArgs& args) override { inner_.norm_heads(args); }
  void attention(const AttentionArgs& args) override { inner_.attention(args); }
  void gate(const GateArgs& args) override { inner_.gate(args); }
  void route(const RouteArgs& args) override { inner_.route(args); }
  void combine(const CombineArgs& args) override { inner_.combine(args); }
  void sample(const SampleArgs& args) override { inner_.sample(args); }
  std::unique_ptr<PendingIds> sample_ahead(const SampleArgs& args, int32_t* sampled) override {
    return inner_.sample_ahead(args, sampled);
  }
  void edit_logits(float* logits, int vocabulary, std::span<const LogitEdit> edits) override {
    inner_.edit_logits(logits, vocabulary, edits);
  }
  bool runs_ahead() const override { return inner_.runs_ahead(); }
  std::unique_ptr<Recording> record(StepFunction step) override {
    return inner_.record(std::move(step));
  }
  void dequantize(const Activation& x, float* y) override { inner_.dequantize(x, y); }
  void export_codes(const Activation& x, int8_t* codes, float* scales) override {
    inner_.export_codes(x, codes, scales);
  }
  void count_saturated(const Activation& x, uint64_t* count) override {
    inner_.count_saturated(x, count);
  }
  Ceilings ceilings() override { return inner_.ceilings(); }
  std::unique_ptr<LibraryLinear> library_linear(const LibraryShape& shape) override {
    return inner_.library_linear(shape);
  }
  std::string library() override { return inner_.library(); }
  std::unique_ptr<LinearTuner> linear_tuner() override { return inner_.linear_tuner(); }
  void* allocate_bytes(size_t bytes) override { return inner_.allocate_bytes(bytes); }
  void free_bytes(void* data, size_t bytes) override { inner_.free_bytes(data, bytes); }

 protected:
  Backend& inner() const { return inner_; }

 private:
  Backend& inner_;
};

}  // namespace atom::backend
